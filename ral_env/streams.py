"""Standard output and error that last: nobody need read them, and every letter can be written.

It loads nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any


class LastingStream:
    """A text stream whose reader may go away, as that of ``ral train | head`` does.

    What is written from then on is dropped, and the program goes on. Letters that the stream's
    encoding lacks are written without their accents, or as question marks.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, as the stream does, what it can show; the number of characters."""
        try:
            return self._try(lambda: self._stream.write(text))
        except UnicodeEncodeError as error:
            plain = unicodedata.normalize("NFKD", text)
            plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
            encoded = plain.encode(error.encoding, "replace").decode(error.encoding)
            return self._try(lambda: self._stream.write(encoded))

    def flush(self) -> None:
        """Flush the stream, if anyone still reads it."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], int | None]) -> int:
        try:
            return act() or 0
        except BrokenPipeError:
            with open(os.devnull, "wb") as nowhere:  # what is buffered still goes somewhere
                os.dup2(nowhere.fileno(), self._stream.fileno())
            return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Let the process's standard output and error last."""
    out, error = LastingStream(sys.stdout), LastingStream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            yield
        finally:
            out.flush()
            error.flush()

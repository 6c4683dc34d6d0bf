"""Progress bars: one that moves on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

LOG_SECONDS = 60.0  # between lines of a log
LOG_FORMAT = "{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class _Lines:
    """A log as tqdm writes to it: what it would draw over becomes a line of its own."""

    def __init__(self, log: TextIO):
        self.log = log

    def write(self, text: str) -> None:
        if line := text.strip():
            self.log.write(f"{line}\n")

    def flush(self) -> None:
        self.log.flush()


class ProgressBar(tqdm):
    """tqdm's bar, whose last words may change oftener than it is drawn."""

    def tell(self, words: str) -> None:
        """Say something at the end of the bar, as soon as it is drawn again."""
        self.set_postfix_str(words, refresh=False)
        if not self.disable and time.time() - self.last_print_t >= self.mininterval:
            self.refresh()
            self.last_print_t = time.time()


def progress_bar(
    total: int, label: str, unit: str, done: int = 0, stream: TextIO | None = None, **more: Any
) -> ProgressBar:
    """A bar on standard error; where that is no terminal, a line a minute.

    Args:
        total, done: how much there is to do, and how much of it is done already.
        label: what it is called; no bar is shown if empty.
        unit: what is counted.
        stream: where it is drawn, in place of standard error.
        more: further arguments of tqdm.
    """
    shown: TextIO = sys.stderr if stream is None else stream
    how: dict[str, Any] = {"file": shown, "mininterval": 1.0}
    if not shown.isatty():
        how = {"file": _Lines(shown), "bar_format": LOG_FORMAT}
        how |= {"mininterval": LOG_SECONDS, "maxinterval": LOG_SECONDS}
    how |= {"total": total, "initial": done, "desc": label, "unit": unit, "disable": not label}
    return ProgressBar(**how, **more)

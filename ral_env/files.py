"""Files that are there whole or not at all, rows of figures, locks, and what to say of a full disk.

It loads nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

Row = dict[str, float]  # figures by name

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskError(OSError):
    """A file could not be written: what and where it is, and why not."""


def size_in_words(size: float) -> str:
    """A number of bytes as people write it: ``3.2 MB``."""
    unit, *larger = ("bytes", "kB", "MB", "GB", "TB")
    while size >= 999.5 and larger:
        size, unit = size / 1000, larger.pop(0)
    return f"{size:.3g} {unit}"


def check_room(folder: Path, size: int, what: str) -> None:
    """Refuse to write where there is not enough room.

    Args:
        folder: where; it exists.
        size: bytes.
        what: what is to be written, for the message.

    Raises:
        DiskError: says how much room there is and how much is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskError(
            f"no room for {what} in {folder}: it needs {size_in_words(size)}, and "
            f"{size_in_words(free)} are free"
        )


@contextlib.contextmanager
def told(file: Path, size: int | None = None) -> Iterator[None]:
    """Say in one sentence what went wrong where a file is written within.

    Args:
        file: what is written.
        size: its bytes, where they are known.

    Raises:
        DiskError: in place of the system's error.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if error.errno in FULL:
            needs = "" if size is None else f": it needs {size_in_words(size)}"
            raise DiskError(f"no room left to write {file}{needs}") from error
        raise DiskError(f"cannot write {file}: {error.strerror or error}") from error


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside where it is to be, then rename it: it is there whole or not at all.

    Args:
        file: its folder exists.
        write: is given the name under which the file is written first.

    Raises:
        DiskError: if it cannot be written; nothing is left of it.
    """
    fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    with told(file):
        try:
            write(fresh)
            os.replace(fresh, file)
        finally:  # if it is not there yet
            fresh.unlink(missing_ok=True)


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, onto the disk itself: it outlives a loss of power.

    Raises:
        DiskError: if it cannot be written, or there is no room: then nothing has been written.
    """
    check_room(file.parent, len(data), file.name)

    def write(fresh: Path) -> None:
        with told(file, len(data)), fresh.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    write_whole(file, write)


def read_rows(file: Path, most: int | None = None) -> list[Row]:
    """The rows of a CSV of figures; a row lacks the columns that are empty in it.

    Args:
        file: the CSV.
        most: how many rows are read at most: one that was being written when the run was cut, or
            the disk was full, may be cut, too.

    Raises:
        ValueError: if a cell is no number.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {name: number(cell) for name, cell in row.items() if cell not in ("", None)}
            for row in itertools.islice(csv.DictReader(stream), most)
        ]


def number(cell: str) -> float:
    """A CSV cell as an int where it is one, else as a float."""
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_stream(file: Path, write: Callable[[io.BytesIO], Any]) -> None:
    """Write a picture, say, whole or not at all; the folder that it is in is made if it is missing.

    Args:
        file: what is written.
        write: puts it into a stream.

    Raises:
        DiskError: as of :func:`write_bytes`.
    """
    stream = io.BytesIO()
    write(stream)
    with told(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, stream.getvalue())


def check_writable(file: Path, folder: bool = False) -> None:
    """See that a file can be written there, before the work that it is to hold.

    The folder that it is in is made if it is missing; what is there already stays as it is.

    Args:
        file: what is to be written.
        folder: whether it is to be a folder.

    Raises:
        DiskError: if it cannot.
    """
    if file.is_dir() and not folder:
        raise DiskError(f"cannot write {file}: it is a folder")
    fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    with told(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.touch()
        fresh.unlink()


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """What writers that died have left beside files of this name: ``.NAME.XXXXXXXX``.

    Only who holds the folder's lock may take them for left over. Earlier versions ended the name in
    the process's number.
    """
    return [
        file
        for file in folder.glob(f".{name}.*")
        if file.is_file() and _is_suffix(file.name.rpartition(".")[2])
    ]


def _is_suffix(text: str) -> bool:
    return text.isdigit() or (len(text) == 8 and all(c in "0123456789abcdef" for c in text))


class Lock:
    """A file or folder that one process at a time holds, until it lets go or dies.

    Args:
        path: a folder, or a file, which is made if it is missing, stays, and says who holds it.

    Attributes:
        known: whether the file system knows locks; where it does not, everyone holds it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.known = sys.platform != "win32"
        self._descriptor: int | None = None

    def take(self, wait: bool = False) -> bool:
        """Hold it from now on.

        Args:
            wait: whether to wait for who holds it.

        Returns:
            Whether it could be had.

        Raises:
            DiskError: if the file cannot be made.
        """
        is_folder = self.path.is_dir()
        flags = os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT
        with told(self.path):
            descriptor = os.open(self.path, flags, 0o666)
        if sys.platform != "win32":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:  # a network's file system, say
                self.known = False
        self._descriptor = descriptor
        if not is_folder:
            with told(self.path):
                os.ftruncate(descriptor, 0)
                os.pwrite(
                    descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0
                )
        return True

    def holder(self) -> str:
        """Who holds a file, or held it last, in words."""
        return self.path.read_text(encoding="utf-8") or "another process"

    def release(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a folder while something in it is replaced: whether nobody else does so meanwhile.

    Args:
        folder: it exists.
        wait: whether to wait for who holds it.
    """
    lock = Lock(folder)
    taken = lock.take(wait)
    try:
        yield taken and lock.known
    finally:
        lock.release()

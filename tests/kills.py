"""Runs in processes of their own: one that is killed at a write, one that has a small disk."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEW_MOUNTS, NEW_USERS = 0x0002_0000, 0x1000_0000  # of unshare(2)
PRIVATE, RECURSIVE = 1 << 18, 1 << 14  # of mount(2)


def in_a_child(run: Callable[[], object]) -> int:
    """How a forked process ended that ran it: as ``os.waitpid`` says, 0 if it came to its end."""
    child = os.fork()
    if not child:
        try:
            run()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(file: str, run: Callable[[], object], before: int = 0) -> None:
    """Run something in a process that kills itself, by SIGKILL, as it puts a file in its place.

    Files are written beside where they are to be and then renamed: it dies before the rename.

    Args:
        file: Name of the file, or of the folder of a bundle.
        run: Writes it.
        before: How many times it is written before that.

    Raises:
        AssertionError: If the process ended in another way: the moment did not come.
    """

    def dying(rename: Any) -> Any:
        def call(source: Any, target: Any) -> None:
            nonlocal before
            if Path(target).name == file:
                if not before:
                    os.kill(os.getpid(), signal.SIGKILL)
                before -= 1
            rename(source, target)

        return call

    def die() -> None:
        os.replace, os.rename = dying(os.replace), dying(os.rename)
        run()

    status = in_a_child(die)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed, f"{file} was not written: status {status}"


def on_a_small_disk(place: Path, size: int, run: Callable[[], object]) -> int:
    """As :func:`in_a_child`, where ``place`` is a disk in memory that takes so many bytes.

    Nobody else sees that disk, and it is gone when the process ends. OSError where the system does
    not allow it: status 1.
    """

    def mount_and_run() -> None:
        system = ctypes.CDLL(None, use_errno=True)
        apart = NEW_MOUNTS | (NEW_USERS if os.geteuid() else 0)
        options = f"size={size}".encode()
        calls = [
            lambda: system.unshare(apart),
            lambda: system.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None),
            lambda: system.mount(b"none", os.fsencode(place), b"tmpfs", 0, options),
        ]
        for call in calls:
            if call():
                raise OSError(ctypes.get_errno(), "no small disk")
        run()

    return in_a_child(mount_and_run)

"""Rows of figures, and files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, float]


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside where it is to be, then rename it: it is there whole or not at all."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    write(fresh)
    os.replace(fresh, file)

"""Rows of figures, and files that are there whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, float]


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside where it is to be, then rename it: it is there whole or not at all."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    write(fresh)
    os.replace(fresh, file)


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV, whole or not at all: its columns are those of all rows, as they first come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))

    def write(fresh: Path) -> None:
        with fresh.open("w", newline="") as stream:
            table = csv.DictWriter(stream, columns)
            table.writeheader()
            table.writerows(rows)

    write_whole(file, write)

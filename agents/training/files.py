"""Rows of figures, and tensors, in files that are there whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ral_env.files import write_bytes, write_whole

__all__ = ["Row", "read_tensors", "write_rows", "write_tensors", "write_whole"]

Row = dict[str, float]


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV, whole or not at all: its columns are those of all rows, as they first come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(rows)
    write_bytes(file, text.getvalue().encode())


def write_tensors(file: Path, values: Any) -> None:
    """Write tensors and plain Python values as torch does, whole or not at all."""
    buffer = io.BytesIO()  # torch has no words for a full disk
    torch.save(values, buffer)
    write_bytes(file, buffer.getvalue())


def read_tensors(file: Path) -> Any:
    """What :func:`write_tensors` wrote, on the CPU."""
    return torch.load(file, map_location="cpu", weights_only=True)

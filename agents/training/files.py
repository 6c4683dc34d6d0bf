"""Rows of figures, and tensors, in files that are there whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ral_env.files import Row, read_rows, write_bytes, write_whole

__all__ = ["Row", "read_rows", "read_tensors", "write_rows", "write_tensors", "write_whole"]

SEAL = b"sha256:"
SEAL_BYTES = len(SEAL) + 64
END_OF_ZIP = b"\0\0"  # no comment
# What torch.load raises for a file that is cut, altered or another's.
UNREADABLE = (
    AttributeError, EOFError, IndexError, KeyError, OSError, OverflowError, RuntimeError, TypeError,
    ValueError, pickle.UnpicklingError,
)  # fmt: skip


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV, whole or not at all: its columns are those of all rows, as they first come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(rows)
    write_bytes(file, text.getvalue().encode())


def write_tensors(file: Path, values: Any) -> None:
    """Write tensors and plain Python values as torch does, whole or not at all, under a checksum.

    The file is a zip archive, as torch's are; its comment is the SHA-256 of all before the comment.
    """
    buffer = io.BytesIO()  # torch has no words for a full disk
    torch.save(values, buffer)
    body = buffer.getvalue()[:-2] + SEAL_BYTES.to_bytes(2, "little")
    write_bytes(file, body + _seal(body))


def read_tensors(file: Path) -> Any:
    """What :func:`write_tensors` wrote, on the CPU. Files of earlier versions have no checksum.

    Raises:
        ValueError: if the file is cut or altered, or is none of ours.
    """
    try:
        data = file.read_bytes()
        body, seal = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
        is_older = data[-len(END_OF_ZIP) :] == END_OF_ZIP and data[-22:-18] == b"PK\5\6"
        if not is_older and seal != _seal(body):
            raise ValueError("it is cut or altered: its checksum is another")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(f"{file} cannot be read ({error}): remove it to begin anew") from error


def _seal(body: bytes) -> bytes:
    return SEAL + hashlib.sha256(body).hexdigest().encode("ascii")

"""A file of codes that several processes write, and that a run which was cut goes on with.

``codes.npy`` holds flat codes (N, length), uint8 or uint16. ``codes.npy.json`` beside it says of
which VQ-VAE and images they are, which rows are written, and the CRC-32 of each run of them (not if
an earlier version wrote it). While several processes write, each process but the first has a
``codes.npy.RANK.json`` instead.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ral_env.files import check_room, told, write_bytes, write_whole

Span = tuple[int, int]  # first row, last + 1
Sum = tuple[int, int, int]  # first row, last + 1, and the CRC-32 of these rows


class CodeFile:
    """Flat codes (N, length) on disk, as one process among those that write them sees them.

    Args:
        file: The file; its name ends in ``.npy``.
        identity: What the codes are made of, JSON-able: ``vqvae`` and ``sample`` are hashes,
            ``images`` is a number. Codes of anything else are refused.
        rank: Number of this process.
    """

    def __init__(self, file: Path, identity: dict[str, Any], rank: int):
        self.file, self.identity, self.rank = file, identity, rank
        self._written: list[Span] = []
        self._sums: list[Sum] = []
        self._stored: Any = None  # a memory map

    def create(self, shape: tuple[int, int], dtype: Any) -> None:
        """See that the file is there: with codes of the same images and VQ-VAE, or new.

        The first process calls it, before the others open the file.

        Raises:
            ValueError: If it has other codes, or nothing beside it says which.
        """
        if self.file.exists():
            if not self._side_files():
                raise ValueError(
                    f"{self.file} exists, and no {self._side_file(0).name} says of which VQ-VAE "
                    "and images: choose another file, or remove it"
                )
            self.written_rows()
            return
        for side in self._side_files():
            side.unlink()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._note(0, [])  # the side file is there before the file
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        check_room(self.file.parent, size, f"the codes of {shape[0]} images")
        write_whole(
            self.file, lambda fresh: np.lib.format.open_memmap(fresh, "w+", dtype, shape).flush()
        )

    def open(self) -> np.ndarray:
        """All rows as a read-only memory map, the unwritten ones zero.

        Raises:
            ValueError: If rows that were written are others now.
        """
        self._written, self._sums = self._read_side_files()
        try:
            self._stored = np.load(self.file, mmap_mode="r")
        except (EOFError, ValueError) as error:
            raise ValueError(
                f"{self.file} is cut ({error}): remove it and {self.file.name}*.json to begin anew"
            ) from error
        for first, last, crc in self._sums:
            if _crc(self._stored[first:last]) != crc:
                raise ValueError(
                    f"{self.file} is altered in rows {first} to {last - 1}: remove it and "
                    f"{self.file.name}*.json to begin anew"
                )
        return self._stored

    def missing(self, spans: Iterable[Span]) -> list[Span]:
        """Those of the spans whose rows were not written when the file was opened."""
        return [
            span
            for span in spans
            if not any(first <= span[0] and span[1] <= last for first, last in self._written)
        ]

    def write(self, span: Span, codes: np.ndarray) -> None:
        """Write rows of the open file; they count as written only when they are on disk.

        Not through a memory map: its pages would count as this process's memory, and a full disk
        would end it without a word.
        """
        stored = self._stored
        with told(self.file, stored.nbytes), self.file.open("r+b") as stream:
            stream.seek(stored.offset + span[0] * stored.strides[0])
            rows = codes.astype(stored.dtype)
            stream.write(rows.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        self._written = _merged([*self._written, span])
        first, crc = span[0], 0
        if self._sums and self._sums[-1][1] == first:  # a run of rows goes on
            first, _, crc = self._sums.pop()
        self._sums.append((first, span[1], _crc(rows, crc)))
        self._note(self.rank, self._written, self._sums)

    def merge(self) -> None:
        """Put all processes' side files into one; the first process calls it at the end."""
        self._note(0, *self._read_side_files())
        for side in self._side_files():
            if side != self._side_file(0):
                side.unlink()

    def written_rows(self) -> list[Span]:
        """The rows that any process has written.

        Raises:
            ValueError: If a side file cannot be read, or says that the codes are others.
        """
        return self._read_side_files()[0]

    def _read_side_files(self) -> tuple[list[Span], list[Sum]]:
        """The rows that any process has written, and the checksums of their parts."""
        written: list[Span] = []
        sums: set[Sum] = set()
        for side in self._side_files():
            try:
                found = json.loads(side.read_text(encoding="utf-8"))
                written += [(first, last) for first, last in found["done"]]
                sums |= {(first, last, crc) for first, last, crc in found.get("sums", [])}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{side} cannot be read ({error!r}): remove it and {self.file} to begin anew"
                ) from error
            other = [name for name, value in self.identity.items() if found.get(name) != value]
            if other:
                words = {"vqvae": "another VQ-VAE", "images": f"{found.get('images')} images",
                         "sample": "other images"}  # fmt: skip
                raise ValueError(
                    f"{self.file} has codes of {' and '.join(words[name] for name in other)}, "
                    f"expected this VQ-VAE's of these {self.identity['images']} images: choose "
                    f"another file, or remove it and {self.file.name}*.json to begin anew"
                )
        return _merged(written), _apart(sums)

    def _note(self, rank: int, written: Sequence[Span], sums: Sequence[Sum] = ()) -> None:
        text = json.dumps(self.identity | {"done": written, "sums": sums})
        write_bytes(self._side_file(rank), text.encode())

    def _side_file(self, rank: int) -> Path:
        name = self.file.name
        return self.file.with_name(f"{name}.{rank}.json" if rank else f"{name}.json")

    def _side_files(self) -> list[Path]:
        return [
            p for p in self.file.parent.glob("*.json") if p.name.startswith(f"{self.file.name}.")
        ]


def _crc(rows: np.ndarray, before: int = 0) -> int:
    """The CRC-32 of rows, or of these after others."""
    for first in range(0, len(rows), 2**14):  # they may be many
        before = zlib.crc32(rows[first : first + 2**14].tobytes(), before)
    return before


def _apart(sums: Iterable[Sum]) -> list[Sum]:
    """Those whose rows have no other: of rows that were written twice one no longer holds."""
    ordered = sorted(sums)
    inner = [(0, 0, 0), *ordered, (2**63, 2**63, 0)]
    return [
        one
        for before, one, after in zip(inner, ordered, inner[2:], strict=False)
        if before[1] <= one[0] and one[1] <= after[0]
    ]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged

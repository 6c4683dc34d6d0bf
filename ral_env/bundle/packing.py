"""Codes packed to their bits: 9 bits a code where there are 512, and whole bytes a row.

A row of codes is a string of bits, the first code and its highest bit first, which is filled up
with zeros to whole bytes: so any row is read by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

BLOCK = 2**20  # cells that are packed or unpacked at a time: a few megabytes


def codes_dtype(num_codes: int) -> type[np.unsignedinteger]:
    """What codes are held in: uint8 for up to 256 of them, else uint16."""
    return np.uint8 if num_codes <= 256 else np.uint16


def bits_per_code(num_codes: int) -> int:
    """Number of bits that tell codes 0 .. num_codes - 1 apart, at least 1."""
    return max(1, (num_codes - 1).bit_length())


def packed_bytes(length: int, num_codes: int) -> int:
    """Number of bytes of a packed row of ``length`` codes."""
    return -(-length * bits_per_code(num_codes) // 8)


def blocks(count: int, length: int) -> Iterator[slice]:
    """All of ``count`` rows of ``length`` codes, some at a time: memory need not hold them all."""
    step = max(1, BLOCK // length)
    return (slice(first, first + step) for first in range(0, count, step))


def pack(codes: np.ndarray, num_codes: int) -> np.ndarray:
    """Codes (N, length), integers from 0 to num_codes - 1, to packed rows, uint8 (N, bytes)."""
    bits = bits_per_code(num_codes)
    pairs = np.ascontiguousarray(codes, ">u2").view(np.uint8)  # a code's high byte, its low byte
    ones = np.unpackbits(pairs, axis=1).reshape(*codes.shape, 16)[..., 16 - bits :]
    return np.packbits(ones.reshape(len(codes), codes.shape[1] * bits), axis=1)


def unpack(packed: np.ndarray, length: int, num_codes: int) -> np.ndarray:
    """Packed rows, uint8 (..., bytes), to codes (..., length), uint8 or uint16."""
    bits = bits_per_code(num_codes)
    first, offset = np.divmod(np.arange(length) * bits, 8)
    window = np.zeros((*packed.shape[:-1], length), np.uint32)
    for byte in range(3):  # 15 bits that begin anywhere in a byte end within three bytes
        at = np.minimum(first + byte, packed.shape[-1] - 1)  # past the end: shifted out again
        window = window << 8 | packed[..., at]
    codes = window >> (24 - bits - offset).astype(np.uint32) & (2**bits - 1)
    return codes.astype(codes_dtype(num_codes))


class PackedCodes(NDArrayOperatorsMixin):
    """Real codes (N, length) whose rows are unpacked when they are asked for.

    It takes the place of a read-only numpy array. A slice of rows is again one, without a copy, as
    of a memory map; any other index, arithmetic and ``np.asarray`` give numpy arrays.

    Args:
        packed: rows as :func:`pack` makes them, uint8 (N, bytes); may be a memory map.
        length: number of codes of a row.
        num_codes: number of entries of the codebook.

    Attributes:
        packed: the packed rows.
        num_codes: number of entries of the codebook.
        shape: (N, length).
        dtype: uint8 for up to 256 codes, else uint16.
        largest: the largest number that fits the bits of a code.

    Raises:
        ValueError: if the packed rows are not uint8, or of another number of bytes.
    """

    ndim = 2

    def __init__(self, packed: np.ndarray, length: int, num_codes: int):
        size = packed_bytes(length, num_codes)
        if packed.ndim != 2 or packed.shape[1] != size or packed.dtype != np.uint8:
            raise ValueError(
                f"packed rows are {packed.dtype} {packed.shape}, expected uint8 (N, {size}) for "
                f"{length} codes of {bits_per_code(num_codes)} bits"
            )
        self.packed, self.num_codes = packed, num_codes
        self.shape = (len(packed), length)
        self.dtype = np.dtype(codes_dtype(num_codes))
        self.largest = 2 ** bits_per_code(num_codes) - 1

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"PackedCodes(shape={self.shape}, num_codes={self.num_codes})"

    def __getitem__(self, index: Any) -> Any:
        length = self.shape[1]
        rows, cells = index if isinstance(index, tuple) and len(index) == 2 else (index, None)
        rows = slice(None) if rows is Ellipsis else rows
        if cells is None and isinstance(rows, slice):
            return PackedCodes(self.packed[rows], length, self.num_codes)
        if cells is None and not isinstance(rows, tuple):
            return unpack(self.packed[rows], length, self.num_codes)
        if isinstance(rows, slice):
            return np.asarray(self[rows])[:, cells]
        return np.asarray(self)[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("packed codes are unpacked into a new array: copy=False cannot be")
        found = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for rows in blocks(*self.shape):
            found[rows] = unpack(self.packed[rows], self.shape[1], self.num_codes)
        return found

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(x) if isinstance(x, PackedCodes) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def astype(self, dtype: Any) -> np.ndarray:
        """All codes (N, length) as a numpy array of another type."""
        return self.__array__(dtype)


RealCodes = np.ndarray | PackedCodes  # what a bundle's codes and their splits may be

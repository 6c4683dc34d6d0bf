"""The files in which MNIST is published: idx, as they are or packed by gzip.

torchvision's ``MNIST`` is not used: it takes none but the layout that its own download makes, wants
that download where a file is missing, and versions of it leave a pickle beside the files.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
LAYOUTS = (".", "raw", "MNIST/raw")  # below the folder that is given; the last is torchvision's
UNSIGNED_BYTE = 8  # idx's number of the type
GZIP = b"\x1f\x8b"  # how packed files begin; some downloads unpack and keep the name


def read_digits(root: Path, part: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images and labels of one of the two published parts.

    Args:
        root: Folder of the files, or torchvision's root, which has them in ``MNIST/raw``.
        part: ``"train"`` or ``"test"`` (whose files are called ``t10k``).

    Returns:
        Uint8 images (n, height, width), 0 is background, and int64 labels (n,) from 0 to 9; None
        if neither of the two files is there.

    Raises:
        ValueError: If one file of the two is missing, cannot be read, is cut or is not idx, or if
            they do not belong together.
    """
    found = [_find(root, name) for name in FILES[part]]
    if found == [None, None]:
        return None
    for file, name in zip(found, FILES[part], strict=True):
        if file is None:
            there = next(other for other in found if other)
            raise ValueError(f"{there.parent} lacks {name} (or {name}.gz) beside {there.name}")
    images, labels = (read_idx(file) for file in found if file)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{found[0]} has the shape {images.shape} and {found[1]} the shape {labels.shape}, "
            "expected (n, height, width) and (n,)"
        )
    if labels.max(initial=0) > 9:
        raise ValueError(f"{found[1]} holds labels up to {labels.max()}, expected 0 to 9")
    return images, labels.astype(np.int64)


def _find(root: Path, name: str) -> Path | None:
    """A file as it is or packed, in the first layout that has it."""
    places = (root / layout / file for layout in LAYOUTS for file in (name, f"{name}.gz"))
    return next((place for place in places if place.is_file()), None)


def read_idx(file: Path) -> np.ndarray:
    """An array of an idx file: uint8, of the shape that the file says.

    The format: two zero bytes, one for the type, one for the number of dimensions; each dimension
    as 32 bits, the highest first; then the values, the last index fastest.

    Args:
        file: The file, packed or not, whatever its name.

    Raises:
        ValueError: If it cannot be read, is not idx, is of another type, or is not as long as its
            dimensions say. The message names the file.
    """
    try:
        content = file.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read ({error}): download it again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise ValueError(
            f"{file} is no idx file of bytes: it begins with '{content[:4].hex(' ')}', expected "
            "'00 00 08' and the number of dimensions"
        )
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) >= start else ()
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{file} has {len(content)} bytes (unpacked), expected {expected} for the shape "
            f"{shape}: download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

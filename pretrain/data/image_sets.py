"""Image sets: uint8 images that are indexed as a tensor is, and need not be in memory.

A data set on disk is read when its images are asked for, so it need not fit the memory, and the
processes that load examples ahead (``Training.workers``) read it side by side.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ral_env.images import read

MOST_UNREADABLE = 100  # images in a row, before reading gives up
LOOKED_AT = 1_000  # images of a set whose content is part of its fingerprint
BEGINNING = 2**16  # bytes of each of them


class ImageSet(ABC):
    """Part of a data set: ``images[indices]`` is a uint8 RGB tensor (n, 3, size, size).

    Indices are a slice, or an int64 tensor (n,). A plain uint8 tensor (N, 3, S, S) serves wherever
    an image set does (:data:`Pixels`).

    Attributes:
        size: Height and width of the images in pixels.
    """

    size: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: slice | Tensor) -> Tensor: ...

    def identity(self) -> bytes:
        """What tells this set from others without reading all of it: here its number of images."""
        return f"{len(self)} images".encode()

    def content(self) -> bytes:
        """What is in some of its images, where :meth:`identity` does not say it."""
        return b""


Pixels = ImageSet | Tensor


class InMemory(ImageSet):
    """Images of a uint8 array (N, 3, S, S)."""

    def __init__(self, pixels: np.ndarray):
        self.pixels, self.size = torch.from_numpy(pixels), pixels.shape[-1]

    def identity(self) -> bytes:
        """Its number of images, and the pixels of a thousand of them."""
        return super().identity() + self.pixels[:: max(1, len(self) // 1000)].numpy().tobytes()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        return self.pixels[indices]


class Concat(ImageSet):
    """Image sets of one size, one after another."""

    def __init__(self, parts: Sequence[ImageSet]):
        self.parts, self.size = tuple(parts), parts[0].size
        self.ends = np.cumsum([len(part) for part in parts])

    def identity(self) -> bytes:
        """That of its parts."""
        return b"".join(part.identity() for part in self.parts)

    def content(self) -> bytes:
        """That of its parts."""
        return b"".join(part.content() for part in self.parts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        wanted = torch.tensor(listed(indices, len(self)), dtype=torch.int64)
        part_of = np.searchsorted(self.ends, wanted.numpy(), side="right")
        images = torch.empty(len(wanted), 3, self.size, self.size, dtype=torch.uint8)
        for number in np.unique(part_of):
            places = torch.from_numpy(part_of == number)
            part = self.parts[number]
            first = int(self.ends[number]) - len(part)
            images[places] = part[wanted[places] - first]
        return images


class Slice(ImageSet):
    """Images ``first`` to ``last - 1`` of another set."""

    def __init__(self, images: ImageSet, first: int, last: int):
        self.images, self.size, self.first, self.count = images, images.size, first, last - first

    def identity(self) -> bytes:
        """That of the other set, and where it begins and ends."""
        return f"{self.first} {self.count} of ".encode() + self.images.identity()

    def content(self) -> bytes:
        """That of the other set."""
        return self.images.content()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        wanted = torch.tensor(listed(indices, len(self)), dtype=torch.int64)
        return self.images[wanted + self.first]


def listed(indices: slice | Tensor, count: int) -> Sequence[int]:
    """Indices into an image set as numbers from 0 to ``count`` - 1.

    Raises:
        IndexError: If there is no such image.
    """
    everything = range(count)
    if isinstance(indices, slice):
        return everything[indices]
    return [everything[index] for index in indices.tolist()]


class LazyImages(ImageSet):
    """Images that are read when they are asked for.

    The next readable image of the set stands in for one that cannot be read, with a warning that
    names the file: to look for such files beforehand is to read the whole set once more.

    Args:
        count: Number of images on disk.
        size: Height and width in pixels to which images are brought.
        flip: Whether the set has all images a second time, mirrored: image ``count + i`` is the
            mirror image of image ``i``.
    """

    def __init__(self, count: int, size: int, flip: bool = False):
        self.count, self.size, self.flip = count, size, flip

    @abstractmethod
    def _read(self, index: int) -> np.ndarray:
        """uint8 (3, size, size); a ValueError that names the image if it cannot be read."""

    def __len__(self) -> int:
        return self.count * (1 + self.flip)

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        wanted = listed(indices, len(self))
        images = np.empty((len(wanted), 3, self.size, self.size), np.uint8)
        for image, index in zip(images, wanted, strict=True):
            mirrored, index = divmod(index, self.count)
            pixels = self._first_readable(index)
            image[:] = pixels[:, :, ::-1] if mirrored else pixels
        return torch.from_numpy(images)

    def _first_readable(self, index: int) -> np.ndarray:
        tries = min(self.count, MOST_UNREADABLE)
        for step in range(tries):
            try:
                return self._read((index + step) % self.count)
            except ValueError as error:
                warnings.warn(f"{error}; the next image stands in for it", stacklevel=3)
        raise ValueError(f"{tries} images in a row cannot be read, expected none: see the warnings")


class Files(LazyImages):
    """Image files below a folder; see :func:`ral_env.images.read` for ``size`` and ``crop``.

    Args:
        root: The folder.
        names: Paths of the files, relative to it.
        flip: See :class:`LazyImages`.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        size: int,
        crop: int | None = None,
        flip: bool = False,
    ):
        super().__init__(len(names), size, flip)
        self.root, self.crop = root, crop
        # One array: a forked process would soon have copied millions of Python strings.
        self.names = np.array([os.fsencode(name) for name in names])

    def identity(self) -> bytes:
        """The names and the sizes of its files, in order."""
        names = [bytes(name) for name in self.names]
        files = (Path(self.root, os.fsdecode(name)) for name in names)
        sizes = (file.stat().st_size if file.is_file() else -1 for file in files)
        known = (b"%s %d\n" % pair for pair in zip(names, sizes, strict=True))
        return super().identity() + b"".join(known)

    def content(self) -> bytes:
        """A checksum of how each of a thousand of its files begins."""
        chosen = self.names[:: max(1, -(-len(self.names) // LOOKED_AT))]
        return b"".join(map(_beginning, (self.root / os.fsdecode(name) for name in chosen)))

    def _read(self, index: int) -> np.ndarray:
        return read(self.root / os.fsdecode(self.names[index]), self.size, self.crop)


class Lmdb(LazyImages):
    """Image files that are the values of an LMDB database.

    Args:
        root: Folder of the database, which holds ``data.mdb``.
        keys: Keys of the images as bytes, an array (N,): all of :func:`lmdb_keys` or some.
        flip: See :class:`LazyImages`.
    """

    def __init__(self, root: Path, keys: np.ndarray, size: int, flip: bool = False):
        super().__init__(len(keys), size, flip)
        self.root, self.keys = root, keys

    def identity(self) -> bytes:
        """The keys of its images, in order."""
        return super().identity() + self.keys.tobytes()

    def content(self) -> bytes:
        """A checksum of how each of a thousand of its images begins."""
        chosen = self.keys[:: max(1, -(-len(self.keys) // LOOKED_AT))]
        with open_lmdb(self.root).begin(buffers=True) as transaction:
            values = (transaction.get(bytes(key)) or b"" for key in chosen)
            return b"".join(hashlib.sha256(value[:BEGINNING]).digest() for value in values)

    def _read(self, index: int) -> np.ndarray:
        key = bytes(self.keys[index])
        with open_lmdb(self.root).begin() as transaction:
            value = transaction.get(key)
        try:
            return read(value or b"", self.size)
        except ValueError as error:
            raise ValueError(f"image {key.decode()} of {self.root}: {error}") from error


def _beginning(file: Path) -> bytes:
    """The SHA-256 of how a file begins; of nothing where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.sha256(stream.read(BEGINNING)).digest()
    except OSError:
        return hashlib.sha256().digest()


@lru_cache(maxsize=8)
def open_lmdb(root: Path) -> Any:
    """An LMDB database, read-only and without locks, so that it may be carried over a fork.

    It is opened once, as LMDB refuses to open a database twice, and found by its path, so that
    image sets can be pickled.
    """
    import lmdb

    return lmdb.open(str(root), readonly=True, lock=False, readahead=False, meminit=False)


def lmdb_keys(root: Path) -> np.ndarray:
    """Keys of an LMDB database as bytes, an array (N,), in the database's order.

    Raises:
        ValueError: If it cannot be read, or the package ``lmdb`` is not installed.
    """
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ValueError(
            "LSUN is read with the package lmdb: pip install 'ral-env[pretrain]'"
        ) from error
    try:
        with open_lmdb(root).begin() as transaction:
            return np.array(list(transaction.cursor().iternext(keys=True, values=False)))
    except lmdb.Error as error:
        raise ValueError(
            f"{root} is no LMDB database that can be read ({error}): download it again"
        ) from error

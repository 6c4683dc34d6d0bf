"""Where images come from: procedural faces, real handwritten digits, CelebA, LSUN bedrooms, or any
folder of images.

A data set on disk is read when its images are asked for, so it need not fit the memory, and the
processes that load examples ahead (``Training.workers``) read it side by side.
"""

from __future__ import annotations

import colorsys
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ral_env.images import read

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
MADE = ("faces", "tinted-faces", "digits")  # sources that need no files
PUBLISHED = {
    "celeba": (
        "CelebA: download img_align_celeba.zip, list_eval_partition.txt, list_attr_celeba.txt, "
        "identity_CelebA.txt, list_bbox_celeba.txt and list_landmarks_align_celeba.txt from "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unzip the first, so that "
        "DIR/celeba/img_align_celeba/000001.jpg and DIR/celeba/list_eval_partition.txt are there. "
        "Then give DIR; or give any folder of images"
    ),
    "lsun-bedroom": (
        "LSUN bedrooms: download bedroom_train_lmdb.zip and bedroom_val_lmdb.zip "
        "(https://github.com/fyu/lsun, `python download.py -c bedroom`) and unzip them, so that "
        "DIR/bedroom_train_lmdb/data.mdb and DIR/bedroom_val_lmdb/data.mdb are there. Then give "
        "DIR; or give any folder of images"
    ),
}
CELEBA_CROP = 140  # pixels
LSUN_TEST = 10_000  # images
LOOKED_AT = 5_000  # files of a folder that are read once beforehand, to leave out broken ones


# --- parts of a data set ---


class ImageSet(ABC):
    """A part of a data set: ``images[indices]`` are uint8 RGB (n, 3, size, size).

    Indices are a slice, or an int64 tensor (n,). A plain uint8 tensor (N, 3, S, S) serves wherever
    an image set does (:data:`Pixels`).

    Attributes:
        size: pixels a side.
    """

    size: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: slice | Tensor) -> Tensor: ...


Pixels = ImageSet | Tensor


class InMemory(ImageSet):
    """Images in memory, uint8 (N, 3, S, S)."""

    def __init__(self, pixels: np.ndarray):
        self.pixels, self.size = torch.from_numpy(pixels), pixels.shape[-1]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        return self.pixels[indices]


class Concat(ImageSet):
    """Image sets of one size, one after another."""

    def __init__(self, parts: Sequence[ImageSet]):
        self.parts, self.size = tuple(parts), parts[0].size
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        wanted = torch.tensor(_listed(indices, len(self)), dtype=torch.int64)
        owners = np.searchsorted(self.ends, wanted.numpy(), side="right")
        images = torch.empty(len(wanted), 3, self.size, self.size, dtype=torch.uint8)
        for owner in np.unique(owners):
            own = torch.from_numpy(owners == owner)
            first = int(self.ends[owner]) - len(self.parts[owner])
            images[own] = self.parts[owner][wanted[own] - first]
        return images


def _listed(indices: slice | Tensor, count: int) -> Sequence[int]:
    """Indices as numbers from 0 to ``count`` - 1; an IndexError if there is no such image."""
    everything = range(count)
    if isinstance(indices, slice):
        return everything[indices]
    return [everything[index] for index in indices.tolist()]


class LazyImages(ImageSet):
    """Images that are read when they are asked for.

    One that cannot be read gives way to the next one of its part that can, with a warning that
    names it: to look for such files beforehand is to read the whole set once more.

    Args:
        count: images on disk.
        size: pixels a side.
        flip: the set has them all a second time, mirrored: image ``count + i`` is a mirrored i.
    """

    def __init__(self, count: int, size: int, flip: bool = False):
        self.count, self.size, self.flip = count, size, flip

    @abstractmethod
    def _read(self, index: int) -> np.ndarray:
        """uint8 (3, size, size); a ValueError that names the image if it cannot be read."""

    def __len__(self) -> int:
        return self.count * (1 + self.flip)

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        wanted = _listed(indices, len(self))
        images = np.empty((len(wanted), 3, self.size, self.size), np.uint8)
        for image, index in zip(images, wanted, strict=True):
            mirrored, index = divmod(index, self.count)
            pixels = self._readable(index)
            image[:] = pixels[:, :, ::-1] if mirrored else pixels
        return torch.from_numpy(images)

    def _readable(self, index: int) -> np.ndarray:
        tries = min(self.count, 100)
        for step in range(tries):
            try:
                return self._read((index + step) % self.count)
            except ValueError as error:
                warnings.warn(f"{error}; the next image stands in for it", stacklevel=3)
        raise ValueError(f"{tries} images in a row cannot be read, expected none: see the warnings")


class Files(LazyImages):
    """Image files below a folder; see :func:`ral_env.images.read` for ``size`` and ``crop``."""

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
        # One array: of millions of Python strings, each forked process would soon have its own.
        self.names = np.array([os.fsencode(name) for name in names])

    def _read(self, index: int) -> np.ndarray:
        return read(self.root / os.fsdecode(self.names[index]), self.size, self.crop)


class Lmdb(LazyImages):
    """Image files that are the values of an LMDB database, by their keys."""

    def __init__(self, root: Path, keys: np.ndarray, size: int, flip: bool = False):
        super().__init__(len(keys), size, flip)
        self.root, self.keys = root, keys

    def _read(self, index: int) -> np.ndarray:
        key = bytes(self.keys[index])
        with _opened(self.root).begin() as transaction:
            value = transaction.get(key)
        try:
            return read(value or b"", self.size)
        except ValueError as error:
            raise ValueError(f"image {key.decode()} of {self.root}: {error}") from error


@lru_cache(maxsize=8)
def _opened(root: Path) -> Any:
    """An LMDB database: opened once, as it refuses to be opened twice, and by path, so that image
    sets can be pickled. Read-only and without locks it may be carried over a fork."""
    import lmdb

    return lmdb.open(str(root), readonly=True, lock=False, readahead=False, meminit=False)


# --- the data sets ---


@dataclass(frozen=True)
class Images:
    """A data set with its split.

    Args:
        name: what results say the data set is.
        parts: its images: train, validation and test, in this order.
        targets: of each part int64 classes (n,) or float32 attributes (n, A) in [-1, 1], or None.
        target_kind: ``classes``, ``attributes`` or None.
        styles: of each part, int64 (n,) from 0 on, or None: what an oracle that is a mixture is
            told of each image while it learns.
    """

    name: str
    parts: Mapping[str, ImageSet]
    targets: Mapping[str, np.ndarray] | None = None
    target_kind: str | None = None
    styles: Mapping[str, np.ndarray] | None = None

    def part(self, name: str) -> ImageSet:
        """The images of ``"train"``, ``"validation"`` or ``"test"``."""
        if name not in self.parts:
            raise ValueError(f"part {name!r}, expected one of {list(self.parts)}")
        return self.parts[name]

    @property
    def whole(self) -> ImageSet:
        """All parts, one after another."""
        return Concat(list(self.parts.values()))

    @property
    def splits(self) -> dict[str, tuple[int, int]]:
        """First and last + 1 index of each part in the whole."""
        ends = np.cumsum([len(part) for part in self.parts.values()]).tolist()
        return dict(zip(self.parts, zip([0, *ends], ends, strict=False), strict=True))


def load(
    source: str | Path,
    size: int,
    seed: int = 0,
    count: int | None = None,
    flip: bool = False,
    root: str | Path | None = None,
) -> Images:
    """Images of a source, square, ``size`` pixels a side.

    Args:
        source: ``faces``, ``tinted-faces``, ``digits``, ``celeba``, ``lsun-bedroom``,
            ``folder``; or the path of a folder.
        seed: of the faces, of a folder's split, and of the bedrooms' test part. The others' split
            is always the same.
        count: faces to draw, 24,000 if None; images of a folder, or of the training part of a
            published data set, to use at most.
        flip: double the training part with mirror images; not for faces and digits.
        root: where the files of ``celeba``, ``lsun-bedroom`` or ``folder`` are. A root that does
            not have the layout in which the data set is published is taken as a folder of images,
            and the name says so.

    Raises:
        ValueError: if the source is unknown, its files are not there (it says what to download and
            how it must lie), there are too few images, or they cannot be flipped.
    """
    if size < 8:
        raise ValueError(f"size={size}, expected at least 8 pixels")
    if count is not None and count < 1:
        raise ValueError(f"count={count}, expected at least 1, or None")
    if source in MADE and root is not None:
        raise ValueError(f"root={str(root)!r}: {source!r} need no files, ask for 'folder' instead")
    if source in ("faces", "tinted-faces"):
        if flip:
            raise ValueError("flip=True is for files: draw more faces (count) instead")
        total = 24_000 if count is None else count
        if total < 10:
            raise ValueError(f"count={total}, expected at least 10 faces, to split them in three")
        edges = _edges(total, 1 / 12, 1 / 8)
        if source == "tinted-faces":
            pixels, attributes, tints = tinted_faces(total, size, seed)
            name = f"procedural faces in {TINTS} tints, {size} px"
            found = _held(name, pixels, edges, attributes, "attributes")
            return replace(found, styles=_parted(edges, tints))
        pixels, attributes = faces(total, size, seed)
        return _held(f"procedural faces, {size} px", pixels, edges, attributes, "attributes")
    if source == "digits":
        if flip:
            raise ValueError("flip=True mirrors digits into what are no digits: leave it out")
        return digits(size)
    if source not in ("folder", *PUBLISHED):
        source, root = "folder", root or source
    if root is None:
        how = PUBLISHED.get(str(source), "any folder of images, with all folders below it")
        raise ValueError(f"{source!r} needs files, say where they are (root; --data). {how}")
    root = Path(root).expanduser()
    if source == "celeba" and (root.name == "celeba" or (root / "celeba").is_dir()):
        return celeba(root.parent if root.name == "celeba" else root, size, count, flip)
    if source == "lsun-bedroom" and any(root.glob("bedroom_*_lmdb")):
        return bedrooms(root, size, seed, count, flip)
    try:
        return folder(root, size, seed, count, flip)
    except ValueError as error:
        if source not in PUBLISHED:
            raise
        raise ValueError(f"{error}. {PUBLISHED[str(source)]}") from error


def _edges(total: int, validation: float, test: float) -> list[int]:
    """Where a shuffled set is cut into train, validation and test."""
    first, second = max(1, round(total * validation)), max(1, round(total * test))
    return [0, total - first - second, total - second, total]


def _parted(edges: Sequence[int], values: Any) -> dict[str, Any]:
    names = ("train", "validation", "test")
    return {n: values[a:b] for n, a, b in zip(names, edges[:-1], edges[1:], strict=True)}


def _held(
    name: str, pixels: np.ndarray, edges: Sequence[int], targets: np.ndarray, kind: str
) -> Images:
    parts = {part: InMemory(own) for part, own in _parted(edges, pixels).items()}
    return Images(name, parts, _parted(edges, targets), kind)


# --- real handwritten digits ---


def digits(size: int) -> Images:
    """scikit-learn's 1,797 handwritten digits (8x8, 17 greys), enlarged smoothly.

    Test set of the UCI "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998;
    CC BY 4.0). Split 1,200 / 297 / 300 by a fixed shuffle.

    Raises:
        ValueError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ValueError(
            "the digits come with scikit-learn: pip install 'ral-env[pretrain]'"
        ) from error
    found: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))
    small = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in found.images]
    grey = np.stack([np.asarray(s.resize((size, size), Image.Resampling.BICUBIC)) for s in small])
    return _held(
        "scikit-learn's handwritten digits",
        np.repeat(grey[order, None], 3, axis=1),
        [0, 1200, 1497, 1797],
        found.target[order].astype(np.int64),
        "classes",
    )


# --- published data sets ---


def celeba(root: Path, size: int, count: int | None, flip: bool) -> Images:
    """CelebA, aligned and cropped, as torchvision lays it out, in its official split.

    The middle 140 x 140 of 178 x 218 pixels, resized: the crop of Y. Song's ``score_sde`` and of
    those who followed it. Others take 108, 128, 148 or 178, so distances to theirs mean nothing.

    Args:
        root: holds ``celeba/img_align_celeba`` and the five text files beside it.

    Raises:
        ValueError: if a file is missing, or a text file is not the one that was published.
    """
    from torchvision.datasets import CelebA

    place = root / "celeba"
    files = ["img_align_celeba", *(name for *_, name in CelebA.file_list if name.endswith(".txt"))]
    if missing := [name for name in files if not (place / name).exists()]:
        raise ValueError(f"{place} lacks {', '.join(missing)}. {PUBLISHED['celeba']}")
    try:
        names = {
            part: CelebA(root, split=split, target_type=[]).filename
            for part, split in (("train", "train"), ("validation", "valid"), ("test", "test"))
        }
    except RuntimeError as error:
        raise ValueError(
            f"a text file in {place} is not the published one ({error}). {PUBLISHED['celeba']}"
        ) from error
    names["train"] = names["train"][:count]
    parts = {
        part: Files(place / "img_align_celeba", own, size, CELEBA_CROP, flip and part == "train")
        for part, own in names.items()
    }
    total = sum(map(len, names.values()))
    name = f"CelebA, its own split, middle {CELEBA_CROP} pixels: {total} images"
    return Images(name, parts)


def bedrooms(root: Path, size: int, seed: int, count: int | None, flip: bool) -> Images:
    """LSUN bedrooms: the middle square of the shorter side, resized.

    The published validation set has 300 images, and that is the validation part. The published test
    set says of no image whether it is a bedroom, so the test part is drawn, seeded, from the
    3,033,042 of ``bedroom_train``: 10,000, or a twentieth if that is less.

    torchvision knows these files too, but it leaves a pickle of the keys in the working directory,
    by a name that two roots may share, and what it opens survives neither fork nor pickling.

    Args:
        root: holds ``bedroom_train_lmdb`` and ``bedroom_val_lmdb``.

    Raises:
        ValueError: if one of them is missing or cut, or the package ``lmdb`` is.
    """
    places = {name: root / f"bedroom_{name}_lmdb" for name in ("train", "val")}
    if missing := [str(p) for p in places.values() if not (p / "data.mdb").is_file()]:
        raise ValueError(f"no data.mdb in {', '.join(missing)}. {PUBLISHED['lsun-bedroom']}")
    keys = {name: _keys(place) for name, place in places.items()}
    train = np.random.default_rng(seed).permutation(len(keys["train"]))
    held_out = max(1, min(LSUN_TEST, len(train) // 20))
    test, train = np.sort(train[:held_out]), np.sort(train[held_out:][:count])
    parts = {
        "train": Lmdb(places["train"], keys["train"][train], size, flip),
        "validation": Lmdb(places["val"], keys["val"], size),
        "test": Lmdb(places["train"], keys["train"][test], size),
    }
    if empty := [name for name, part in parts.items() if not len(part)]:
        raise ValueError(f"LSUN in {root} has no images for {', '.join(empty)}: expected some")
    total = sum(part.count for part in parts.values())
    return Images(f"LSUN bedrooms, middle square: {total} images", parts)


def _keys(place: Path) -> np.ndarray:
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ValueError(
            "LSUN is read with the package lmdb: pip install 'ral-env[pretrain]'"
        ) from error
    try:
        with _opened(place).begin() as transaction:
            return np.array(list(transaction.cursor().iternext(keys=True, values=False)))
    except lmdb.Error as error:
        raise ValueError(
            f"{place} is no LMDB database that can be read ({error}): download it again"
        ) from error


# --- any folder ---


def folder(root: Path, size: int, seed: int, count: int | None, flip: bool) -> Images:
    """Every image file below a folder: centre-cropped to a square, resized (antialiased), RGB.

    Split 90 / 5 / 5 by a seeded shuffle of the sorted names. CelebA-HQ is such a folder. Of up to
    :data:`LOOKED_AT` files those that cannot be read are left out, with a warning that counts and
    names them; of more they are found when they are read (:class:`LazyImages`).

    Raises:
        ValueError: if there is no such folder, or fewer than ten images in it.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root} is no folder: expected {', '.join(map(repr, (*MADE, *PUBLISHED)))} or a "
            "folder of images"
        )
    names = sorted(
        os.path.relpath(os.path.join(place, name), root)
        for place, _, files in os.walk(root)
        for name in files
        if name.lower().endswith(SUFFIXES)
    )
    total = len(names)
    names = _readable_of(root, names) if total <= LOOKED_AT else names
    order = np.random.default_rng(seed).permutation(len(names))[:count]
    if len(order) < 10:
        raise ValueError(
            f"{root} holds {total} files with the endings {', '.join(SUFFIXES)}, of which "
            f"{total - len(names)} cannot be read and {len(order)} are to be used: expected at "
            "least 10"
        )
    parts = {
        part: Files(root, [names[i] for i in own], size, flip=flip and part == "train")
        for part, own in _parted(_edges(len(order), 0.05, 0.05), order).items()
    }
    return Images(f"{len(order)} images of folder {root.resolve().name}", parts)


def _readable_of(root: Path, names: Sequence[str]) -> list[str]:
    """Those that can be read; a warning counts and names the others."""
    good, bad = [], []
    for name in names:
        try:
            read(root / name, 8)
            good.append(name)
        except ValueError as error:
            bad.append(f"{name} ({error.__cause__})")
    if bad:
        shown = "; ".join(bad[:10]) + ("; ..." if len(bad) > 10 else "")
        warnings.warn(
            f"{len(bad)} of {len(names)} files in {root} cannot be read and are left out: {shown}",
            stacklevel=3,
        )
    return good


# --- procedural faces ---

STYLES = ("bald", "short", "fringe", "long", "mohawk", "afro")
HATS = ("none", "cap", "beanie")
# What a feature net is asked to tell; all in [-1, 1].
FACE_ATTRIBUTES = (
    "turn", "tilt", "x", "y", "scale", "skin", "hair_red", "hair_green", "hair_blue",
    "eye_red", "eye_green", "eye_blue", "openness", "spacing", "smile", "mouth_open",
    "background_red", "background_green", "background_blue", "shirt_red", "shirt_green",
    "shirt_blue", "light", "glasses", "beard", "hat", *(f"style_{s}" for s in STYLES),
)  # fmt: skip

_SKIN = np.array([[255, 224, 196], [241, 194, 155], [214, 160, 115], [165, 110, 72], [98, 62, 42]])
_HAIR = np.array([[38, 28, 24], [92, 58, 34], [222, 184, 92], [178, 74, 36], [190, 190, 196],
                  [92, 70, 170], [32, 132, 120]])  # fmt: skip
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CHROMA = np.array([[0.956, -0.272, -1.106], [0.619, -0.647, 1.703]], np.float32)
_EYES = np.array([[70, 130, 210], [60, 150, 90], [110, 70, 40], [40, 40, 46]])


def faces(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cartoon faces, drawn from parameters. Face i depends on (seed, i) alone.

    Things that stand far apart agree: both eyes' colour, hair on both sides of the face and the
    brows, skin of head, ears and neck, hat and shirt, and the side that the light comes from.

    Returns:
        uint8 images (count, 3, size, size), and float32 attributes (count, A) in [-1, 1], in the
        order of :data:`FACE_ATTRIBUTES`.
    """
    images = np.empty((count, 3, size, size), np.uint8)
    attributes = np.empty((count, len(FACE_ATTRIBUTES)), np.float32)
    together = max(1, 512 * 32**2 // size**2)  # as many as fit the processor's cache
    for first in range(0, count, together):
        index = range(first, min(first + together, count))
        drawn = [_person(np.random.default_rng([seed, i])) for i in index]
        people = {key: np.array([p[key] for p in drawn]) for key in drawn[0]}
        images[index.start : index.stop] = _paint(people, size)
        attributes[index.start : index.stop] = _attributes(people)
    return images, attributes


TINTS = 8  # hues, evenly around the circle


def tinted_faces(
    count: int, size: int = 32, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cartoon faces in one of 8 tints each: the whole picture has one hue.

    The hue is that of everything but black and white, so a picture that changes it midway is wrong,
    and looks it. It says nothing of the face: no tint is harder than another.

    Returns:
        uint8 images (count, 3, size, size); float32 attributes (count, A + 2) in [-1, 1], those of
        :func:`faces` and the cosine and sine of the hue; int64 tints (count,) from 0 to 7.
    """
    images, attributes = faces(count, size, seed)
    tints = np.arange(count) % TINTS  # face i depends on (seed, i) alone
    hues = 2 * np.pi * tints / TINTS
    circle = np.stack([np.cos(hues), np.sin(hues)], 1).astype(np.float32)
    for first in range(0, count, 2048):
        part = slice(first, first + 2048)
        images[part] = _tinted(images[part], circle[part])
    return images, np.concatenate([attributes, circle], 1), tints


def _tinted(images: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Each image's brightness in one hue (n, 2), a direction in the I-Q plane of YIQ."""
    luma = np.tensordot(images / np.float32(255), _LUMA, (1, 0))  # (n, S, S)
    chroma = 1.2 * luma * (1 - luma)
    offsets = (hue @ _CHROMA)[:, :, None, None]  # of red, green and blue
    tinted = luma[:, None] + chroma[:, None] * offsets
    return (tinted.clip(0, 1) * 255).round().astype(np.uint8)


def _person(rng: np.random.Generator) -> dict:
    """Parameters of one face."""
    tone = rng.uniform(0, 4)
    low = min(int(tone), 3)
    hue, background = rng.uniform(0, 1), rng.uniform(0, 1)
    style = int(rng.choice(6, p=[0.08, 0.24, 0.2, 0.26, 0.08, 0.14]))
    return {
        "turn": rng.uniform(-1, 1), "tilt": rng.uniform(-1, 1),
        "x": rng.uniform(-1, 1), "y": rng.uniform(-1, 1), "scale": rng.uniform(-1, 1),
        "skin": tone / 2 - 1,
        "skin_rgb": _SKIN[low] + (tone - low) * (_SKIN[low + 1] - _SKIN[low]),
        "hair_rgb": np.clip(_HAIR[rng.integers(len(_HAIR))] + rng.normal(0, 6, 3), 0, 255),
        "eye_rgb": _EYES[rng.integers(len(_EYES))],
        "shirt_rgb": np.array(colorsys.hsv_to_rgb(hue, 0.65, 0.85)) * 255,
        "background_rgb": np.array(colorsys.hsv_to_rgb(background, 0.35, 0.92)) * 255,
        "openness": rng.uniform(-1, 1), "spacing": rng.uniform(-1, 1),
        "smile": rng.uniform(-1, 1), "mouth_open": max(0.0, rng.uniform(-1, 1)),
        "light": rng.uniform(-1, 1), "style": style,
        "glasses": rng.random() < 0.25, "beard": rng.random() < 0.22,
        "hat": int(rng.choice(3, p=[0.74, 0.14, 0.12])),
    }  # fmt: skip


def _attributes(p: dict) -> np.ndarray:
    colours = {
        f"{part}_{name}": p[f"{part}_rgb"][:, i] / 127.5 - 1
        for part in ("hair", "eye", "background", "shirt")
        for i, name in enumerate(("red", "green", "blue"))
    }
    styles = {f"style_{s}": 2.0 * (p["style"] == i) - 1 for i, s in enumerate(STYLES)}
    known = p | colours | styles
    known |= {key: 2.0 * (p[key] > 0) - 1 for key in ("glasses", "beard", "hat")}
    return np.stack([known[name] for name in FACE_ATTRIBUTES], 1).astype(np.float32)


def _paint(p: dict, size: int) -> np.ndarray:
    """Parameters (n,) each to uint8 (n, 3, size, size): soft-edged shapes, back to front."""
    n = len(p["turn"])
    p = {k: v.reshape(n, 1, 1) if v.ndim == 1 else v.astype(np.float32) for k, v in p.items()}
    p = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in p.items()}
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    column, row = axis[None, None, :], axis[None, :, None]
    angle, zoom = 0.16 * p["tilt"], 1 + 0.1 * p["scale"]
    cx, cy = 0.1 * p["x"], 0.04 + 0.07 * p["y"]
    dx, dy = (column - cx) / zoom, (row - cy) / zoom
    x = np.cos(angle) * dx + np.sin(angle) * dy  # the head's own axes, y down
    y = -np.sin(angle) * dx + np.cos(angle) * dy
    pixel = 2 / size
    canvas = np.empty((n, 3, size, size), np.float32)
    turn = 0.12 * p["turn"]

    def ellipse(x0, y0, a, b, x=x, y=y):
        """Coverage of an ellipse, in [0, 1]."""
        distance = np.sqrt(((x - x0) / a) ** 2 + ((y - y0) / b) ** 2) - 1
        return np.clip(0.5 - distance * np.minimum(a, b) / pixel, 0, 1)

    def below(line, y=y):
        return np.clip(0.5 + (y - line) / pixel, 0, 1)

    def paint(colour, coverage):
        colour = np.asarray(colour, np.float32).reshape(-1, 3, 1, 1)
        coverage = np.broadcast_to(coverage, (n, size, size))[:, None]
        canvas[:] += (colour - canvas) * coverage

    skin, hair, shirt = p["skin_rgb"], p["hair_rgb"], p["shirt_rgb"]
    style = [p["style"] == i for i in range(len(STYLES))]
    _, short, fringe, long, mohawk, afro = style
    fade = 1 - 0.22 * (row + 1) / 2  # lighter above
    canvas[:] = p["background_rgb"][:, :, None, None] * fade[:, None]

    # Behind the head.
    paint(hair, long * ellipse(0, 0.12, 0.74, 0.86) * (1 - below(0.72)))
    paint(hair, afro * ellipse(0, -0.18, 0.86, 0.74))
    # Neck and shirt; the body does not tilt.
    body = column - cx
    paint(0.86 * skin, ellipse(0, 0.75, 0.24, 0.42, body, row))
    paint(shirt, ellipse(0, 1.22, 0.86, 0.44, body, row))
    # Ears and head.
    for side in (-1, 1):
        paint(0.92 * skin, ellipse(side * 0.56 - turn, 0.06, 0.11, 0.16))
    head = ellipse(0, 0, 0.56, 0.68)
    paint(skin, head)
    paint(0.75 * hair, p["beard"] * head * below(0.26 + 0.25 * np.abs(x - turn)))
    # Hair in front.
    top = ellipse(0, -0.1, 0.62, 0.68)
    paint(hair, short * top * (1 - below(-0.34 + 0.1 * x * np.sign(turn + 1e-6))))
    paint(hair, fringe * top * (1 - below(-0.22 - 0.12 * np.cos(9 * x))))
    paint(hair, fringe * top * (1 - below(0.1)) * (np.abs(x) > 0.47))
    paint(hair, long * top * (1 - below(-0.36 + 0.5 * np.abs(x - 0.15 * np.sign(turn + 1e-6)))))
    paint(hair, mohawk * ellipse(0.5 * turn, -0.62, 0.16, 0.34))
    paint(hair, afro * top * (1 - below(-0.32)))
    # Eyes and brows; a turned head shows them to one side.
    apart, eye_y = 0.23 + 0.03 * p["spacing"], -0.04
    height = 0.085 + 0.035 * p["openness"]
    for side in (-1, 1):
        ex = side * apart + turn
        white = ellipse(ex, eye_y, 0.125, height)
        paint((250, 250, 250), white)
        paint(p["eye_rgb"], white * ellipse(ex + 0.35 * turn, eye_y, 0.08, 0.08))
        paint((15, 15, 20), white * ellipse(ex + 0.35 * turn, eye_y, 0.035, 0.04))
        paint(0.6 * hair, ellipse(ex, eye_y - 0.19, 0.14, 0.03))
    # Nose and mouth.
    paint(0.78 * skin, ellipse(1.35 * turn, 0.16, 0.06, 0.085))
    mouth_y, wide = 0.4, 0.22
    curve = mouth_y - 0.07 * p["smile"] * (((x - turn) / wide) ** 2 - 0.5) * 2
    lips = np.clip(0.5 - (np.abs(y - curve) - 0.028) / pixel, 0, 1) * (np.abs(x - turn) < wide)
    paint((176, 52, 62), lips)
    opened = p["mouth_open"]
    paint((90, 20, 30), (opened > 0.3) * ellipse(turn, mouth_y, 0.13, 0.03 + 0.08 * opened))
    # Glasses: two rings and a bridge.
    for side in (-1, 1):
        ex = side * apart + turn
        ring = ellipse(ex, eye_y, 0.2, 0.18) - ellipse(ex, eye_y, 0.145, 0.125)
        paint((30, 30, 36), p["glasses"] * ring)
    paint((30, 30, 36), p["glasses"] * ellipse(turn, eye_y, 0.07, 0.03))
    # A hat has the shirt's colour.
    crown = ellipse(0, -0.34, 0.64, 0.56)
    paint(shirt, (p["hat"] == 1) * crown * (1 - below(-0.4)))
    paint(0.7 * shirt, (p["hat"] == 1) * ellipse(0.9 * turn, -0.38, 0.66, 0.075))
    paint(shirt, (p["hat"] == 2) * ellipse(0, -0.4, 0.66, 0.56) * (1 - below(-0.3)))
    paint((245, 245, 245), (p["hat"] == 2) * ellipse(0, -0.95, 0.14, 0.12))
    # Light from one side, over everything.
    person = np.clip(canvas * (1 + 0.22 * (p["light"] * x)[:, None]), 0, 255)
    return np.round(person).astype(np.uint8)

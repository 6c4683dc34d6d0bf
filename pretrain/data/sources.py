"""The data sets: procedural faces, handwritten digits, MNIST, CelebA, LSUN bedrooms, any folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pretrain.data.face_painter import TINTS, PaintedFaces, face_attributes, tinted_faces
from pretrain.data.folders import folder
from pretrain.data.idx_files import read_digits
from pretrain.data.image_sets import Files, InMemory, Lmdb, lmdb_keys
from pretrain.data.images import SPLITS, Images, by_split, edges

MADE = ("faces", "tinted-faces", "digits")  # sources that need no files
PUBLISHED = {
    "mnist": (
        "MNIST: download train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz, and "
        "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz for its own test split, from "
        "https://ossci-datasets.s3.amazonaws.com/mnist/, so that DIR/train-images-idx3-ubyte.gz is "
        "there, or DIR/MNIST/raw/train-images-idx3-ubyte, where "
        "torchvision.datasets.MNIST(DIR, download=True) puts it; gzip or unpacked. Then give DIR"
    ),
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
MNIST_SIZES = (60_000, 10_000)  # images of its two parts, as published
CELEBA_CROP = 140  # pixels
LSUN_TEST = 10_000  # images
MOST_VALIDATION, MOST_TEST = 2_000, 3_000  # faces, however many are drawn


def load(
    source: str | Path,
    size: int,
    seed: int = 0,
    count: int | None = None,
    flip: bool = False,
    root: str | Path | None = None,
    classes: bool = False,
) -> Images:
    """Images of a source, square, in four splits: half of the validation images are for tuning.

    Args:
        source: ``faces``, ``tinted-faces``, ``digits``, ``mnist``, ``celeba``,
            ``lsun-bedroom``, ``folder``; or the path of a folder.
        size: Height and width in pixels, at least 8.
        seed: Seed of the faces, of a folder's split, and of the bedrooms' test split; of the
            digits, which fifth is for testing. The splits of MNIST and CelebA are always the same.
        count: Number of faces to draw, 24,000 if None; or largest number of images to use, of a
            folder, or of the training split of a published data set.
        flip: Whether mirror images double the training split; not for faces and digits.
        root: Where the files of ``mnist``, ``celeba``, ``lsun-bedroom`` or ``folder`` are. A root
            that does not have the layout in which CelebA or LSUN is published is taken as a folder
            of images, and the name says so.
        classes: Whether the sub-folders of a folder are the classes of its images.

    Raises:
        ValueError: If the source is unknown, its files are not there (the message says what to
            download and how it must lie), the images are too few, have no such classes, or cannot
            be flipped.
    """
    if size < 8:
        raise ValueError(f"size={size}, expected at least 8 pixels")
    if count is not None and count < 1:
        raise ValueError(f"count={count}, expected at least 1, or None")
    if source in MADE and root is not None:
        raise ValueError(f"root={str(root)!r}: {source!r} need no files, ask for 'folder' instead")
    if source in MADE and classes:
        raise ValueError(f"classes are sub-folders of a folder, but {source!r} need no files")
    return _load(source, size, seed, count, flip, root, classes).with_tuning()


def _load(
    source: str | Path,
    size: int,
    seed: int,
    count: int | None,
    flip: bool,
    root: str | Path | None,
    classes: bool,
) -> Images:
    """What :func:`load` gives, in the three splits that the source is cut into."""
    if source in ("faces", "tinted-faces"):
        return _procedural_faces(str(source), size, seed, count, flip)
    if flip and source in ("digits", "mnist"):
        raise ValueError("flip=True mirrors digits into what are no digits: leave it out")
    if source == "digits":
        return digits(size, seed)
    if source not in ("folder", *PUBLISHED):
        source, root = "folder", root or source
    if root is None:
        how = PUBLISHED.get(str(source), "any folder of images, with all folders below it")
        raise ValueError(f"{source!r} needs files, say where they are (root; --data). {how}")
    root = Path(root).expanduser()
    published = {
        "mnist": True,
        "celeba": root.name == "celeba" or (root / "celeba").is_dir(),
        "lsun-bedroom": any(root.glob("bedroom_*_lmdb")),
    }.get(str(source), False)
    if published and classes:
        raise ValueError(f"classes=True, but {source!r} as published in {root} has no sub-folders")
    if published and source == "mnist":
        return mnist(root, size, count)
    if published and source == "celeba":
        return celeba(root, size, count, flip)
    if published:
        return bedrooms(root, size, seed, count, flip)
    try:
        if not root.is_dir():
            known = ", ".join(map(repr, (*MADE, *PUBLISHED)))
            raise ValueError(f"{root} is no folder: expected {known} or a folder of images")
        return folder(root, size, seed, count, flip, classes=classes)
    except ValueError as error:
        if source not in PUBLISHED:
            raise
        raise ValueError(f"{error}. {PUBLISHED[str(source)]}") from error


def _in_memory(
    name: str, pixels: np.ndarray, cuts: Sequence[int], targets: np.ndarray, target_kind: str
) -> Images:
    parts = {split: InMemory(part) for split, part in by_split(cuts, pixels).items()}
    return Images(name, parts, by_split(cuts, targets), target_kind)


# --- images that are made ---


def _procedural_faces(source: str, size: int, seed: int, count: int | None, flip: bool) -> Images:
    if flip:
        raise ValueError("flip=True is for files: draw more faces (count) instead")
    total = 24_000 if count is None else count
    if total < 10:
        raise ValueError(f"count={total}, expected at least 10 faces, to split them in three")
    # A twelfth and an eighth, and no more than measurements can use.
    held_out = min(total / 12, MOST_VALIDATION), min(total / 8, MOST_TEST)
    cuts = edges(total, *(part / total for part in held_out))
    if source == "tinted-faces":
        pixels, attributes, tints = tinted_faces(total, size, seed)
        name = f"procedural faces in {TINTS} tints, {size} px"
        images = _in_memory(name, pixels, cuts, attributes, "attributes")
        return replace(images, styles=by_split(cuts, tints))
    spans = zip(SPLITS, pairwise(cuts), strict=True)
    return Images(
        f"procedural faces, {size} px",
        {split: PaintedFaces(a, b - a, size, seed) for split, (a, b) in spans},
        by_split(cuts, face_attributes(total, seed)),
        "attributes",
    )


def digits(size: int, seed: int = 0) -> Images:
    """scikit-learn's 1,797 handwritten digits (8x8, 17 greys), enlarged smoothly.

    Test set of the UCI "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998;
    CC BY 4.0). Split 1,200 / 297 / 300 of a fixed shuffle, which the seed turns: seeds 0 to 4 have
    no test image in common, as five folds do, and seed 5 has those of seed 0.

    Raises:
        ValueError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ValueError(
            "the digits come with scikit-learn: pip install 'ral-env[pretrain]'"
        ) from error
    found: Any = load_digits()
    order = np.roll(np.random.default_rng(0).permutation(len(found.images)), 300 * (seed % 5))
    small = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in found.images]
    grey = np.stack([np.asarray(s.resize((size, size), Image.Resampling.BICUBIC)) for s in small])
    return _in_memory(
        "scikit-learn's handwritten digits",
        np.repeat(grey[order, None], 3, axis=1),
        [0, 1200, 1497, 1797],
        found.target[order].astype(np.int64),
        "classes",
    )


# --- published data sets ---


def mnist(root: Path, size: int, count: int | None = None) -> Images:
    """MNIST's handwritten digits, with a black border instead of being resized: crisp.

    Y. LeCun, C. Cortes, C. Burges, 1998 (CC BY-SA 3.0). Its training file is in random order, so
    it is cut as it lies, and no seed changes the splits: the last tenth is the validation split,
    and the published test set the test split (54,000 / 6,000 / 10,000). Where the test set's files
    are not there, the last tenth of the training file is the test split, and the tenth before it
    the validation split; the name says that this is not the published split.

    Args:
        root: Folder of the files, or torchvision's root. See
            :func:`pretrain.data.idx_files.read_digits`.
        size: Height and width in pixels, at least those of the digits (28).
        count: Largest number of training images, the first ones; None means all.

    Raises:
        ValueError: If files are missing, cut or not MNIST's, there are fewer than ten digits, or
            the digits are larger than ``size``.
    """
    try:
        train, test = read_digits(root, "train"), read_digits(root, "test")
    except ValueError as error:
        raise ValueError(f"{error}. {PUBLISHED['mnist']}") from error
    if train is None:
        raise ValueError(f"{root} has no train-images-idx3-ubyte. {PUBLISHED['mnist']}")
    pixels, labels = train
    tenth = len(pixels) // 10
    if not tenth:
        raise ValueError(f"{root} holds {len(pixels)} training digits, expected at least 10")
    first = len(pixels) - (tenth if test else 2 * tenth)  # of the validation split
    parts = {
        "train": (pixels[:first][:count], labels[:first][:count]),
        "validation": (pixels[first : first + tenth], labels[first : first + tenth]),
        "test": test or (pixels[first + tenth :], labels[first + tenth :]),
    }
    published = (len(pixels), len(parts["test"][0])) == MNIST_SIZES
    return Images(
        f"MNIST, {'its own' if published else 'not its own'} test split: "
        f"{sum(len(part) for part, _ in parts.values()):,} handwritten digits "
        "(LeCun, Cortes, Burges; CC BY-SA 3.0)",
        {split: InMemory(_bordered(part, size)) for split, (part, _) in parts.items()},
        {split: known for split, (_, known) in parts.items()},
        "classes",
    )


def _bordered(pixels: np.ndarray, size: int) -> np.ndarray:
    """Grey uint8 images (n, h, w) in the middle of black RGB ones (n, 3, size, size)."""
    borders = [size - side for side in pixels.shape[1:]]
    if min(borders) < 0:
        raise ValueError(
            f"size={size} for digits of {pixels.shape[1:]} pixels, which are not resampled: "
            "expected at least as many"
        )
    wide = np.pad(pixels, [(0, 0), *((border // 2, border - border // 2) for border in borders)])
    return np.repeat(wide[:, None], 3, axis=1)


def celeba(
    root: Path, size: int, count: int | None = None, flip: bool = False, published: Any = None
) -> Images:
    """CelebA, aligned and cropped, as torchvision lays it out, in its official split.

    The middle 140 x 140 of 178 x 218 pixels, resized: the crop of Y. Song's ``score_sde`` and of
    those who followed it. Others take 108, 128, 148 or 178, so distances to theirs mean nothing.

    Args:
        root: Folder ``celeba``, which holds ``img_align_celeba`` and the five text files, or the
            folder above it.
        size, count, flip: See :func:`load`.
        published: Class that reads the text files and knows their hashes, torchvision's ``CelebA``
            if None.

    Raises:
        ValueError: If a file is missing, or a text file is not the one that was published.
    """
    if published is None:
        from torchvision.datasets import CelebA as published

    root = root.parent if root.name == "celeba" else root
    place = root / "celeba"
    texts = [name for *_, name in published.file_list if name.endswith(".txt")]
    if missing := [name for name in ("img_align_celeba", *texts) if not (place / name).exists()]:
        raise ValueError(f"{place} lacks {', '.join(missing)}. {PUBLISHED['celeba']}")
    try:
        names = {
            split: published(root, split=theirs, target_type=[]).filename
            for split, theirs in zip(SPLITS, ("train", "valid", "test"), strict=True)
        }
    except RuntimeError as error:
        raise ValueError(
            f"a text file in {place} is not the published one ({error}). {PUBLISHED['celeba']}"
        ) from error
    names["train"] = names["train"][:count]
    parts = {
        split: Files(
            place / "img_align_celeba", files, size, CELEBA_CROP, flip and split == "train"
        )
        for split, files in names.items()
    }
    total = sum(map(len, names.values()))
    return Images(f"CelebA, its own split, middle {CELEBA_CROP} pixels: {total} images", parts)


def bedrooms(
    root: Path, size: int, seed: int = 0, count: int | None = None, flip: bool = False
) -> Images:
    """LSUN bedrooms: the middle square of the shorter side, resized.

    The published validation set has 300 images, and these are the validation split. The published
    test set says of no image whether it is a bedroom, so the test split is drawn, seeded, from the
    3,033,042 of ``bedroom_train``: 10,000, or a twentieth if that is less.

    torchvision knows these files too, but it leaves a pickle of the keys in the working directory,
    by a name that two roots may share, and what it opens survives neither fork nor pickling.

    Args:
        root: Folder that holds ``bedroom_train_lmdb`` and ``bedroom_val_lmdb``.
        size, seed, count, flip: See :func:`load`.

    Raises:
        ValueError: If a database is missing or cut, or the package ``lmdb`` is not installed.
    """
    places = {name: root / f"bedroom_{name}_lmdb" for name in ("train", "val")}
    if missing := [str(p) for p in places.values() if not (p / "data.mdb").is_file()]:
        raise ValueError(f"no data.mdb in {', '.join(missing)}. {PUBLISHED['lsun-bedroom']}")
    keys = {name: lmdb_keys(place) for name, place in places.items()}
    order = np.random.default_rng(seed).permutation(len(keys["train"]))
    held_out = max(1, min(LSUN_TEST, len(order) // 20))
    test, train = np.sort(order[:held_out]), np.sort(order[held_out:][:count])
    parts = {
        "train": Lmdb(places["train"], keys["train"][train], size, flip),
        "validation": Lmdb(places["val"], keys["val"], size),
        "test": Lmdb(places["train"], keys["train"][test], size),
    }
    if empty := [split for split, part in parts.items() if not len(part)]:
        raise ValueError(
            f"LSUN in {root} has no images for {', '.join(empty)}: expected at least one each"
        )
    total = sum(part.count for part in parts.values())
    return Images(f"LSUN bedrooms, middle square: {total} images", parts)

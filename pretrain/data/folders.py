"""Any folder of images: which of its files are used, and a word on all that are not."""

from __future__ import annotations

import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pretrain.data.classes import sub_folders
from pretrain.data.image_sets import Files
from pretrain.data.images import Images, by_split, edges
from ral_env.images import ENDINGS, read

SUFFIXES = tuple(ending for endings in ENDINGS.values() for ending in endings)
# Folders in which systems keep pictures of pictures; others begin with a dot.
HIDDEN = ("@eaDir", "__MACOSX", "$RECYCLE.BIN")
CHECKED = 5_000  # largest number of files of which each is opened beforehand
SHOWN = 5  # files of each kind that a warning names


def folder(
    root: Path,
    size: int,
    seed: int = 0,
    count: int | None = None,
    flip: bool = False,
    checked: int = CHECKED,
    classes: bool = False,
) -> Images:
    """Every image file below a folder: centre-cropped to a square, resized (antialiased), RGB.

    Split 90 / 5 / 5 by a seeded shuffle of the sorted names. CelebA-HQ is such a folder. What is
    there and not used is counted in a warning, which says why; see :func:`find_images`.

    Args:
        root: The folder.
        size, seed, count, flip: See :func:`pretrain.data.load`.
        checked: If there are no more files than this, each is opened once, and those that cannot be
            read are left out. Of more files they are found when they are read (see
            :class:`pretrain.data.image_sets.LazyImages`).
        classes: Whether its sub-folders are classes; see :func:`pretrain.data.classes.sub_folders`.

    Raises:
        ValueError: If there are fewer than ten images in it.
    """
    names, left_out = find_images(root)
    if len(names) <= checked:
        names, left_out["cannot be read"] = _readable(root, names)
    order = np.random.default_rng(seed).permutation(len(names))
    if count is not None:
        left_out[f"more than the {count} asked for"] = [names[i] for i in order[count:]]
        order = order[:count]
    unused = _in_words(left_out)
    if len(order) < 10:
        raise ValueError(
            f"{root} holds {len(order)} images to use, expected at least 10, with the endings "
            f"{', '.join(SUFFIXES)}{unused and f'. Not used: {unused}'}"
        )
    if unused:
        warnings.warn(f"{len(order)} images of {root} are used. Not used: {unused}", stacklevel=3)
    chosen = by_split(edges(len(order), 0.05, 0.05), [names[i] for i in order])
    parts = {
        split: Files(root, part, size, flip=flip and split == "train")
        for split, part in chosen.items()
    }
    # In an ASCII locale, other letters of the name have become what no file takes.
    name = os.fsencode(root.resolve().name).decode("utf-8", "replace")
    title = f"{len(order)} images of folder {name}"
    if not classes:
        return Images(title, parts)
    labels = sub_folders(root, chosen)
    if flip:
        labels["train"] = np.tile(labels["train"], 2)  # the mirror images follow the others
    return Images(title, parts, labels, "classes")


def find_images(root: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The image files below a folder, by their endings.

    Not used are files with other endings, what is no file (a pipe), links to folders, which may
    lead in circles, folders that cannot be read, hidden ones, and those of a run of ours, whose
    pictures would be learnt from when it goes on.

    Returns:
        Paths relative to the folder, sorted; and by the reason why, those that are not used.
    """
    names: list[str] = []
    left_out: dict[str, list[str]] = defaultdict(list)

    def unreadable(error: OSError) -> None:
        left_out["folders that cannot be read"].append(os.path.relpath(error.filename, root))

    for place, folders, files in os.walk(root, onerror=unreadable):
        inside = os.path.relpath(place, root)
        for name in sorted(folders):
            path = os.path.join(place, name)
            if reason := _why_not(path):
                left_out[reason].append(os.path.normpath(os.path.join(inside, name)))
                folders.remove(name)
        for name in files:
            path = os.path.normpath(os.path.join(inside, name))
            if name.startswith("."):
                left_out["hidden files"].append(path)
            elif not name.lower().endswith(SUFFIXES):
                left_out["files with other endings"].append(path)
            elif not _is_file(os.path.join(place, name)):
                left_out["pipes, devices and broken links"].append(path)
            else:
                names.append(path)
    return sorted(names), left_out


def _why_not(path: str) -> str | None:
    """Why a folder is left out; None if it is not."""
    name = os.path.basename(path)
    if name.startswith(".") or name in HIDDEN:
        return "hidden folders"
    if os.path.islink(path):
        return "links to folders"
    # Every run has both: what was asked for, and a checkpoint or a table of its progress.
    if os.path.isfile(os.path.join(path, "config.json")):
        left = os.listdir(path)
        if any(file.endswith(".pt") or file == "progress.csv" for file in left):
            return "folders of runs"
    return None


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _readable(root: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of files that can be read; and those of the others, with the reason."""
    good, bad = [], []
    for name in names:
        try:
            read(root / name, 8)
            good.append(name)
        except ValueError as error:
            bad.append(f"{name} ({error.__cause__})")
    return good, bad


def _in_words(left_out: Mapping[str, Sequence[str]]) -> str:
    """What is left out, counted by reason, and a few names of each; empty if it is nothing."""
    kinds = []
    for reason, paths in left_out.items():
        if paths:
            shown = "; ".join(sorted(paths)[:SHOWN]) + ("; ..." if len(paths) > SHOWN else "")
            kinds.append(f"{len(paths)} {reason}: {shown}")
    return ". ".join(kinds)

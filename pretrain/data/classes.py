"""Classes of a folder's images: the sub-folders that they lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def sub_folders(root: Path, chosen: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Numbers of the sub-folders, sorted by name, that hold the images of each split.

    Args:
        root: The folder.
        chosen: For each split its files' paths, relative to ``root``.

    Returns:
        For each split int64 (n,), from 0.

    Raises:
        ValueError: If an image lies in no sub-folder, fewer than two sub-folders hold training
            images, or one holds others only.
    """
    every = [Path(name) for names in chosen.values() for name in names]
    if outside := sorted(str(path) for path in every if len(path.parts) == 1):
        raise ValueError(
            f"sub-folders of {root} are to be the classes, but {len(outside)} images lie outside "
            f"of them, such as {outside[0]}: move each into a sub-folder, or leave classes out"
        )
    found = {split: [Path(name).parts[0] for name in names] for split, names in chosen.items()}
    known = sorted(set(found["train"]))
    if len(known) < 2:
        raise ValueError(
            f"sub-folders of {root} are to be the classes, but training images are in "
            f"{known} only: expected at least 2 sub-folders with images"
        )
    if rare := sorted({path.parts[0] for path in every} - set(known)):
        raise ValueError(
            f"no training images are in sub-folders {', '.join(rare)} of {root}, which are to be "
            "classes: add images to them, or move them elsewhere"
        )
    numbers = {name: number for number, name in enumerate(known)}
    return {
        split: np.array([numbers[name] for name in names], np.int64)
        for split, names in found.items()
    }

"""A data set: its images by split, and what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pretrain.data.image_sets import Concat, ImageSet, Slice

SPLITS = ("train", "validation", "test")  # as sources are cut; ``with_tuning`` makes a fourth


@dataclass(frozen=True)
class Images:
    """A data set with its split.

    Args:
        name: Name of the data set, as results give it.
        parts: Its images by split: train, validation, where there is one tuning, and test, in this
            order.
        targets: For each split, int64 classes (n,) or float32 attributes (n, A) in [-1, 1]: what a
            feature net learns to tell. None if nothing is known of the images.
        target_kind: ``"classes"``, ``"attributes"`` or None.
        styles: For each split, int64 style numbers (n,) from 0, with which an oracle that is a
            mixture learns. None if the images have no styles.
    """

    name: str
    parts: Mapping[str, ImageSet]
    targets: Mapping[str, np.ndarray] | None = None
    target_kind: str | None = None
    styles: Mapping[str, np.ndarray] | None = None

    def part(self, name: str) -> ImageSet:
        """The images of ``"train"``, ``"validation"``, ``"tuning"`` or ``"test"``."""
        if name not in self.parts:
            raise ValueError(f"part {name!r}, expected one of {list(self.parts)}")
        return self.parts[name]

    @property
    def whole(self) -> ImageSet:
        """The images of all splits, one after another."""
        return Concat(list(self.parts.values()))

    @property
    def fingerprint(self) -> str:
        """Tells whether images are those that a run began with: their number, order and content.

        Of files it is their names below the folder, their sizes, and how a thousand of each part
        begin; where the folder is, and how its path is spelt, does not matter.
        """
        names, contents = hashlib.sha256(), hashlib.sha256()
        for name, part in self.parts.items():
            names.update(f"{name}: ".encode() + part.identity())
            contents.update(part.content())
        return f"{names.hexdigest()[:16]}-{contents.hexdigest()[:16]}"

    @property
    def splits(self) -> dict[str, tuple[int, int]]:
        """First and last + 1 index of each split in the whole."""
        return consecutive({name: len(part) for name, part in self.parts.items()})

    def with_tuning(self) -> Images:
        """The same images, with the second half of the validation split as the split for tuning.

        What stops a training and what chooses settings are then different images. Of fewer than
        four validation images none are taken, as fewer than two would be left.
        """
        validation = self.parts["validation"]
        size = tuning_size(len(validation))
        if not size:
            return self
        middle = len(validation) - size
        halves = Slice(validation, 0, middle), Slice(validation, middle, len(validation))
        return replace(
            self,
            parts=_halved(self.parts, *halves),
            targets=_halved_rows(self.targets, middle),
            styles=_halved_rows(self.styles, middle),
        )


def tuning_size(validation: int) -> int:
    """How many of so many validation examples are set aside for tuning: half of them, or none if
    fewer than two would be left."""
    return validation // 2 if validation >= 4 else 0


def consecutive(sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """First and last + 1 row of each split, one after another, from their sizes."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return dict(zip(sizes, zip([0, *ends], ends, strict=False), strict=True))


def _halved(by_split: Mapping[str, Any], validation: Any, tuning: Any) -> dict[str, Any]:
    """``by_split`` with other validation examples, and those for tuning after them."""
    return {
        "train": by_split["train"],
        "validation": validation,
        "tuning": tuning,
        "test": by_split["test"],
    }


def _halved_rows(
    by_split: Mapping[str, np.ndarray] | None, middle: int
) -> dict[str, np.ndarray] | None:
    if by_split is None:
        return None
    rows = by_split["validation"]
    return _halved(by_split, rows[:middle], rows[middle:])


def edges(total: int, validation: float, test: float) -> list[int]:
    """Where a shuffled set is cut into train, validation and test, which have these shares."""
    first, second = max(1, round(total * validation)), max(1, round(total * test))
    return [0, total - first - second, total - second, total]


def by_split(edges: Sequence[int], values: Any) -> dict[str, Any]:
    """The values of each split, from where they are cut."""
    return {n: values[a:b] for n, a, b in zip(SPLITS, edges[:-1], edges[1:], strict=True)}

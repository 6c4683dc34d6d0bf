"""CodeLayout: how an image's code grids lie in one flat row of integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

# Grids and flat codes are numpy arrays or torch tensors; what goes in comes out.
Array = Any


@dataclass(frozen=True)
class CodeLayout:
    """All levels of an image's codes in raster order, top (coarsest) level first.

    Args:
        levels: (h, w) of each code grid, top first. Each finer grid is a whole multiple of the
            first in both directions.
        num_codes: entries of the codebook; codes are 0 .. num_codes - 1.

    Raises:
        ValueError: if a grid is empty or no multiple of the first, or the codes do not fit int16.
    """

    levels: tuple[tuple[int, int], ...]
    num_codes: int

    def __post_init__(self) -> None:
        levels = tuple((int(h), int(w)) for h, w in self.levels)
        object.__setattr__(self, "levels", levels)
        if not levels or any(h < 1 or w < 1 for h, w in levels):
            raise ValueError(f"levels={levels}, expected one or more (h, w) of at least (1, 1)")
        top_h, top_w = levels[0]
        if any(h % top_h or w % top_w for h, w in levels):
            raise ValueError(f"levels={levels}: each must be a multiple of the first, {levels[0]}")
        if not 1 <= self.num_codes <= np.iinfo(np.int16).max - 1:
            raise ValueError(f"num_codes={self.num_codes}, expected 1 to 32766 (int16 cells)")

    @property
    def length(self) -> int:
        """Cells of all levels together."""
        return sum(map(prod, self.levels))

    @property
    def empty(self) -> int:
        """The value of a cell that is still to be written."""
        return self.num_codes

    @property
    def outside(self) -> int:
        """The value of a cell that this episode does not have."""
        return self.num_codes + 1

    @property
    def rows(self) -> int:
        """Rows of the coarsest grid: the unit in which starts are counted."""
        return self.levels[0][0]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each level's cells lie in the flat row."""
        ends = np.cumsum([h * w for h, w in self.levels]).tolist()
        return tuple(slice(a, b) for a, b in zip([0, *ends], ends, strict=False))

    @cached_property
    def bands(self) -> np.ndarray:
        """For each cell the row of the coarsest grid that it belongs to, int64 (length,).

        A band is a row of the coarsest grid with the finer rows beneath it.
        """
        rows = [
            np.repeat(np.arange(h) // self.ratio(level), w)
            for level, (h, w) in enumerate(self.levels)
        ]
        return np.concatenate(rows)

    @cached_property
    def band_ends(self) -> np.ndarray:
        """Which cells are the last of their band to be written, bool (length,)."""
        height, width = self.levels[-1]
        row, column = np.divmod(np.arange(height * width), width)
        last = ((row + 1) % self.ratio(-1) == 0) & (column == width - 1)
        return np.concatenate([np.zeros(self.length - len(last), bool), last])

    def written(self, rows: int) -> np.ndarray:
        """Mask (length,) of the cells that are written when ``rows`` rows are done on all levels.

        Coarser levels come first: they are whole before the finest one begins.
        """
        return (np.arange(self.length) < self.slices[-1].start) | self.head(rows)

    def ratio(self, level: int) -> int:
        """Rows of ``level`` to one row of the coarsest grid."""
        return self.levels[level][0] // self.rows

    def grids(self, rows: int | None = None) -> tuple[tuple[int, int], ...]:
        """(h, w) of each level where only the first ``rows`` rows exist (default: all)."""
        rows = self.rows if rows is None else rows
        return tuple((rows * self.ratio(i), w) for i, (_, w) in enumerate(self.levels))

    def flatten(self, grids: Sequence[Array]) -> Array:
        """Grids (..., h, w), one a level and top first, to flat codes (..., length).

        Raises:
            ValueError: if a grid is missing or has another shape.
        """
        shapes = [tuple(grid.shape) for grid in grids]
        if tuple(shape[-2:] for shape in shapes) != self.levels:
            raise ValueError(f"grids have shapes {shapes}, expected (..., h, w) of {self.levels}")
        parts = [grid.reshape(*grid.shape[:-2], -1) for grid in grids]
        if isinstance(parts[0], np.ndarray):
            return np.concatenate(parts, -1)
        import torch  # only where the caller's grids are tensors already

        return torch.cat(parts, -1)

    def unflatten(self, flat: Array, rows: int | None = None) -> list[Array]:
        """Flat codes (..., length) to grids (..., h, w), one a level; views, not copies.

        ``rows`` keeps the first rows only, counted on the coarsest grid: what an image of a canvas
        that is only that tall is decoded from.

        Raises:
            ValueError: if the last dimension is not ``length``.
        """
        if flat.shape[-1] != self.length:
            raise ValueError(f"codes have shape {tuple(flat.shape)}, expected (..., {self.length})")
        return [
            flat[..., cells].reshape(*flat.shape[:-1], *level)[..., :height, :]
            for cells, level, (height, _) in zip(
                self.slices, self.levels, self.grids(rows), strict=True
            )
        ]

    def as_grids(self, codes: np.ndarray) -> list[Array]:
        """Stored codes (N, length) of any integer dtype to int64 tensors (N, h, w), a grid a level.

        A copy: what is stored may be a read-only memory map.
        """
        import torch  # only those who learn from codes want tensors

        return self.unflatten(torch.from_numpy(np.array(codes, dtype=np.int64)))

    def empty_grids(self, count: int, device: torch.device | str | None = None) -> list[Array]:
        """Canvases that nothing is written on: int64 tensors (count, h, w), a grid a level."""
        import torch

        size = ((count, *level) for level in self.levels)
        return [torch.full(shape, self.empty, device=device) for shape in size]

    def heights(self, canvas: Array) -> Array:
        """Rows, counted on the coarsest grid, that canvases (..., length) have: (...,).

        A cell that is OUTSIDE is not there; its row is not there then.
        """
        return (self.unflatten(canvas)[0][..., 0] != self.outside).sum(-1)

    def head(self, rows: int) -> np.ndarray:
        """Mask (length,) of the first ``rows`` coarsest rows and of the finer rows beneath them."""
        return self.bands < rows

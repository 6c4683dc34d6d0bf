"""Features of the cells that ask for a code, from one pass of each level's prior."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ral_env.layout import CodeLayout


class CellFeatures(NamedTuple):
    """Features of the cells that ask for a code, in groups of one level each.

    Attributes:
        levels: level of each group.
        features: features of each group's cells, (N_i, C).
        order: int64 (N,), brings the groups' cells, one group after the other, into canvas and
            raster order; None where they are in it.
    """

    levels: list[int]
    features: list[Tensor]
    order: Tensor | None

    def join(self, groups: list[Tensor]) -> Tensor:
        """What was computed of each group (N_i, ...), for all cells in order: (N, ...)."""
        joined = torch.cat(groups)
        return joined if self.order is None else joined[self.order]


def cell_features(
    priors: Iterable[Any], canvas: Tensor, asked: Tensor, layout: CodeLayout
) -> CellFeatures:
    """Features of cells, which depend on earlier cells alone: one pass a level and height.

    Args:
        priors: a PixelCNN for each level, top first.
        canvas: codes, EMPTY and OUTSIDE, int64 (B, length).
        asked: which cells, bool (B, length).
    """
    codes = canvas.masked_fill(canvas == layout.empty, 0)  # never read: they come later
    heights = layout.heights(canvas)
    place = torch.arange(canvas.numel(), device=canvas.device).view_as(canvas)
    levels, features, places = [], [], []
    for rows in heights.unique().tolist():
        grids, masks = layout.unflatten(codes, rows), layout.unflatten(asked, rows)
        places_of = layout.unflatten(place, rows)
        for level, prior in enumerate(priors):
            which = ((heights == rows) & masks[level].flatten(1).any(1)).nonzero()[:, 0]
            if not len(which):
                continue
            condition = grids[level - 1][which] if level else None
            mask = masks[level][which]
            levels.append(level)
            features.append(prior.hidden(grids[level][which], condition)[mask])
            places.append(places_of[level][which][mask])
    order = None if len(levels) == 1 else torch.cat(places).argsort()
    return CellFeatures(levels, features, order)

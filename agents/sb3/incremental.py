"""Features of the next cell, computed from the last step's state wherever that is exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ral_env.layout import CodeLayout
from ral_env.nets import PixelCNN, backends, native
from ral_env.nets.cache import Cache


class StepCache:
    """Verified memoisation of an incremental evaluation.

    SB3 shows a policy one whole canvas after the other and does not say how they follow from each
    other. The state of the last step is used only if the new canvases are the last ones, or those
    with exactly one code more in the first EMPTY cell, and the weights are the same tensors, in
    place and version. Otherwise the evaluation begins anew from the codes that are there. (Writing
    through ``parameter.data`` in place is the one change that torch does not count: call
    :meth:`clear` then.)

    Args:
        priors: a PixelCNN for each level, top first.
        layout: layout of their codes.
    """

    def __init__(self, priors: Sequence[PixelCNN], layout: CodeLayout):
        self.priors = priors
        self.layout = layout
        self.clear()

    def clear(self) -> None:
        """Forget the last step: the next one begins anew."""
        self._cache: Cache | native.Steps | None = None  # of the level that is being written
        self._canvas: Tensor | None = None
        self._features: Tensor | None = None
        self._weights: list[tuple[Tensor, Tensor, int]] = []
        self._level = self._cell = 0

    @torch.inference_mode()
    def features(self, canvas: Tensor) -> tuple[int, Tensor] | None:
        """The level of the canvases' first EMPTY cell, and that cell's features, (B, C).

        None where canvases are not in lockstep: they have several heights, or are to be written at
        several cells.

        Args:
            canvas: int64 (B, length); each has an EMPTY cell, and codes in all cells before it.
        """
        cells = (canvas == self.layout.empty).int().argmax(1)
        heights = self.layout.heights(canvas)
        cell = int(cells[0])
        if (cells != cell).any() or (heights != heights[0]).any():
            return None
        if not self._advance(canvas, cell):
            self._begin(canvas, cell, int(heights[0]))
        assert self._features is not None
        return self._level, self._features

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Logits (B, num_codes) of the cell whose features were asked for last."""
        assert self._cache is not None and self._features is not None
        return self._cache.readout(self._features[:, None])[:, 0]

    def _advance(self, canvas: Tensor, cell: int) -> bool:
        """Go on to ``canvas`` if it is the last one or its successor, and say whether it is."""
        before = self._canvas
        if before is None or before.shape != canvas.shape or not self._same_weights():
            return False
        if torch.equal(canvas, before):
            return True
        cells = self.layout.slices[self._level]
        if cell != self._cell + 1 or cell >= cells.stop:
            return False
        new = canvas[:, self._cell]
        before = before.clone()
        before[:, self._cell] = new
        if not torch.equal(canvas, before) or bool((new >= self.layout.num_codes).any()):
            return False
        assert self._cache is not None
        columns = self.layout.levels[self._level][1]
        column = (cell - cells.start) % columns
        if column == 0:
            self._cache.next_row(canvas[:, cell - columns : cell])
        left = canvas[:, cell - 1 : cell] if column else None
        self._remember(canvas, cell, self._cache.hidden(left, column))
        return True

    def _begin(self, canvas: Tensor, cell: int, rows: int) -> None:
        """Read the codes before ``cell`` anew, row by row."""
        level = next(i for i, cells in enumerate(self.layout.slices) if cell < cells.stop)
        net, grids = self.priors[level], self.layout.unflatten(canvas, rows)
        grid = grids[level]
        row, column = divmod(cell - self.layout.slices[level].start, grid.shape[2])
        context = net.context(grids[level - 1] if level else None, grid.shape[1])
        cache = backends.steps(net.backend, net.weights(), len(canvas), context)
        self._cache = cache
        for done in range(row):
            cache.next_row(grid[:, done - 1] if done else None)
            cache.feed(grid[:, done])
        cache.next_row(grid[:, row - 1] if row else None)
        left = grid[:, row, :column] if column else None
        self._level = level
        # An alias keeps the memory taken: no new weights can turn up at the same place.
        self._weights = [(p, p.detach(), p._version) for p in net.parameters()]
        self._remember(canvas, cell, cache.hidden(left, 0, column + 1))

    def _remember(self, canvas: Tensor, cell: int, hidden: Tensor) -> None:
        """Note the step: ``hidden`` (B, 1 or more, C) ends with the features of ``cell``."""
        self._canvas, self._cell, self._features = canvas.clone(), cell, hidden[:, -1]

    def _same_weights(self) -> bool:
        """Whether the level's weights are those that the state was computed with."""
        parameters = list(self.priors[self._level].parameters())
        return len(parameters) == len(self._weights) and all(
            p is parameter and p.data_ptr() == alias.data_ptr() and p._version == version
            for p, (parameter, alias, version) in zip(parameters, self._weights, strict=True)
        )

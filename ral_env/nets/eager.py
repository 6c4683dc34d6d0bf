"""Sampling with a cache, one operation after the other: the backend that needs nothing.

``native`` writes the same codes by compiled code on the CPU, and ``graph.py`` on a GPU, where
launching operations costs more than running them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ral_env.nets.cache import Cache
from ral_env.nets.noise import NoiseSource, gumbel
from ral_env.nets.weights import PixelCNNWeights


@torch.inference_mode()
def sample_empty_(
    weights: PixelCNNWeights,
    codes: Tensor,
    context: Tensor | None,
    temperature: float,
    generator: NoiseSource,
) -> None:
    """Write the EMPTY cells of ``codes`` in place, in raster order.

    Args:
        weights: What :meth:`PixelCNN.weights` returned.
        codes: int64 (B, h, w); cells that hold num_codes are EMPTY.
        context: What :meth:`PixelCNN.context` returned for these rows.
        temperature: As in :meth:`PixelCNN.sample`.
        generator: As in :meth:`PixelCNN.sample`.
    """
    batch, rows, columns = codes.shape
    empty = codes == len(weights.embedding)
    has_empty = empty.any(2).any(0).tolist()
    if not any(has_empty):
        return
    cache = Cache(weights, batch, context, first_row=has_empty.index(True))
    last = max(row for row in range(rows) if has_empty[row])
    for row in range(cache.row + 1, last + 1):
        cache.next_row(codes[:, row - 1] if row else None)
        if not has_empty[row]:
            cache.feed(codes[:, row])
            continue
        # What stands in place of the head's bias: (w, B, num_codes).
        bias = cache.head_bias.expand(columns, batch, -1)
        noise = gumbel(tuple(bias.shape), bias, generator) if temperature > 0 else bias
        # In place of logits / temperature + noise, whose largest is at the same code.
        bias = torch.add(bias, noise, alpha=temperature)
        known = ~empty[:, row].t().unsqueeze(2)  # and codes that are known always win
        index = torch.where(known, codes[:, row].t().unsqueeze(2), 0)
        bias.scatter_add_(2, index, torch.where(known, torch.inf, 0.0).to(bias.dtype))
        cells, left = codes[:, row].unbind(1), None
        for column, cell_bias in enumerate(bias.unbind(0)):
            scores = cache.readout_cells(cache.next_cell(left, column), cell_bias)
            left = torch.argmax(scores, 1, out=cells[column])

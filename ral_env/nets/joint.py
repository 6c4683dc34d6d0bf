"""The priors of all levels as one distribution over an image's codes, top level first.

log G(codes) = log G_0(top) + log G_1(bottom | top) + ...: every finer prior is conditioned on the
level above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ral_env.nets.mixture import Mixture
from ral_env.nets.noise import NoiseSource
from ral_env.nets.pixelcnn import PixelCNN
from ral_env.nets.protocol import Prior, Sampler
from ral_env.nets.shapes import Grid, GridLogProbs, Grids, TotalLogProbs

# One a level; those that are trained together may be one module.
Priors = Sequence[Prior] | nn.ModuleList
Samplers = Sequence[Sampler] | nn.ModuleList


def log_prob(priors: Priors, grids: Grids, temperature: float = 1.0) -> list[GridLogProbs]:
    """log G of every code given all before it, in nats: (B, h, w) a level. Differentiable.

    Args:
        priors: One a level.
        grids: int64 codes (B, h, w), a grid a level; all of them may have fewer rows.
        temperature: Divides the logits.
    """
    above = [None, *grids[:-1]]
    return [
        prior.log_prob(grid, condition, temperature)
        for prior, grid, condition in zip(cast(Sequence[Prior], priors), grids, above, strict=True)
    ]


def total_log_prob(
    priors: Priors,
    grids: Grids,
    temperature: float = 1.0,
    batch: int | None = None,
) -> TotalLogProbs:
    """log G of whole canvases, in nats: (B,), without gradient.

    Arguments are those of :func:`log_prob`; ``batch`` is the number of canvases that are looked at
    together, by default as many as 32,768 cells.
    """
    cells = sum(grid[0].numel() for grid in grids)
    size = batch or max(1, 2**15 // cells)
    with torch.no_grad():
        parts = [
            sum(level.sum((1, 2)) for level in log_prob(priors, part, temperature))
            for part in zip(*(grid.split(size) for grid in grids), strict=True)
        ]
    return torch.cat(parts)  # type: ignore[arg-type]


def sample(
    priors: Samplers,
    prefixes: Grids,
    temperature: float = 1.0,
    generator: NoiseSource = None,
    batch: int | None = None,
) -> list[Grid]:
    """Write the EMPTY cells of every level, the top first. See :meth:`PixelCNN.sample`.

    Args:
        priors: One a level.
        prefixes: int64 (B, h, w), a grid a level; they are left as they are.
        temperature: Divides the logits; 0 takes the likeliest codes.
        generator: Source of all noise; a :class:`SharedGenerator` only where all priors are
            :class:`PixelCNN`.
        batch: Number of canvases that are written together; all if not given.

    Raises:
        ValueError: If there are not as many priors as levels.
    """
    if len(priors) != len(prefixes):
        raise ValueError(
            f"{len(priors)} priors for {len(prefixes)} levels of codes, expected one a level: "
            "give the bundle its priors to sample from them"
        )
    source = cast(torch.Generator | None, generator)
    parts = []
    for part in zip(*(prefix.split(batch or len(prefix)) for prefix in prefixes), strict=True):
        grids: list[Tensor] = []
        for prior, prefix in zip(cast(Sequence[Sampler], priors), part, strict=True):
            condition = grids[-1] if grids else None
            grids.append(prior.sample(prefix, condition, temperature, source))
        parts.append(grids)
    return parts[0] if len(parts) == 1 else [torch.cat(g) for g in zip(*parts, strict=True)]


def draw(
    priors: Sequence[PixelCNN | Mixture] | nn.ModuleList,
    count: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    batch: int | None = None,
) -> list[Grid]:
    """Sample ``count`` whole canvases: int64 (count, h, w) a level, on the priors' device.

    Other arguments are those of :func:`sample`; the default ``batch`` is as many as 32,768 cells,
    and at least 16.
    """
    configs = [cast(PixelCNN | Mixture, prior).config for prior in priors]
    cells = sum(config.grid[0] * config.grid[1] for config in configs)
    size = batch or max(16, 2**15 // cells)
    device = next(priors[0].parameters()).device
    empty = [
        torch.full((count, *config.grid), config.num_codes, device=device) for config in configs
    ]
    return sample(priors, empty, temperature, generator, size)

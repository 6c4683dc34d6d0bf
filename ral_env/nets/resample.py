"""Sampling importance resampling: of several candidates one is kept, by its weight (Rubin 1987).

With candidates of a prior p and scores D it draws from p * exp(D), the residual energy-based model
of Deng et al. 2020 (arXiv 2004.11714), as the candidates become many; with one, from p. In between
a canvas x is kept with the probability p(x) * E[K exp(D(x)) / (exp(D(x)) + sum of the K - 1 others'
exp(D))]. Where D is the log density ratio of reals to samples of p, p * exp(D) is the distribution
of the reals.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ral_env.nets.protocol import Codec, represent


@torch.no_grad()
def score(
    discriminator: nn.Module,
    codec: Codec,
    grids: Sequence[Tensor],
    input: str,
    batch: int = 64,
) -> Tensor:
    """Mean of the raw score map of each canvas, (N,); real is high.

    Args:
        discriminator: Maps inputs (B, C, H, W) to score maps (B, 1, h', w').
        codec: What codes are decoded or looked up with.
        grids: int64 codes (N, h, w), a grid a level.
        input: What the discriminator sees, ``image`` or ``codes``.
        batch: Number of canvases that are scored together.
    """
    parts = zip(*(grid.split(batch) for grid in grids), strict=True)
    maps = [discriminator(represent(codec, part, input)) for part in parts]
    return torch.cat(maps).mean((1, 2, 3))


def resample(
    grids: Sequence[Tensor],
    scores: Tensor,
    candidates: int,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Keep one of every ``candidates`` canvases that stand side by side, with chance ~ exp(score).

    Args:
        grids: int64 codes (N * candidates, h, w), a grid a level.
        scores: Of each canvas, (N * candidates,).
        candidates: Number of canvases that one is kept of.
        generator: Source of the choice, on the scores' device.

    Returns:
        int64 (N, h, w) a level.

    Raises:
        ValueError: If the canvases cannot be divided so.
    """
    if candidates < 1 or len(scores) % candidates or len(scores) != len(grids[0]):
        raise ValueError(
            f"{len(grids[0])} canvases with {len(scores)} scores, expected as many, and a multiple "
            f"of candidates={candidates}"
        )
    chance = scores.double().view(-1, candidates).softmax(1)
    first = torch.arange(len(chance), device=scores.device) * candidates
    index = first + torch.multinomial(chance, 1, generator=generator).squeeze(1)
    return [grid[index] for grid in grids]

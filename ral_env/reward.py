"""From score maps to rewards: pure functions on tensors, and normalisers (sections 4.2 and 4.4).

A score map is float32 (B, 1, h', w') with one score for each patch of the input; real is high.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ral_env.nets.shapes import ScoreMap

REWARDS = ("single", "intermediate", "rowwise")
REWARD_SOURCES = ("discriminator", "constant", "random", "shuffled")

MeanScores = Float[Tensor, " batch"]
LevelScores = Float[Tensor, "batch rows columns"]  # one for each code of a level
CellScores = Float[Tensor, "batch cells"]  # of all levels, one after the other


def check_finite(score_map: Tensor) -> Tensor:
    """The same score map.

    Raises:
        ValueError: if a score is NaN or infinite.
    """
    finite = torch.isfinite(score_map)
    if not finite.all():
        raise ValueError(
            f"{int((~finite).sum())} of {score_map.numel()} scores are not finite: check the "
            "discriminator's weights (did its training diverge?) and its input"
        )
    return score_map


def normalise(score_map: Tensor, scale: float) -> Tensor:
    """Scores divided by ``scale`` and clamped to [-1, 1] (section 4.4)."""
    return (check_finite(score_map) / scale).clamp(-1, 1)


class Normaliser:
    """Finds the scale that brings scores into [-1, 1] (section 4.4).

    "By the highest value over a set of real and fake images" is read as the largest absolute score
    of the current real and fake batch.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def update(self, real_scores: Tensor, fake_scores: Tensor) -> None:
        """Set the scale from the scores of a real and a fake batch, of any shape."""
        largest = max(
            check_finite(scores).abs().max().item() for scores in (real_scores, fake_scores)
        )
        self.scale = max(largest, 1e-6)  # where all scores are 0, nothing is divided by 0

    def __call__(self, score_map: Tensor) -> Tensor:
        """Normalised scores in [-1, 1], of the same shape."""
        return normalise(score_map, self.scale)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.scale = float(state["scale"])


class RunningNormaliser(Normaliser):
    """A scale that moves slowly: rewards of successive batches are on nearly one scale.

    Args:
        scale: the scale before the first update.
        decay: share of the old scale in the new one, in [0, 1); the first update takes none of it.

    Raises:
        ValueError: if the decay is not in that range.
    """

    def __init__(self, scale: float = 1.0, decay: float = 0.9):
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}, expected at least 0 and less than 1")
        super().__init__(scale)
        self.decay = decay
        self.updates = 0

    def update(self, real_scores: Tensor, fake_scores: Tensor) -> None:
        """Move the scale towards that of a real and a fake batch."""
        before = self.scale
        super().update(real_scores, fake_scores)
        if self.updates:
            self.scale = self.decay * before + (1 - self.decay) * self.scale
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {**super().state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.updates = int(state["updates"])


NORMALISERS = {"batch": Normaliser, "running": RunningNormaliser}


def single(score_map: ScoreMap) -> MeanScores:
    """Mean of each score map, (B, 1, h', w') -> (B,): the reward of the last step (Eq. 6)."""
    return score_map.mean((1, 2, 3))


def upsample(score_map: ScoreMap, grid: tuple[int, int], stride: float) -> LevelScores:
    """The score at the location of each code, (B, 1, h', w') -> (B, h, w) (section 4.2).

    Nearest: a code takes the score of the patch whose block of ``stride`` cells holds its centre.
    Rows and columns left over where the map was floored take the last score.

    Args:
        grid: (h, w) of the code grid.
        stride: cells of that grid, possibly a fraction, to one cell of the score map.
    """
    rows, columns = (
        ((torch.arange(cells, device=score_map.device) + 0.5) / stride).long().clamp(max=size - 1)
        for cells, size in zip(grid, score_map.shape[2:], strict=True)
    )
    return score_map[:, 0, rows[:, None], columns]


def intermediate(
    score_map: ScoreMap, grids: Sequence[tuple[int, int]], strides: Sequence[float]
) -> CellScores:
    """The score of every cell of every level, (B, 1, h', w') -> (B, cells), levels in turn.

    Args:
        grids: (h, w) of each level.
        strides: for each level, its cells to one cell of the score map.
    """
    maps = [upsample(score_map, g, s).flatten(1) for g, s in zip(grids, strides, strict=True)]
    return torch.cat(maps, 1)


def control(score_map: ScoreMap, source: str, rngs: Sequence[np.random.Generator]) -> ScoreMap:
    """The score map that a control arm pays instead; shape, device and dtype are kept.

    Args:
        score_map: normalised, (B, 1, h', w').
        source: "discriminator" (unchanged), "constant" (ones), "random" (uniform in [-1, 1)), or
            "shuffled" (permuted over the batch, so that each canvas has another's).
        rngs: a generator for each canvas. Under "random" each draws the map of its canvas; under
            "shuffled" the first draws the permutation.

    Raises:
        ValueError: if the source is unknown, or a batch of one is to be shuffled.
    """
    if source == "discriminator":
        return score_map
    if source == "constant":
        return torch.ones_like(score_map)
    if source == "random":
        noise = np.stack([rng.uniform(-1, 1, tuple(score_map.shape[1:])) for rng in rngs])
        return torch.from_numpy(noise).to(score_map)
    if source == "shuffled":
        if len(score_map) < 2:
            raise ValueError(
                "reward_source='shuffled' needs two or more canvases that finish together, got 1: "
                "use a vector environment with num_envs of at least 2"
            )
        return score_map[torch.from_numpy(rngs[0].permutation(len(score_map)))]
    raise ValueError(f"reward_source={source!r}, expected one of {REWARD_SOURCES}")

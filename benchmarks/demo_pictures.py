"""The demo's pictures: samples, learning curves, an episode, completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import ral_env  # noqa: F401  registers the ids
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from benchmarks import plots
from ral_env.nets import joint
from ral_env.picture import to_bytes

PANELS = ["reward", "auc", "entropy", "validation NLL"]  # of the learning curves


def sample_grids(
    evaluator: Evaluator,
    priors: Mapping[str, TemperedPrior],
    seed: int,
    path: Path,
    count: int = 32,
) -> None:
    """Save held-out reconstructions beside samples of each prior, {title: prior}."""
    held_out = [grid[:count] for grid in evaluator.held_out]
    grids = {"real, reconstructed (test)": _pixels(evaluator, held_out)}
    for label, prior in priors.items():
        grids[label] = _pixels(evaluator, evaluator.sample(prior, count, seed))
    plots.labelled_grids(grids, path)


def learning_curves(curves: Mapping[str, list[dict[str, float]]], path: Path) -> None:
    """Save what each arm's rows, {label: rows}, tell of :data:`PANELS`."""
    rows: list[dict[str, Any]] = [
        {"label": label, **row} for label, curve in curves.items() for row in curve
    ]
    plots.learning_curves(rows, PANELS, path)


def episode(
    evaluator: Evaluator, env: str, prior: TemperedPrior, seed: int, path: Path, every: int = 2
) -> None:
    """Save the frames of one episode of an id, one for each ``every`` rows of each level."""
    canvas = gym.make(env, render_mode="rgb_array")
    canvas.reset(seed=seed)
    frames = [canvas.render()]
    for grid in evaluator.sample(prior, 1, seed):
        for row, line in enumerate(grid[0].tolist()):
            for code in line:
                canvas.step(code)
            if (row + 1) % every == 0:
                frames.append(canvas.render())
    canvas.close()
    halved = np.stack([np.asarray(frame)[::2, ::2] for frame in frames])
    plots.image_grid(halved.transpose(0, 3, 1, 2), path, columns=len(frames), scale=1)


def completions(
    evaluator: Evaluator, prior: TemperedPrior, seed: int, path: Path, count: int = 6
) -> None:
    """Save held-out images whose lower five eighths a prior has written anew, four times each."""
    layout = evaluator.bundle.layout
    given_rows = layout.rows * 3 // 8
    originals = [grid[:count] for grid in evaluator.held_out]
    prefix = layout.flatten(originals)
    prefix[:, ~layout.head(given_rows)] = layout.empty
    pixels = _pixels(evaluator, originals)
    masked = pixels.copy()
    masked[:, :, masked.shape[2] * given_rows // layout.rows :] = 128
    written = []
    for i in range(4):
        generator = torch.Generator().manual_seed(seed + i)
        codes = joint.sample(prior.priors, layout.unflatten(prefix), generator=generator)
        written.append(_pixels(evaluator, codes))
    plots.completions(pixels, masked, written, path)


def _pixels(evaluator: Evaluator, grids: Sequence[Tensor]) -> np.ndarray:
    """Decoded codes, uint8 (N, 3, H, W)."""
    return to_bytes(evaluator.images(grids))

"""Stage 3: priors, one per level, learn the codes by maximum likelihood; and simple baselines."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.training.files import Row
from agents.training.fit import CodeGrid, PriorTraining, fit_priors, mean_nll
from pretrain.codes import SplitCodes
from pretrain.stages import SHOWN, Pretraining
from ral_env.nets import VQVAE, Mixture, PixelCNN, PixelCNNConfig, joint
from ral_env.picture import mean_child_vectors, paint, tiled

BLOCK = 2**14  # number of canvases whose codes are counted at a time


def make_priors(
    run: Pretraining, vqvae: VQVAE, codes: SplitCodes
) -> tuple[Sequence[Any], dict[str, Any]]:
    """The stage: train the recipe's priors on the real codes, or take over those of its base.

    Returns:
        The priors, one per level, and their figures: nats per code on the validation codes, of the
        priors and of both baselines, one per level (``validation_nats_per_code``,
        ``previous_row_nats_per_code``, ``unigram_nats_per_code``); ``test_nats`` (nats per canvas
        of the test codes); ``curves`` (a list of rows per level); with a base ``taken_from``, its
        edition: then nothing is trained, and there are no curves.
    """
    recipe = run.recipe
    if run.base is None:
        priors, curves = train_priors(
            run, "prior", recipe.priors, recipe.prior_trainings, vqvae, codes
        )
        best = [min(row["validation_nats_per_code"] for row in rows) for rows in curves]
    else:
        priors, curves = run.base.priors, []
        best = validation_nats(priors, codes.grids["validation"])
    num_codes = recipe.vqvae.num_codes
    levels = list(zip(codes.grids["train"], codes.grids["validation"], strict=True))
    metrics = {
        "validation_nats_per_code": best,
        "previous_row_nats_per_code": [previous_row_nats(*level, num_codes) for level in levels],
        "unigram_nats_per_code": [unigram_nats(*level, num_codes) for level in levels],
        "test_nats": -joint.total_log_prob(priors, codes.grids["test"]).mean().item(),
    }
    if run.base is not None:
        metrics = {"taken_from": run.base.edition} | metrics
    run.folder.say("priors", metrics)
    return priors, metrics | {"curves": curves}


def validation_nats(priors: Sequence[Any], validation: Sequence[Tensor]) -> list[float]:
    """Nats per code, a level each, of validation codes (n, h, w), given the real level above."""
    above = [None, *validation[:-1]]
    levels = zip(priors, validation, above, strict=True)
    return [mean_nll(prior, grid, given) / grid[0].numel() for prior, grid, given in levels]


def train_priors(
    run: Pretraining,
    stage: str,
    configs: Sequence[PixelCNNConfig],
    trainings: Sequence[PriorTraining],
    vqvae: VQVAE,
    codes: SplitCodes,
    styles: tuple[Tensor, Tensor] | None = None,
) -> tuple[list[Any], list[list[Row]]]:
    """Train one prior per level, the coarsest first; warn of those that overfit.

    Args:
        run: The run.
        stage: ``prior`` or ``oracle``: the name of the files, with the level's number.
        configs: Sizes of the nets, one per level.
        trainings: How they learn, one per level.
        vqvae: Decodes samples for the pictures.
        codes: The real codes.
        styles: For a mixture, the styles of the train and validation images, int64 (n, 1, 1).

    Returns:
        The nets, and the rows of their learning curves.
    """
    train, validation = codes.grids["train"], codes.grids["validation"]
    child_vectors = (
        mean_child_vectors(vqvae, [grid[:200] for grid in validation]) if len(configs) > 1 else None
    )

    @torch.no_grad()
    def draw(coarser: Sequence[Any], prior: PixelCNN | Mixture) -> np.ndarray:
        """Samples of a prior, given the coarser levels' samples; finer levels are left open."""
        device = next(prior.parameters()).device
        generator = torch.Generator(device).manual_seed(run.seed)
        nets = [*(net.to(device) for net in coarser), prior]
        grids = [grid.cpu() for grid in joint.draw(nets, SHOWN, generator)]
        for config in configs[len(nets) :]:
            grids.append(torch.full((SHOWN, *config.grid), config.num_codes))
        images = paint(vqvae, grids, configs[0].num_codes, child_vectors)
        return tiled(images.transpose(0, 3, 1, 2), SHOWN, fill=255)

    def options(level: int, coarser: list[Any]) -> dict[str, Any]:
        return run.optimiser_options(f"{stage}_{level}", lambda prior: draw(coarser, prior))

    priors, curves = fit_priors(
        configs,
        train,
        validation,
        trainings,
        seed=run.seed,
        styles=styles,
        finish=lambda prior: run.rounded(prior.cpu()),
        options=options,
    )
    for level, rows in enumerate(curves):
        warn_of_overfitting(rows, f"{stage}_{level}")
    return priors, curves


def warn_of_overfitting(rows: Sequence[Row], name: str) -> None:
    """Warn if the last validation is more than 2 % above the best."""
    best = min(rows, key=lambda row: row["validation_nats_per_code"])
    last = rows[-1]["validation_nats_per_code"]
    if last > 1.02 * best["validation_nats_per_code"]:
        warnings.warn(
            f"{name} overfits: validation was best at step {best['step']:.0f} with "
            f"{best['validation_nats_per_code']:.4f} nats per code (those weights are kept) "
            f"and {last:.4f} at the end. Try more dropout, weight_decay, a smaller net, fewer "
            "steps (patience stops by itself), or more images",
            stacklevel=4,
        )


# --- baselines: what a prior must beat ---


def unigram_nats(train: CodeGrid, validation: Tensor, num_codes: int) -> float:
    """Nats per code of the validation codes (n, h, w) under the train codes' frequencies."""
    counts = torch.ones(num_codes)
    for first in range(0, len(train), BLOCK):
        counts += torch.bincount(train[first : first + BLOCK].flatten(), minlength=num_codes)
    return -(counts / counts.sum()).log()[validation].mean().item()


def previous_row_nats(
    train: CodeGrid, validation: Tensor, num_codes: int, weight: float = 10.0
) -> float:
    """Nats per code under the train codes' frequencies given the code in the row above.

    Args:
        train: int64 grids (N, h, w).
        validation: int64 grids (n, h, w).
        num_codes: Number of different codes.
        weight: Number of observations as which the plain frequencies count beside those given the
            code above. First rows have the plain frequencies only.
    """
    pairs = torch.zeros(num_codes * num_codes)
    counts = torch.ones(num_codes)
    for first in range(0, len(train), BLOCK):
        part = train[first : first + BLOCK]
        counts += torch.bincount(part.flatten(), minlength=num_codes)
        above = (part[:, :-1] * num_codes + part[:, 1:]).flatten()
        pairs += torch.bincount(above, minlength=num_codes * num_codes)
    plain = counts / counts.sum()
    table = pairs.view(num_codes, num_codes)
    given = (table + weight * plain) / (table.sum(1, keepdim=True) + weight)
    nats = torch.cat(
        [
            -plain.log()[validation[:, 0]].flatten(),
            -given.log()[validation[:, :-1], validation[:, 1:]].flatten(),
        ]
    )
    return nats.mean().item()

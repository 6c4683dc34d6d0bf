"""Stage 4: discriminators, of codes and of images, learn to tell real ones from the priors'."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agents.training.discriminator import Adversary, DiscriminatorTraining
from agents.training.fit import CodeGrid
from agents.training.progress import progress_bar
from pretrain.codes import SplitCodes
from pretrain.configs import Recipe
from pretrain.stages import Pretraining
from ral_env.nets import VQVAE, PatchGAN, PatchGANConfig, PixelCNN, joint

DECODED = 128  # number of canvases that are decoded together


Trained = tuple[PatchGAN, float]  # a discriminator and its reward scale


def train_discriminators(
    run: Pretraining, vqvae: VQVAE, priors: Sequence[Any], codes: SplitCodes
) -> tuple[dict[str, Trained], dict[str, dict[str, float]]]:
    """The stage: train the recipe's discriminators.

    Returns:
        By what they are given, first that which environments score with: each discriminator with
        its reward scale; and the figures of each, see :func:`fit`.
    """
    found: dict[str, Trained] = {}
    metrics: dict[str, dict[str, float]] = {}
    for number, (kind, stage) in enumerate(run.recipe.discriminators.items()):
        name = f"discriminator_{kind}" if number else "discriminator"

        def make(kind: str = kind, name: str = name) -> dict[str, Any]:
            label = run.progress_label(name)
            net, scale, figures = fit_recipe(
                run.recipe, kind, vqvae, priors, codes, run.seed, label
            )
            return {"weights": net.state_dict(), "scale": scale, "metrics": figures}

        made = run.folder.once(name, make)
        net = PatchGAN(stage.net).eval()
        net.load_state_dict(made["weights"])
        run.folder.say(name, made["metrics"])
        found[kind], metrics[kind] = (run.rounded(net), made["scale"]), made["metrics"]
    return found, metrics


def fit_recipe(
    recipe: Recipe,
    kind: Any,
    vqvae: VQVAE,
    priors: Sequence[Any],
    codes: SplitCodes,
    seed: int,
    label: str,
) -> tuple[PatchGAN, float, dict[str, float]]:
    """:func:`fit` with the settings of a recipe's discriminator that is given ``kind``."""
    stage = recipe.discriminators[kind]
    return fit(
        stage.net,
        kind,
        vqvae,
        priors,
        codes.grids["train"],
        codes.grids["validation"],
        stage.training,
        fakes=recipe.fakes,
        spoilt=recipe.spoilt,
        batch=stage.batch,
        max_steps=stage.steps,
        seed=seed,
        label=label,
    )


def fit_bundle(
    recipe: Recipe,
    vqvae: VQVAE,
    priors: Sequence[Any],
    codes: SplitCodes,
    seed: int,
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """All discriminators of a recipe, outside a run that could be cut; rounded if it says so.

    Returns:
        The fields of a :class:`~ral_env.bundle.Bundle` that hold them; and the figures of each, see
        :func:`fit`.
    """
    found: dict[str, Trained] = {}
    figures: dict[str, dict[str, float]] = {}
    for kind in recipe.discriminators:
        label = f"discriminator of {kind}"
        net, scale, figures[kind] = fit_recipe(recipe, kind, vqvae, priors, codes, seed, label)
        found[kind] = (net.half().float() if recipe.half else net), scale
    (kind, (net, scale)), *others = found.items()
    fields = {"discriminator": net, "discriminator_input": kind, "reward_scale": scale}
    return fields | {"other_discriminators": dict(others)}, figures


@torch.no_grad()
def fit(
    config: PatchGANConfig,
    kind: str,
    vqvae: VQVAE,
    priors: Sequence[PixelCNN],
    train: Sequence[CodeGrid],
    validation: Sequence[Tensor],
    training: DiscriminatorTraining,
    fakes: int = 4096,
    spoilt: float = 0.0,
    batch: int = 128,
    check_every: int = 50,
    patience: int = 6,
    max_steps: int = 2000,
    seed: int = 0,
    label: str = "",
) -> tuple[PatchGAN, float, dict[str, float]]:
    """Train until the AUC on held-out codes, real and fake, no longer rises; keep the best net.

    Args:
        config: Sizes of the net.
        kind: What it is given of codes: ``image`` or ``codes``, see :meth:`VQVAE.represent`.
        vqvae: Decodes codes or looks them up.
        priors: One per level; their samples are the fake codes.
        train, validation: Real codes, int64 (N, h, w), one grid per level; the first are only
            indexed.
        training: How it learns.
        fakes: Number of canvases to sample from the priors; an eighth of them is held out.
        spoilt: Share of the others that are spoilt, see :func:`spoil`.
        batch: Number of real canvases, and of fake ones, per update.
        check_every: Number of updates between AUCs.
        patience: Number of AUCs without a new best before training stops.
        max_steps: Largest number of updates.
        seed: Seed of the weights, the fakes and the batches.
        label: Name of the progress bar; none is shown if empty.

    Returns:
        The net; the reward scale (the largest absolute score over held-out real and fake inputs, as
        paper section 4.4 normalises); and ``auc`` and ``steps`` of the net.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sampled = joint.draw(priors, fakes, generator)
    fake_validation = [grid[: fakes // 8] for grid in sampled]
    fake_train = [grid[fakes // 8 :] for grid in sampled]
    if bad := int(spoilt * len(fake_train[0])):
        spoils = spoil([grid[:bad] for grid in fake_train], vqvae.config.num_codes, generator)
        fake_train = [
            torch.cat([new, grid[bad:]]) for new, grid in zip(spoils, fake_train, strict=True)
        ]
    adversary = Adversary(PatchGAN(config), training, codec=vqvae, input=kind)

    def sample_inputs(grids: Sequence[CodeGrid]) -> Tensor:
        index = torch.randint(len(grids[0]), (batch,), generator=generator)
        return adversary.inputs([grid[index] for grid in grids], DECODED)

    real_held_out = adversary.inputs(validation, DECODED)
    fake_held_out = adversary.inputs(fake_validation, DECODED)
    best, best_state, since_best, best_step = -1.0, {}, 0, 0
    bar = progress_bar(max_steps, label, "step")
    for step in range(1, max_steps + 1):
        real, fake = sample_inputs(train), sample_inputs(fake_train)
        with torch.enable_grad():
            losses = adversary.update(real, fake)
        bar.update()
        if step % check_every == 0 or step == max_steps:
            auc = adversary.held_out_auc(real_held_out, fake_held_out)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            bar.tell(f"AUC {auc:.3f}, {shown}")
            since_best += 1
            if auc > best:
                best, since_best, best_step = auc, 0, step
                best_state = copy.deepcopy(adversary.net.state_dict())
            if since_best >= patience:
                break
    bar.close()
    net: Any = adversary.net
    net.load_state_dict(best_state)
    net.eval()
    maps = adversary.score_maps(real_held_out, fake_held_out)
    scale = torch.cat([scores.flatten() for scores in maps]).abs().max().item()
    return net, scale, {"auc": best, "steps": best_step}


def spoil(
    grids: Sequence[Tensor], num_codes: int, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Canvases some of whose codes are random: a share of each that is uniform between 0 and 1.

    Args:
        grids: int64 codes (N, h, w), a grid a level; they are left as they are.
        num_codes: Random codes are below it.
        generator: Source of all noise.
    """
    share = torch.rand(len(grids[0]), 1, 1, generator=generator)

    def random(grid: Tensor) -> Tensor:
        return torch.randint(num_codes, grid.shape, generator=generator)

    return [
        torch.where(torch.rand(grid.shape, generator=generator) < share, random(grid), grid)
        for grid in grids
    ]

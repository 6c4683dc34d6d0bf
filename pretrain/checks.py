"""What can be known before the first step: settings that go together, files that can be written."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pretrain.configs import Recipe
from pretrain.data import Images
from pretrain.pictures import pool_for
from ral_env.bundle import codes_dtype
from ral_env.files import check_room
from ral_env.nets import VQVAE, FeatureNet, Mixture, MixtureConfig, PatchGAN, PixelCNN

# A stage's checkpoint: the weights, their average, the best of them, and Adam's two moments.
CHECKPOINT = 5


def check_recipe(recipe: Recipe, processes: int = 1) -> None:
    """See that all nets of a recipe fit each other, and that every batch can be shared.

    Args:
        processes: How many train together.

    Raises:
        ValueError: Says of each setting that does not fit what was expected, as ``--set`` calls it.
    """
    wrong = [*_nets_of_levels(recipe), *_discriminators(recipe), *_batches(recipe, processes)]
    if wrong:
        raise ValueError(
            f"settings of recipe {recipe.name!r} do not go together: {'; '.join(wrong)}"
        )
    nets_of(recipe)


def check_packages() -> None:
    """See that the packages are there that only pretraining needs.

    Raises:
        ValueError: If one is not; says how to get it.
    """
    for name in ("vector_quantize_pytorch", "torchmetrics"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"pretraining needs the package {name}: pip install 'ral-env[pretrain]'"
            )


def check_disk(recipe: Recipe, images: Images, out: Path, work: Path) -> None:
    """See that there is room for what a run leaves, in folders that are there.

    Raises:
        DiskError: If there is none.
    """
    weights = sum(value.nbytes for net in nets_of(recipe) for value in net.state_dict().values())
    cells = sum(math.prod(grid) for grid in recipe.vqvae.grids)
    codes = len(images.whole) * cells * np.dtype(codes_dtype(recipe.vqvae.num_codes)).itemsize
    check_room(work, CHECKPOINT * weights + codes, "the run's checkpoints and codes")
    check_room(out.parent, weights, f"bundle {out.name}")


def nets_of(recipe: Recipe) -> list[nn.Module]:
    """All nets of a recipe, without weights (on ``meta``), which have been tried on an image.

    Raises:
        ValueError: If one cannot be built or does not take what it is given.
    """
    vqvae, pool = recipe.vqvae, pool_for(recipe.vqvae.image_size)
    image = torch.empty(1, 3, vqvae.image_size, vqvae.image_size, device="meta")
    finest = vqvae.grids[-1]
    vectors = torch.empty(1, vqvae.code_dim * vqvae.levels, *finest, device="meta")
    small = [-(-vqvae.image_size // pool)] * 2
    trials: list[tuple[str, Any, Any, torch.Tensor | None]] = [("vqvae", VQVAE, vqvae, None)]
    for name, configs in (("priors", recipe.priors), ("oracles", recipe.oracles)):
        for level, config in enumerate(configs):
            kind = Mixture if isinstance(config, MixtureConfig) else PixelCNN
            trials.append((f"{name}.{level}", kind, config, None))
    for given, stage in recipe.discriminators.items():
        shown = image if given == "image" else vectors
        trials.append((f"the discriminator of {given}", PatchGAN, stage.net, shown))
    features = [recipe.features, recipe.selfsupervised and recipe.selfsupervised.net]
    for config in filter(None, features):
        trials.append((config.name, FeatureNet, config, torch.empty(1, 3, *small, device="meta")))
    return [_tried(*trial) for trial in trials]


def _tried(name: str, kind: Any, config: Any, shown: torch.Tensor | None) -> nn.Module:
    try:
        with torch.device("meta"):
            net = kind(config).eval()
            if shown is not None:
                net(shown)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot be with these settings, {config}: {error}") from error
    return net


def _nets_of_levels(recipe: Recipe) -> Iterator[str]:
    """What does not fit the VQ-VAE's grids of priors and oracles."""
    vqvae = recipe.vqvae
    grids: list[Any] = list(vqvae.grids)
    for name, configs in (("priors", recipe.priors), ("oracles", recipe.oracles)):
        if not configs and name == "oracles":
            continue
        if len(configs) != vqvae.levels:
            yield f"{len(configs)} {name}, expected {vqvae.levels}, as many as vqvae.levels"
            continue
        for level, (config, above) in enumerate(zip(configs, [None, *grids[:-1]], strict=True)):
            expected = {
                "num_codes": (vqvae.num_codes, "as vqvae.num_codes"),
                "grid": (grids[level], "the VQ-VAE's grid"),
                "condition_grid": (above, "the grid of the level above"),
            }
            for field, (value, of) in expected.items():
                if (found := getattr(config, field)) != value:
                    yield f"{name}.{level}.{field}={found}, expected {value}, {of}"


def _discriminators(recipe: Recipe) -> Iterator[str]:
    """What does not fit the inputs of discriminators."""
    vqvae = recipe.vqvae
    channels = {"image": 3, "codes": vqvae.code_dim * vqvae.levels}
    sides = {"image": vqvae.image_size, "codes": vqvae.grids[-1][0]}
    for number, (given, stage) in enumerate(recipe.discriminators.items()):
        name = "other_discriminator.net" if number else "discriminator"
        training = "other_discriminator.training" if number else "discriminator_training"
        why = {"image": "images", "codes": "the codebook vectors of all levels"}[given]
        if (found := stage.net.in_channels) != channels[given]:
            yield (
                f"{name}.in_channels={found}, expected {channels[given]}: it is given {why} "
                f"(discriminator_input={recipe.discriminator_input})"
            )
        if 2**stage.net.layers > sides[given]:
            yield (
                f"{name}.layers={stage.net.layers}, expected at most "
                f"{sides[given].bit_length() - 1}: it is given {why}, {sides[given]} cells a side"
            )
        if stage.training.shift >= sides[given]:
            yield f"{training}.shift={stage.training.shift}, expected less than {sides[given]}"
    if recipe.vqvae_training.shift >= vqvae.image_size:
        yield f"vqvae_training.shift={recipe.vqvae_training.shift}, expected less than the image"


def _batches(recipe: Recipe, processes: int) -> Iterator[str]:
    """Which batches cannot be shared out evenly."""
    trainings: dict[str, Any] = {"vqvae_training": recipe.vqvae_training}
    learnt = ["oracle_trainings"] if recipe.base else ["prior_trainings", "oracle_trainings"]
    for name in learnt:
        trainings |= {f"{name}.{n}": one for n, one in enumerate(getattr(recipe, name))}
    for name, training in trainings.items():
        shares = processes * training.accumulate
        if training.batch % shares:
            yield (
                f"{name}.batch={training.batch}, expected a multiple of {shares}: {processes} "
                f"processes, accumulate={training.accumulate}"
            )

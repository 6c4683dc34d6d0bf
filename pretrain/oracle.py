"""The oracle: a prior of the images' codes whose samples are the real codes (paper section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pretrain.codes import SplitCodes
from pretrain.configs import Recipe
from pretrain.data import Images
from pretrain.priors import train_priors
from pretrain.stages import Pretraining
from ral_env.layout import CodeLayout
from ral_env.nets import VQVAE, MixtureConfig, joint

Styles = tuple[Tensor, Tensor]  # of the train and the validation images, int64 (n, 1, 1)


def known_styles(recipe: Recipe, images: Images) -> Styles | None:
    """The images' styles, as grids of one cell; None if no net of the oracle is a mixture.

    Raises:
        ValueError: If a mixture needs styles and the images have none, or another number of them.
    """
    mixtures = [config for config in recipe.oracles if isinstance(config, MixtureConfig)]
    if not mixtures:
        return None
    if images.styles is None:
        raise ValueError(
            f"the oracle of recipe {recipe.name!r} is a mixture and has to be told each image's "
            f"style, but {images.name} have none: leave --data out, or choose another recipe"
        )
    count = 1 + max(int(numbers.max()) for numbers in images.styles.values())
    if any(count != config.styles for config in mixtures):
        raise ValueError(
            f"oracle.styles={mixtures[0].styles}, expected {count}: as many as the {images.name} "
            "have"
        )
    train, validation = (
        torch.from_numpy(images.styles[split]).view(-1, 1, 1) for split in ("train", "validation")
    )
    return train, validation


def make_oracle(
    run: Pretraining, vqvae: VQVAE, codes: SplitCodes, styles: Styles | None
) -> tuple[Sequence[Any], SplitCodes, dict[str, Any]]:
    """The stage: train the recipe's oracle on the images' codes and sample it.

    Args:
        run: The run.
        vqvae: Decodes samples for the pictures.
        codes: Those of the images.
        styles: See :func:`known_styles`.

    Returns:
        The oracle's nets, one per level; its samples, the real codes from now on; and its figures:
        ``entropy`` (nats per canvas, on the test samples) and ``curves`` (a list of rows per
        level).
    """
    recipe = run.recipe
    oracles, curves = train_priors(
        run, "oracle", recipe.oracles, recipe.oracle_trainings, vqvae, codes, styles
    )
    generator = torch.Generator().manual_seed(run.seed + 1)
    samples = run.folder.once(
        "oracle_codes",
        lambda: {"grids": joint.draw(oracles, recipe.oracle_samples, generator)},
    )["grids"]
    layout = CodeLayout(recipe.vqvae.grids, recipe.vqvae.num_codes)
    sampled = SplitCodes.of_samples(samples, layout)
    entropy = -joint.total_log_prob(oracles, sampled.grids["test"]).mean().item()
    return oracles, sampled, {"entropy": entropy, "curves": curves}

"""What ``ral pretrain`` prints where no recipe is named: a table of all recipes."""

from __future__ import annotations

import torch

from pretrain.configs import Recipe
from pretrain.recipes import RECIPES
from ral_env.nets import VQVAE, PatchGAN, PixelCNN
from ral_env.nets.unfilled import unfilled
from ral_env.tables import markdown_table

# Minutes from images to bundle, as measured with one thread (the default) on one of two cores, the
# other of which was seldom idle.
MINUTES = {
    "digits": 10,
    "mnist": 47,
    "faces32": 68,
    "faces64": 34,
    "faces64wide": 32,
    "faces64fine": 50,
    "faces128top": 45,
    "faces128": 131,
    "faces256": 175,
    "oracle": 17,
    "oracle16": 39,
    "oracle-two-level": 45,
}

HEADINGS = {
    "recipe": "recipe",
    "size": "image size",
    "grids": "grids",
    "codes": "codes",
    "vqvae": "VQ-VAE",
    "priors": "priors",
    "discriminator": "discriminator",
    "source": "images",
    "minutes": "minutes",
}
NOTE = """
Sizes of nets are millions of parameters. Minutes are from images to bundle on one core, where that
was measured. Priors `of` a bundle are copied from it, as its codes are: a decoder alone learns.
`faces`, `tinted-faces` and `digits` are made; all other images are given by `--data`, and so is any
folder, to any recipe: `ral pretrain --recipe small64 --data FOLDER`."""


def recipe_table() -> str:
    """All recipes, a line each: sizes of images, grids, codebook and nets, source, minutes."""
    return markdown_table(
        [_row(recipe) for recipe in RECIPES.values()], list(HEADINGS), HEADINGS
    ) + ("\n" + NOTE)


def _row(recipe: Recipe) -> dict[str, str]:
    with unfilled():  # sizes alone
        vqvae, discriminator = VQVAE(recipe.vqvae), PatchGAN(recipe.discriminator)
        priors = [PixelCNN(config) for config in recipe.priors]
    return {
        "recipe": recipe.name,
        "size": str(recipe.vqvae.image_size),
        "grids": " + ".join(f"{h}x{w}" for h, w in recipe.vqvae.grids),
        "codes": str(recipe.vqvae.num_codes),
        "vqvae": _millions(vqvae),
        "priors": " + ".join(map(_millions, priors))
        + (f" of {recipe.base}" if recipe.base else ""),
        "discriminator": _millions(discriminator),
        "source": recipe.source,
        "minutes": str(MINUTES.get(recipe.name, "")),
    }


def _millions(net: torch.nn.Module) -> str:
    """Number of a net's parameters, to two figures after the point or, from 10 million on, none."""
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    return f"{millions:.2f}" if millions < 10 else f"{millions:.0f}"

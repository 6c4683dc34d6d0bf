"""A bundle's discriminators anew, by today's recipe; its codes, VQ-VAE, priors and features stay.

    python -m pretrain.renew --bundle_name faces32 --out runs/faces32

The bundle is another edition then, of the next version: its rewards are others.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from pretrain.codes import SplitCodes
from pretrain.configs import Recipe
from pretrain.discriminator import fit_bundle
from pretrain.recipes import recipe_of
from ral_env import bundle
from ral_env.ranges import SEED, THREADS, check_values


def renew(made: bundle.Bundle, recipe: Recipe, seed: int, out: Path) -> Path:
    """Train a bundle's discriminators on the codes that it holds and write the bundle ``out``.

    Args:
        made: A bundle from a folder, one that `ral pretrain` made.
        recipe: Says how discriminators learn.
        seed: Seed of everything new.
        out: Folder of the new bundle.

    Returns:
        The new bundle's path.

    Raises:
        ValueError: If the bundle was not read from a folder, or its version is no number.
    """
    if made.path is None or not (made.version or "0").isdecimal():
        raise ValueError(
            f"bundle {made.name!r} of version {made.version!r}: expected one from a folder, whose "
            "version is a number, so that it can be counted on"
        )
    splits = {name: made.layout.as_grids(made.split(name)) for name in made.splits}
    codes = SplitCodes(made.flat_codes, dict(made.splits), splits)

    discriminators, figures = fit_bundle(recipe, made.vqvae, made.priors, codes, seed)
    version = str(int(made.version or 0) + 1)
    renewed = dataclasses.replace(made, **discriminators, version=version)
    metrics = {**made.manifest["metrics"], "discriminators": figures}
    return bundle.save(out, renewed, metrics=metrics, half=recipe.half)


def command(bundle_name: str, out: str, seed: int = 0, threads: int = 1) -> None:
    """Train a bundle's discriminators anew, by the recipe of its name.

    Args:
        bundle_name: Name or path of the bundle.
        out: Folder of the new bundle.
        seed: Seed of everything new.
        threads: Number of torch's threads.
    """
    check_values(locals(), seed=SEED, threads=THREADS)
    torch.set_num_threads(threads)
    made = bundle.load(bundle_name)
    print(f"wrote {renew(made, recipe_of(made), seed, Path(out))}")


def main(argv: list[str] | None = None) -> None:
    """Run the command; ``argv`` are its arguments, those of the process if None."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="pretrain.renew", as_positional=False)


if __name__ == "__main__":
    main()

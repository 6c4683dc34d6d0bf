"""The same experiment with other data: a new training set and prior from a bundle's oracle.

    python -m pretrain.redraw --bundle_name oracle --seed 1 --out runs/oracle-seed1

VQ-VAE, oracle and feature nets stay, so that results can be compared; the codes that the prior
learns, the prior, the discriminators and the features of the test codes are new. What was tuned on
one can be reported on another.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from agents.training.fit import fit_priors
from pretrain.codes import SplitCodes
from pretrain.configs import Recipe
from pretrain.discriminator import fit_bundle
from pretrain.features import stored_features
from pretrain.recipes import recipe_of
from pretrain.run import VERSION
from ral_env import bundle
from ral_env.migrations import old_names
from ral_env.nets import joint
from ral_env.ranges import SEED, THREADS, check_values

__getattr__ = old_names("pretrain.redraw")


def redraw_oracle(made: bundle.Bundle, recipe: Recipe, seed: int, out: Path) -> Path:
    """Sample the oracle anew, train a prior and discriminators on it, write the bundle ``out``.

    Args:
        made: A bundle with an oracle.
        recipe: The recipe that it was made by.
        seed: Seed of everything new.
        out: Folder of the new bundle.

    Returns:
        The new bundle's path.

    Raises:
        ValueError: If the bundle has no oracle, or its nets cannot be saved.
    """
    if not made.oracles:
        raise ValueError(
            f"bundle {made.name!r} has no oracle, so nothing new can be drawn from it: "
            "expected a bundle of one of the oracle recipes"
        )
    if not bundle.storable(made):
        raise ValueError(
            f"bundle {made.name!r} has nets without configs, from which no file can make them "
            "again: expected a bundle that `ral pretrain` made"
        )
    # Not the seeds that `ral pretrain` samples with.
    generator = torch.Generator().manual_seed(1000 + seed)
    samples = joint.draw(made.oracles, recipe.oracle_samples, generator)
    codes = SplitCodes.of_samples(samples, made.layout)

    def rounded(net: Any) -> Any:
        return net.half().float() if recipe.half else net

    priors, curves = fit_priors(
        recipe.priors,
        codes.grids["train"],
        codes.grids["validation"],
        recipe.prior_trainings,
        seed=seed,
        finish=rounded,
        options=lambda level, coarser: {"label": f"prior_{level}"},
    )
    discriminators, figures = fit_bundle(recipe, made.vqvae, priors, codes, seed)
    nats = {
        name: -joint.total_log_prob(nets, codes.grids["test"]).mean().item()
        for name, nets in (("prior", priors), ("oracle", made.oracles))
    }
    redrawn = dataclasses.replace(
        made,
        **discriminators,
        policies=(),
        test_features=stored_features(made.feature_nets, made.vqvae, codes),
        version=VERSION,
        priors=tuple(priors),
        flat_codes=codes.flat,
        splits=codes.splits,
        recipe=dict(made.recipe) | {"redrawn_with_seed": seed},
    )
    metrics = {
        "priors": {"test_nats": nats["prior"], "curves": curves},
        "oracle": {"entropy": nats["oracle"]},
        "discriminators": figures,
    }
    return bundle.save(out, redrawn, metrics=metrics, half=recipe.half)


def command(seed: int, out: str, bundle_name: str = "oracle", threads: int = 1) -> None:
    """Make the same experiment with other data.

    Args:
        seed: Seed of everything new.
        out: Folder of the new bundle.
        bundle_name: Name or path of a bundle with an oracle.
        threads: Number of torch's threads.
    """
    check_values(locals(), seed=SEED, threads=THREADS)
    torch.set_num_threads(threads)
    made = bundle.load(bundle_name)
    print(f"wrote {redraw_oracle(made, recipe_of(made), seed, Path(out))}")


def main(argv: list[str] | None = None) -> None:
    """Run the command; ``argv`` are its arguments, those of the process if None."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="pretrain.redraw", as_positional=False)


if __name__ == "__main__":
    main()

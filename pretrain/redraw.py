"""The same experiment with other data: a new training set and prior from a bundle's oracle.

    python -m pretrain.redraw --bundle_name oracle --seed 1 --out runs/oracle-seed1

Tokeniser, oracle and feature net stay, so that results can be compared; the codes that the prior
learns from, the prior and the discriminator are new. What was tuned on one can be reported on
another.
"""

from __future__ import annotations

from pathlib import Path

import torch

from agents.training.fit import fit_prior
from pretrain import discriminator
from pretrain.recipes import RECIPES, Recipe
from pretrain.run import split_samples
from ral_env import bundle
from ral_env.nets import PixelCNN, joint


def redraw(made: bundle.Bundle, recipe: Recipe, seed: int, out: Path) -> Path:
    """Sample the oracle anew, train a prior and a discriminator on it, write the bundle ``out``.

    Args:
        made: a bundle with an oracle.
        recipe: that it was made by.
        seed: of everything new.

    Raises:
        ValueError: if the bundle has no oracle.
    """
    if not made.oracles:
        raise ValueError(
            f"bundle {made.name!r} has no oracle, so nothing new can be drawn from it: "
            "expected one of the oracle recipes"
        )
    # Not the seeds that `ral pretrain` samples with.
    generator = torch.Generator().manual_seed(1000 + seed)
    grids = joint.draw(made.oracles, recipe.oracle_samples, generator)  # type: ignore[arg-type]
    codes, splits = split_samples(grids)
    train, validation, test = (codes[name] for name in bundle.SPLITS)

    def stored(net: torch.nn.Module) -> torch.nn.Module:
        return net.half().float() if recipe.half else net

    priors, curves = [], []
    for level, (config, training) in enumerate(
        zip(recipe.priors, recipe.prior_trainings, strict=True)
    ):
        torch.manual_seed(seed)
        prior = PixelCNN(config)
        above = (train[level - 1], validation[level - 1]) if level else None
        curves.append(
            fit_prior(
                prior, train[level], validation[level], training,
                conditions=above, seed=seed, label=f"prior_{level}",
            )
        )  # fmt: skip
        priors.append(stored(prior))
    judge, scale, found = discriminator.fit(
        recipe.discriminator,
        recipe.discriminator_input,
        made.vqvae,
        priors,
        train,
        validation,
        recipe.discriminator_training,
        fakes=recipe.fakes,
        batch=recipe.discriminator_batch,
        max_steps=recipe.discriminator_steps,
        seed=seed,
        label="discriminator",
    )
    oracle_test = joint.total_log_prob(made.oracles, test)
    return bundle.save(
        out,
        vqvae=made.vqvae,
        discriminator=stored(judge),  # type: ignore[arg-type]
        discriminator_input=recipe.discriminator_input,
        reward_scale=scale,
        priors=priors,
        codes=made.layout.flatten([grid.numpy() for grid in grids]),
        splits=splits,
        dataset=made.dataset,
        recipe=dict(made.recipe) | {"redrawn_with_seed": seed},
        metrics={
            "priors": {
                "test_nats": -joint.total_log_prob(priors, test).mean().item(),
                "curves": curves,
            },
            "oracle": {"entropy": -oracle_test.mean().item()},
            "discriminator": found,
        },
        oracles=made.oracles,
        features=made.features,
        half=recipe.half,
    )


def command(seed: int, out: str, bundle_name: str = "oracle", threads: int = 1) -> None:
    """Make the same experiment with other data.

    Args:
        seed: of what is new.
        out: folder of the new bundle.
        bundle_name: a bundle with an oracle, by name or path.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    made = bundle.load(bundle_name)
    name = made.recipe["name"]
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown, expected one of {', '.join(RECIPES)}")
    print(f"wrote {redraw(made, RECIPES[name], seed, Path(out))}")


def main(argv: list[str] | None = None) -> None:
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="pretrain.redraw", as_positional=False)


if __name__ == "__main__":
    main()

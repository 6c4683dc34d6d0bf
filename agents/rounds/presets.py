"""The presets of learning in rounds, and how one is fitted to a bundle."""

from __future__ import annotations

from dataclasses import replace

from agents.rounds.config import Config
from agents.training.discriminator import discriminator_sizes
from ral_env.bundle import Bundle

PRESETS: dict[str, Config] = {
    "small": Config(),
    # Where the bundle's discriminator sees too little, it is the limit: on MNIST its AUC is 0.74,
    # that of this one 0.92, and the policy follows as far as likelihood lets it.
    "long": Config(
        rounds=8,
        discriminator=replace(Config().discriminator, learning_rate=5e-4),
        discriminator_warmup=3_500,
        discriminator_updates=800,
        kl_coef=1.0,  # not past what the weights say: there are enough rounds
        learning_rate=3e-4,  # at 1e-3 a round costs four times the likelihood for the same gain
        updates=300,
    ),
}
# Presets that begin a new discriminator, and how it differs in size from those of bundles.
NEW_DISCRIMINATORS = {"long": {"hidden": 64, "plain_layers": 3}}


def fit_preset(name: str, bundle: Bundle) -> Config:
    """A preset's settings, with a discriminator that fits the bundle.

    ``small`` goes on from the bundle's discriminator, ``long`` begins a new one, twice as wide and
    two layers deeper than those of bundles.

    Args:
        name: A key of :data:`PRESETS`.
        bundle: What is to be fine-tuned.

    Raises:
        ValueError: If there is no such preset, or a new discriminator would see the vectors of a
            codec that cannot show them.
    """
    if name not in PRESETS:
        raise ValueError(f"preset={name!r}, expected one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    if name not in NEW_DISCRIMINATORS:
        return config
    sizes = discriminator_sizes(bundle, config.discriminator_input)
    return replace(config, discriminator_net=replace(sizes, **NEW_DISCRIMINATORS[name]))

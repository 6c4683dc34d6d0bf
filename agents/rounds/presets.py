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
        discriminator_warmup=3_500,
        discriminator_updates=800,
        kl_coef=1.0,  # not past what the weights say: there are enough rounds
        learning_rate=3e-4,  # at 1e-3 a round costs four times the likelihood for the same gain
        updates=300,
    ),
}
WIDE, PLAIN = 64, 3  # channels and plain layers of the discriminator of ``long``
WIDE_RATE = 5e-4


def fit_preset(name: str, bundle: Bundle) -> Config:
    """A preset's settings, with a discriminator that fits the bundle.

    ``small`` goes on from the bundle's discriminator, ``long`` begins a new one, twice as wide and
    two layers deeper than those of bundles.

    Args:
        name: A key of :data:`PRESETS`.
        bundle: What is to be fine-tuned.

    Raises:
        ValueError: If there is no such preset, or ``long`` cannot show the codec's vectors.
    """
    if name not in PRESETS:
        raise ValueError(f"preset={name!r}, expected one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    if name != "long":
        return config
    net = replace(discriminator_sizes(bundle, "codes"), hidden=WIDE, plain_layers=PLAIN)
    training = replace(config.discriminator, learning_rate=WIDE_RATE)
    return replace(config, discriminator_net=net, discriminator=training)

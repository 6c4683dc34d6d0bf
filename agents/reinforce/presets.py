"""The presets, which of them fits a bundle, and how it is fitted to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agents.reinforce.config import Config
from agents.training.discriminator import DiscriminatorTraining, discriminator_sizes
from ral_env.bundle import Bundle

# Number of parameters from which on a prior counts as one of the paper's sizes. The paper's
# smallest has 3.6 million, the recipes for a CPU stay at 2 million. The paper's learning rate of
# 4e-6 does not move a prior of 0.1 million in minutes.
PAPER_PARAMETERS = 3_000_000

# Number of discriminator updates before the first policy update where ``small`` starts a new
# discriminator: on the digits its AUC is 0.60 after 50 and 0.70 after 300.
NEW_DISCRIMINATOR_WARMUP = 300


PRESETS: dict[str, Config] = {
    "paper": Config(),
    "small": Config(
        start="full",  # 64 codes are few: partial generation saves little and adds variance
        canvases=64,  # 16 canvases are too few to see a small difference
        learning_rate=1e-3,  # 4e-6 does not move a prior of 0.1 M parameters in minutes
        final_rate=0.1,  # a policy gradient's noise does not shrink by itself
        gamma=1.0,  # the canvas is judged as a whole
        discriminator_input="codes",  # sees more than the image, at a fraction of the work
        discriminator_net=None,  # go on from the bundle's, which knows this prior
        discriminator=DiscriminatorTraining(
            loss="logistic",  # a density ratio: its policy gradient descends the reverse KL
            learning_rate=1e-3,
            r1=0.1,  # few reals: a gradient penalty and augmentation against learning by heart
            shift=1,
            drop=0.05,
        ),
        discriminator_warmup=50,
        discriminator_updates=3,
        fake_pool=4,  # the discriminator looks at each batch of fakes more than once
        baseline="leave-one-out",  # less variance, no bias
        standardise=True,
        mle_coef=0.3,  # an anchor: without it a small prior loses modes, whatever the reward
        ema=0.99,
        gate_auc=0.52,  # a blind discriminator's scores are noise
    ),
}


def default_preset(bundle: Bundle) -> tuple[str, str]:
    """The preset for priors of this size, ``small`` or ``paper``, and the reason in words.

    The largest prior decides, at any number of levels: ``paper`` from :data:`PAPER_PARAMETERS` on.
    """
    priors: Any = bundle.priors
    largest = max((sum(p.numel() for p in prior.parameters()) for prior in priors), default=0)
    small = largest < PAPER_PARAMETERS
    reason = (
        f"the largest prior has {largest / 1e6:.2f} M parameters, "
        f"{'fewer than' if small else 'at least'} {PAPER_PARAMETERS / 1e6:g} M"
    )
    return ("small" if small else "paper"), reason


def fit_preset(name: str, bundle: Bundle, discriminator_input: str | None = None) -> Config:
    """A preset's settings with a discriminator that fits the bundle.

    ``small`` goes on from the bundle's discriminator where that is given the same input, and else
    starts a new one, with more warm-up. ``paper`` always starts a new one; as in the paper its map
    of scores is 4x4, whatever the image's size.

    Args:
        name: A key of :data:`PRESETS`.
        bundle: What is to be fine-tuned.
        discriminator_input: What the discriminator is to be given, ``image`` or ``codes``; None
            leaves it to the preset.

    Raises:
        ValueError: If the input is neither, or it is ``codes`` and the codec has no vectors.
    """
    preset = PRESETS[name]
    kind: Any = discriminator_input or preset.discriminator_input
    config = replace(preset, discriminator_input=kind)
    if preset.discriminator_net is not None:
        net = discriminator_sizes(bundle, kind, preset.discriminator_net.hidden)
        return replace(config, discriminator_net=net)
    if bundle.discriminator_input == kind:
        return config
    return replace(
        config,
        discriminator_net=discriminator_sizes(bundle, kind),
        discriminator_warmup=NEW_DISCRIMINATOR_WARMUP,
    )

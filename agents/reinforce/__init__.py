"""REINFORCE with PixelCNN policies and a discriminator that learns too."""

from agents.reinforce.loop import (
    PRESETS,
    Config,
    Result,
    advantages,
    main,
    play,
    policy_losses,
    returns,
    train,
)

__all__ = [
    "PRESETS",
    "Config",
    "Result",
    "advantages",
    "main",
    "play",
    "policy_losses",
    "returns",
    "train",
]

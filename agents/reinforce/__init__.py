"""REINFORCE with PixelCNN policies and a discriminator that learns too: see :mod:`.loop`."""

from agents.reinforce.config import PRESETS, Config
from agents.reinforce.loop import train
from agents.reinforce.run import Result

__all__ = ["PRESETS", "Config", "Result", "train"]

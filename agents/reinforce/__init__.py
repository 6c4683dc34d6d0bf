"""REINFORCE with PixelCNN policies and a discriminator that learns too: see :mod:`.loop`."""

from agents.reinforce.config import Config
from agents.reinforce.loop import train
from agents.reinforce.presets import PRESETS, default_preset, fit_preset
from agents.training.result import Result

__all__ = ["PRESETS", "Config", "Result", "default_preset", "fit_preset", "train"]

"""Learning in rounds, from canvases that a discriminator has weighted: see :mod:`.loop`."""

from agents.rounds.config import Config
from agents.rounds.loop import train
from agents.rounds.presets import PRESETS, fit_preset
from agents.training.result import Result

__all__ = ["PRESETS", "Config", "Result", "fit_preset", "train"]

"""Pictures of finished canvases in TensorBoard."""

from __future__ import annotations

import math

import numpy as np
from stable_baselines3.common.logger import Image

from agents.sb3.callbacks.episodes import EpisodeCallback
from agents.sb3.vec_env import vector_env
from ral_env.picture import tiled
from ral_env.ranges import check_ranges


class SampleGrids(EpisodeCallback):
    """Show finished canvases, decoded, in TensorBoard: ``samples``.

    SB3 writes what is logged every ``log_interval`` rollouts: give ``learn(log_interval=1)`` to
    A2C, whose default is 100.

    Args:
        every: Number of rollouts from one picture to the next; the first rollout has one.
        count: Number of canvases in a picture, all of one height.

    Raises:
        ValueError: if one of them is less than 1.
    """

    remembered = ("_rollouts",)

    def __init__(self, every: int = 10, count: int = 16, verbose: int = 0):
        super().__init__(verbose)
        self.every = every
        self.count = count
        check_ranges(self, every="[1, inf)", count="[1, inf)")
        self._rollouts = 0

    def _on_rollout_end(self) -> None:
        """Logs a picture, if it is time for one."""
        self._rollouts += 1
        if (self._rollouts - 1) % self.every or not self.episodes:
            return
        envs = vector_env(self.training_env).envs
        canvases = np.stack([episode.canvas for episode in self.episodes])
        heights = envs.layout.heights(canvases)
        images = envs.images(canvases[heights == heights[-1]][: self.count])  # (N, 3, H, W)
        tiles = tiled(images, math.ceil(len(images) ** 0.5))
        self.logger.record("samples", Image(tiles, "HWC"), exclude=("stdout", "log", "json", "csv"))

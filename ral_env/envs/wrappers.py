"""Wrappers: other views of the same episode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class GridObservation(
    gym.ObservationWrapper[dict[str, np.ndarray], Any, np.ndarray], gym.utils.RecordConstructorArgs
):
    """The canvas as grids: a ``Dict`` with ``level_0`` (the coarsest), ``level_1``, ...

    Each is int16 (h, w); ``num_codes`` is EMPTY and ``num_codes + 1`` OUTSIDE, as in the flat one.
    """

    def __init__(self, env: gym.Env):
        gym.utils.RecordConstructorArgs.__init__(self)  # its spec makes it again
        gym.ObservationWrapper.__init__(self, env)
        self._layout = env.get_wrapper_attr("layout")
        spaces: dict[str, Any] = {
            f"level_{level}": gym.spaces.Box(0, self._layout.outside, grid, np.int16)
            for level, grid in enumerate(self._layout.levels)
        }
        self.observation_space = gym.spaces.Dict(spaces)  # type: ignore[assignment]

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The grids of a flat observation; views, not copies."""
        grids = self._layout.unflatten(observation)
        return {f"level_{level}": grid for level, grid in enumerate(grids)}

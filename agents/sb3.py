"""Stable-Baselines3 on our environments: a native VecEnv, and features of codes for its policies.

    from stable_baselines3 import PPO
    from agents.sb3 import CodeEmbeddingExtractor, make_vec_env

    envs = make_vec_env("RALFaces32-v0", 64, reward="rowwise")
    model = PPO("MlpPolicy", envs, n_steps=64, gamma=1.0,
                policy_kwargs={"features_extractor_class": CodeEmbeddingExtractor})

Returns are sums of a canvas's scores, so gamma is 1, and n_steps a multiple of its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import Tensor, nn

import ral_env  # noqa: F401  registers the ids
from ral_env.vector import LatentCanvasVectorEnv


class LatentCanvasVecEnv(VecEnv):
    """The native vector environment as SB3's VecEnv: finished canvases are scored in one pass.

    Infos hold, where an episode ends, what the environment's final info does, and SB3's own
    ``terminal_observation`` and ``TimeLimit.truncated`` (always False).

    Args:
        envs: with ``autoreset_mode="same_step"``, which is SB3's convention.

    Raises:
        ValueError: if it resets otherwise.
    """

    def __init__(self, envs: LatentCanvasVectorEnv):
        if envs.autoreset_mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode is {envs.autoreset_mode}, expected 'same_step': SB3 is given the "
                "first observation of the next episode in the step that ends one"
            )
        self.envs = envs  # before the base class, which asks for the render mode
        self._actions: Any = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = envs.metadata

    def reset(self) -> np.ndarray:
        options: dict[str, Any] = {}
        if any(self._options):
            if any(given != self._options[0] for given in self._options):
                raise ValueError(
                    f"reset options {self._options} differ between canvases, expected one for all: "
                    "a batch starts alike"
                )
            options = dict(self._options[0])
        seeds = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        observations, _ = self.envs.reset(seed=seeds, options=options or None)
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, terminated, _, info = self.envs.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminated):
            final = info["final_info"]
            infos[i] = {key: final[key][i] for key in final if not key.startswith("_")}
            infos[i]["terminal_observation"] = info["final_obs"][i]
            infos[i]["TimeLimit.truncated"] = False
        return observations, rewards.astype(np.float32), terminated, infos

    def get_images(self) -> Sequence[np.ndarray | None]:
        frames = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute for all canvases; some alone cannot have another.

        Raises:
            ValueError: if not all are meant.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices={indices}: all canvases share {attr_name!r}, expected None")
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method once, for all canvases together; what it returns stands for each."""
        found = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return [found] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))


def make_vec_env(
    env: str, n_envs: int = 16, seed: int | None = None, **arguments: Any
) -> VecMonitor:
    """Environments for SB3, with a monitor, without which SB3 logs no returns.

    Args:
        env: an id, such as ``RALFaces32-v0``.
        seed: canvas i starts with seed + i.
        arguments: of the environment: ``reward``, ``start``, ``bundle``, ...
    """
    envs: Any = gym.make_vec(env, num_envs=n_envs, autoreset_mode="same_step", **arguments)
    adapted = LatentCanvasVecEnv(envs.unwrapped)
    if seed is not None:
        adapted.seed(seed)
    return VecMonitor(adapted)


class CodeEmbeddingExtractor(BaseFeaturesExtractor):
    """Features of a canvas for SB3's own policies, which would take codes for magnitudes.

    Each cell's code, EMPTY and OUTSIDE included, is embedded and given its place; a linear layer
    sees all cells.

    Args:
        observation_space: of one of our environments.
        features_dim: of the features.
        embedding_dim: of a cell.
    """

    def __init__(
        self, observation_space: gym.spaces.Box, features_dim: int = 256, embedding_dim: int = 16
    ):
        super().__init__(observation_space, features_dim)
        (length,) = observation_space.shape
        codes = int(observation_space.high.max()) + 1
        self.embedding = nn.Embedding(codes, embedding_dim)
        self.place = nn.Parameter(0.1 * torch.randn(length, embedding_dim))
        self.whole = nn.Sequential(nn.Linear(length * embedding_dim, features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """Canvases (B, length), of any dtype, to (B, features_dim)."""
        cells = self.embedding(observations.long()) + self.place  # (B, length, embedding_dim)
        return self.whole(cells.flatten(1))

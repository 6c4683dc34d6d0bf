"""Our environments as Stable-Baselines3's: a native VecEnv over the vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

import ral_env  # noqa: F401  registers the ids
from ral_env import starts
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.tasks import expect_ours


class LatentCanvasVecEnv(VecEnv):
    """The native vector environment as SB3's VecEnv: finished canvases are scored in one pass.

    Infos hold, where an episode ends, what the environment's final info does, and SB3's own
    ``terminal_observation`` and ``TimeLimit.truncated`` (always False).

    Args:
        envs: the environments, made with ``autoreset_mode="same_step"``, SB3's convention.
        rows: number of rows that every episode starts with, in place of a number drawn for each:
            partial episodes (``start="continue"``, ``"scratch"``, ``"partial"``) then all have one
            length.

    Raises:
        ValueError: if the environments reset otherwise, or, from ``reset``, if no start has so many
            rows.
    """

    def __init__(self, envs: LatentCanvasVectorEnv, rows: int | None = None):
        if envs.autoreset_mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode is {envs.autoreset_mode}, expected 'same_step': SB3 is given the "
                "first observation of the next episode in the step that ends one"
            )
        self.envs = envs  # before the base class, which asks for the render mode
        self.rows = rows
        self._actions: Any = None
        self._observations = np.zeros((0, envs.layout.length), np.int16)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = envs.metadata

    @property
    def episode_length(self) -> int | None:
        """Number of codes that every episode writes; None if episodes differ in that."""
        layout, start = self.envs.layout, self.envs.start
        lengths = set()
        for mode in ("continue", "scratch") if start == "partial" else (start,):
            allowed = starts.row_range(layout, mode, self.envs.min_rows)
            for rows in allowed if self.rows is None or mode == "full" else [self.rows]:
                head = int(layout.head(rows).sum())
                lengths.add(layout.length - head if mode == "continue" else head)
        return lengths.pop() if len(lengths) == 1 else None

    def reset(self) -> np.ndarray:
        """First observations, int16 (num_envs, length). Options must be the same for all."""
        options = self._start_options()
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
        self._observations = observations
        return observations

    def _start_options(self) -> dict[str, Any]:
        return {} if self.rows is None else {"rows": self.rows}

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the codes to be written, int64 (num_envs,); :meth:`step_wait` writes them."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations int16 (num_envs, length), rewards float32 and dones bool (num_envs,), infos.

        Where an episode is done the observation is the first of the next one.
        """
        observations, rewards, terminated, _, info = self.envs.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminated):
            final = info["final_info"]
            infos[i] = {key: final[key][i] for key in final if not key.startswith("_")}
            infos[i]["terminal_observation"] = info["final_obs"][i]
            infos[i]["TimeLimit.truncated"] = False
        if terminated.any() and (options := self._start_options()):
            # The environment has begun episodes with rows of its own choice: begin them again.
            observations, _ = self.envs.reset(options={**options, "reset_mask": terminated})
        self._observations = observations
        return observations, rewards.astype(np.float32), terminated, infos

    def action_masks(self) -> np.ndarray:
        """Which codes the real grids of the next cell's level hold: bool (num_envs, num_codes).

        What sb3-contrib's MaskablePPO asks for; all other codes never look real.
        """
        cells = (self._observations == self.envs.layout.empty).argmax(1)
        ends = [level.stop for level in self.envs.layout.slices]
        return self._codes_of_real_grids[np.searchsorted(ends, cells, side="right")]

    @cached_property
    def _codes_of_real_grids(self) -> np.ndarray:
        """Which codes the train split's grids of each level hold: bool (levels, num_codes)."""
        layout, real = self.envs.layout, self.envs.bundle.split("train")
        found = np.zeros((len(layout.levels), layout.num_codes), bool)
        for first in range(0, len(real), 4096):  # a memory map that may not fit into memory
            for level, cells in enumerate(layout.slices):
                found[level, np.unique(real[first : first + 4096, cells])] = True
        return found

    def get_images(self) -> Sequence[np.ndarray | None]:
        """What ``render`` shows of each canvas, uint8 (H, W, 3); None where it shows nothing."""
        frames = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def close(self) -> None:
        """Closes the vector environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the vector environment, once for each canvas: they share all."""
        source = self if attr_name == "action_masks" else self.envs
        return [getattr(source, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector environment, which all canvases share.

        Raises:
            ValueError: if ``indices`` are not all canvases.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices={indices}: all canvases share {attr_name!r}, expected None")
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once; each canvas gets what it returns.

        ``action_masks`` is the exception: each canvas gets its row.
        """
        if method_name == "action_masks":
            return list(self.action_masks()[list(self._get_indices(indices))])
        found = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return [found] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False for each canvas: no wrapper of single environments is around one."""
        return [False] * len(list(self._get_indices(indices)))


def make_vec_env(
    env: str,
    n_envs: int = 16,
    seed: int | None = None,
    rows: int | None = None,
    **arguments: Any,
) -> VecMonitor:
    """Environments for SB3, with a monitor, without which SB3 logs no returns.

    Args:
        env: an id, such as ``RALFaces32-v0``.
        n_envs: number of canvases that are written side by side.
        seed: canvas i is seeded with seed + i; None leaves the seeds to chance.
        rows: number of rows that every episode starts with; see :class:`LatentCanvasVecEnv`.
        arguments: further arguments of the environment: ``reward``, ``start``, ``bundle``, ...

    Raises:
        ValueError: if the id is none of ours, or an argument is bad.
    """
    expect_ours(env)
    envs: Any = gym.make_vec(env, num_envs=n_envs, autoreset_mode="same_step", **arguments)
    adapted = LatentCanvasVecEnv(envs.unwrapped, rows)
    if seed is not None:
        adapted.seed(seed)
    return VecMonitor(adapted)


def vector_env(envs: Any) -> LatentCanvasVecEnv:
    """The :class:`LatentCanvasVecEnv` beneath SB3's wrappers.

    Raises:
        ValueError: if it is not there.
    """
    found = getattr(envs, "unwrapped", None)
    if not isinstance(found, LatentCanvasVecEnv):
        raise ValueError(
            f"the environments are {type(found or envs).__name__}, expected those of "
            'agents.sb3.make_vec_env("RALFaces32-v0", 16)'
        )
    return found

"""LatentCanvasVectorEnv: a batch of canvases as one of Gymnasium's vector environments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ral_env import starts
from ral_env.bundle import Bundle, for_task, load, load_named
from ral_env.envs import infos
from ral_env.envs.episodes import Episodes
from ral_env.envs.frames import OVERLAYS, FramePainter
from ral_env.envs.options import (
    autoreset,
    check_codes,
    choose,
    finished_canvas,
    integers,
    no_time_limit,
    reset_options,
    seeds,
    torch_device,
)
from ral_env.envs.reward_fn import Function, RewardFunction
from ral_env.envs.scored import Scored
from ral_env.envs.scorer import Scorer
from ral_env.envs.shapes import Canvas, Frame, Rewards, StepResult
from ral_env.envs.specs import StorableSpec
from ral_env.nets.shapes import ScoreMap
from ral_env.reward import REWARD_SOURCES, REWARDS
from ral_env.tasks import TASKS


class LatentCanvasVectorEnv(StorableSpec, Scored, VectorEnv):  # type: ignore[override]
    """A batch of canvases that are written code by code.

    :class:`ral_env.envs.single.LatentCanvasEnv` says what observations, actions, rewards and starts
    are, and all arguments that are not below; this page says what a batch adds.

    One start is drawn for all canvases that are reset together, so episodes stay in lockstep; all
    canvases that finish together are decoded and scored in one pass.

    Sub-environment ``i`` has the generator ``rngs[i]``, seeded with ``seed + i``. What each draws,
    and in which order, is a contract:

    1. When it is reset: its start (see :func:`ral_env.starts.draw`), then the index of a real
       image. It draws both even if the first canvas decides the start and no real rows are needed.
    2. Whenever it is scored (at its end; under "rowwise" also for each row that is paid before):
       a score map if ``reward_source`` is "random"; if it is "shuffled", the first of the canvases
       that are scored together draws a permutation of them.

    With autoreset "same_step" a finished canvas is scored before it is reset.

    Args:
        num_envs: canvases.
        task: the environment id whose images and grids the bundle must have; None asks for none.
        autoreset_mode: "next_step", "same_step" or "disabled", or Gymnasium's ``AutoresetMode``.
        render_mode: None or "rgb_array".
        pad_info: whether all arrays of an info have one shape, whatever the episodes' lengths; with
            "same_step", ``final_obs`` then is one int16 array, of 0 where no episode ended, and not
            of objects: ``gymnasium.wrappers.vector.NumpyToTorch`` wants it so.
        max_episode_steps: must be None: what ``gym.make_vec`` passes on. A time limit is a wrapper
            of single environments, which ``vectorization_mode="sync"`` or ``"async"`` has.

    Raises:
        ValueError: if an argument is unknown, or the bundle is missing or broken.
    """

    metadata = {
        "render_modes": ["rgb_array"],
        "render_fps": 16,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        task: str | None = None,
        bundle_required: bool = False,
        reward: str = "single",
        reward_source: str = "discriminator",
        reward_fn: str | Function | None = None,
        start: str = "full",
        autoreset_mode: str | AutoresetMode = "next_step",
        render_mode: str | None = None,
        overlay: str | None = None,
        pad_info: bool = False,
        device: str | torch.device = "cpu",
        max_episode_steps: int | None = None,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}, expected 1 or more")
        no_time_limit(max_episode_steps)
        self.num_envs, self.pad_info = num_envs, pad_info
        self.autoreset_mode = autoreset(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.reward = choose("reward", reward, REWARDS)
        self.reward_source = choose("reward_source", reward_source, REWARD_SOURCES)
        self.start = choose("start", start, starts.START_MODES)
        self.render_mode = choose("render_mode", render_mode, (None, "rgb_array"))
        self.overlay = choose("overlay", overlay, OVERLAYS)
        self.bundle = _bundle(task, bundle, bundle_required)
        self.layout = self.bundle.layout
        self.device = torch_device(device)
        own = None if reward_fn is None else RewardFunction(reward_fn)
        self.scorer = Scorer(self.bundle, self.device, own)
        real = self.bundle.split("train")
        self.episodes = Episodes(num_envs, self.scorer, real, reward, reward_source)
        self._painter = FramePainter(self.scorer, real, self.overlay)

        self.single_observation_space = gym.spaces.Box(
            0, self.layout.outside, (self.layout.length,), np.int16
        )
        self.single_action_space = gym.spaces.Discrete(self.layout.num_codes)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = np.arange(num_envs)  # indices of all canvases

    @property
    def rngs(self) -> list[np.random.Generator]:
        """The sub-environments' generators. Replace or set the state of one to go on elsewhere."""
        return self.episodes.rngs

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Canvas, dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: an int (sub-environment i gets seed + i), one for each, or None: the generators
                go on.
            options: for this reset only. ``start`` and ``rows`` replace the environment's;
                ``codes`` gives the real rows of a continue start: flat, a grid, or a list of grids,
                for all canvases or one for each (leading dimension ``num_envs``); ``reset_mask``,
                bool (num_envs,), leaves the canvases that are False as they are.

        Returns:
            Observations int16 (num_envs, length) and an empty info.

        Raises:
            ValueError: if an option is unknown or does not fit.
        """
        asked = reset_options(options, self.start, self.num_envs, self.layout)
        seed_of = seeds(seed, self.num_envs)
        for i in asked.which:
            if seed_of[i] is not None:
                self.rngs[i] = seeding.np_random(seed_of[i])[0]
        self.episodes.begin(asked.which, asked.start, asked.rows, asked.codes)
        return self.episodes.canvas.copy(), {}

    def step(self, actions: Any) -> StepResult:
        """Write one code into the first EMPTY cell of every canvas.

        Args:
            actions: integers (num_envs,) from 0 to num_codes - 1. That of a canvas which is reset
                in this step (autoreset "next_step") is ignored.

        Returns:
            Observations int16 (num_envs, length), rewards float64 (num_envs,), terminated and
            truncated bool (num_envs,), info. Gymnasium's vector conventions.

        Raises:
            ValueError: if an action is not a code, or a canvas is finished and no autoreset is on.
        """
        over = self.episodes.over()
        if over.any() and self.autoreset_mode == AutoresetMode.DISABLED:
            raise ValueError(
                f"step after the end of the episode (of sub-environments {np.flatnonzero(over)}): "
                "call reset() first"
            )
        actions = integers("actions", actions, (self.num_envs,))
        acting = self._everyone
        if over.any():
            acting = np.flatnonzero(~over)
            actions = actions[acting]
        check_codes("actions", actions, self.layout.num_codes)
        rewards = np.zeros(self.num_envs)
        rewards[acting] = self.episodes.write(acting, actions)
        return self._advance(acting, rewards)

    def complete(self, codes: Any, score_map: ScoreMap | None = None) -> StepResult:
        """Write every EMPTY cell at once; returns what the last :meth:`step` would have returned.

        Args:
            codes: integers (num_envs, length), array or tensor: the observation with every EMPTY
                cell replaced by a code.
            score_map: floats (num_envs, 1, h', w'), the output of :meth:`Scorer.score_map` for
                exactly these canvases, if it is known: they are then not decoded and scored again.
                Only the shape is checked. That the scores are the present discriminator's and not
                normalised is trusted. Normalisation, control arms and rewards stay here, and rows
                that "rowwise" pays before the last are still scored here. None with a
                ``reward_fn``.

        Raises:
            ValueError: if a canvas is finished already, a cell that was not EMPTY is changed, a new
                one is not a code, or the score map has another shape or a ``reward_fn`` pays.
        """
        episodes = self.episodes
        if (over := episodes.over()).any():
            raise ValueError(
                f"sub-environments {np.flatnonzero(over)} are finished: call reset() first"
            )
        codes = finished_canvas(codes, episodes.canvas, self.layout)
        if score_map is not None:
            score_map = self.scorer.check_score_map(score_map, episodes.heights())
        episodes.write_all(codes)
        return self._advance(self._everyone, np.zeros(self.num_envs), score_map)

    def _advance(
        self, acting: np.ndarray, rewards: Rewards, score_map: ScoreMap | None = None
    ) -> StepResult:
        """Reset and score as autoreset says, once the canvases ``acting`` have been written."""
        episodes, terminated, info = self.episodes, np.zeros(self.num_envs, bool), {}
        finished = acting[episodes.time[acting] == episodes.steps[acting]]
        if len(acting) < self.num_envs:
            episodes.begin(np.setdiff1d(self._everyone, acting), self.start)
        if finished.size:
            terminated[finished] = True
            ends = episodes.finish(finished, score_map)
            for i, end in zip(finished, ends, strict=True):
                earned = end["step_rewards"]
                last = earned[-1:] if self.reward == "rowwise" else earned
                rewards[i] = last.sum(dtype=np.float64)
            if self.pad_info:
                ends = [infos.padded(end, self.layout.length) for end in ends]
            info = infos.of_batch(finished, ends, self.num_envs)
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                info = infos.before_reset(finished, episodes.canvas, info, self.pad_info)
                episodes.begin(finished, self.start)
        return episodes.canvas.copy(), rewards, terminated, np.zeros(self.num_envs, bool), info

    def render(self) -> tuple[Frame, ...] | None:
        """One frame for each canvas, uint8 (H, W, 3), as far as it is written.

        :class:`ral_env.envs.frames.FramePainter` says how. None if there is no ``render_mode``.
        """
        if self.render_mode is None:
            return None
        episodes = self.episodes
        episodes.over()  # refuses before the first reset
        return self._painter.paint(episodes.canvas, episodes.heights(), episodes.given_rows())


def _bundle(
    task: str | None, bundle: str | os.PathLike[str] | Bundle | None, required: bool
) -> Bundle:
    """The bundle of these arguments of an environment."""
    if task is not None:
        return for_task(TASKS[choose("task", task, tuple(TASKS))], bundle, required)
    if bundle is None:
        return load_named("faces32")
    return bundle if isinstance(bundle, Bundle) else load(bundle)

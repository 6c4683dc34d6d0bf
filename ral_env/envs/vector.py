"""LatentCanvasVectorEnv: all of an episode's dynamics, for a batch of canvases at once."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from ral_env import picture, starts
from ral_env import reward as rewards_of
from ral_env.bundle import Bundle, for_task, load
from ral_env.nets import VQVAE, joint, represent
from ral_env.tasks import TASKS

OVERLAYS = (None, "scores", "real", "both")
OPTIONS = ("start", "rows", "codes", "reset_mask")
RENDER_SIDE = 256  # pixels: frames are magnified until the short side has as many


def _choose(name: str, value: str | None, allowed: Sequence[str | None]) -> Any:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}, expected one of {tuple(allowed)}")
    return value


def _integers(what: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """``value`` as an integer array, or a ValueError that says what it is instead."""
    try:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except ValueError:  # numpy's word for a list of unlike parts
        expected = f"shape {shape}" if shape else "as many codes in every row"
        raise ValueError(f"{what}: got a ragged list, expected {expected}") from None
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what}: got dtype {array.dtype}, expected integers")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{what}: got shape {array.shape}, expected {shape}")
    return array


def _in_range(what: str, codes: np.ndarray, num_codes: int) -> None:
    wrong = codes[(codes < 0) | (codes >= num_codes)]
    if wrong.size:
        raise ValueError(f"{what}: got {wrong[0]}, expected codes from 0 to {num_codes - 1}")


class LatentCanvasVectorEnv(VectorEnv):
    """A batch of canvases that are written code by code.

    See :class:`ral_env.envs.single.LatentCanvasEnv` for observations, actions, rewards and starts;
    this page says what a batch adds.

    One start is drawn for all canvases that are reset together, so episodes stay in lockstep; all
    canvases that finish together are decoded and scored in one pass. Sub-environment ``i`` has a
    generator of its own (seed ``seed + i``), which draws its real rows.

    Args:
        num_envs: canvases.
        bundle: name or path of a bundle, or a loaded one; None takes the task's own.
        task: the environment id whose images and grids the bundle must have; None asks for none.
        bundle_required: refuse to run on a stand-in.
        reward: "single", "intermediate" or "rowwise".
        reward_source: "discriminator", or a control arm: "constant", "random", "shuffled".
        start: "full", "continue", "scratch" or "partial"; what a reset without options begins.
        autoreset_mode: "next_step", "same_step" or "disabled", or Gymnasium's ``AutoresetMode``.
        render_mode: None or "rgb_array".
        overlay: None, or what frames are tinted with: "scores" (of the finished rows: green is
            real), "real" (the cells that were given are blue), or "both".
        device: where the networks run.

    Raises:
        ValueError: if an argument is none of those, or the bundle is missing or broken.
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
        start: str = "full",
        autoreset_mode: str | AutoresetMode = "next_step",
        render_mode: str | None = None,
        overlay: str | None = None,
        device: str | torch.device = "cpu",
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}, expected 1 or more")
        if not isinstance(autoreset_mode, AutoresetMode):
            modes = [mode.name.lower() for mode in AutoresetMode]
            autoreset_mode = AutoresetMode[_choose("autoreset_mode", autoreset_mode, modes).upper()]
        self.num_envs = num_envs
        if task is not None:
            self.bundle = for_task(
                TASKS[_choose("task", task, tuple(TASKS))], bundle, bundle_required
            )
        else:
            bundle = "faces32" if bundle is None else bundle
            self.bundle = bundle if isinstance(bundle, Bundle) else load(bundle)
        self.reward = _choose("reward", reward, rewards_of.REWARDS)
        self.reward_source = _choose("reward_source", reward_source, rewards_of.REWARD_SOURCES)
        self.start = _choose("start", start, starts.START_MODES)
        self.render_mode = _choose("render_mode", render_mode, (None, "rgb_array"))
        self.overlay = _choose("overlay", overlay, OVERLAYS)
        self.autoreset_mode = autoreset_mode
        self.metadata = {**self.metadata, "autoreset_mode": autoreset_mode}
        self.device = torch.device(device)

        layout = self.layout = self.bundle.layout
        self.single_observation_space = gym.spaces.Box(
            0, layout.outside, (layout.length,), np.int16
        )
        self.single_action_space = gym.spaces.Discrete(layout.num_codes)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        # The networks are this environment's own: training the bundle's changes no reward.
        self._vqvae = self._own(self.bundle.vqvae)
        self._oracles = [self._own(oracle) for oracle in self.bundle.oracles]
        self.set_discriminator(
            self.bundle.discriminator, self.bundle.reward_scale, self.bundle.discriminator_input
        )

        self._real = self.bundle.split("train")
        self.rngs = [seeding.np_random()[0] for _ in range(num_envs)]  # one a sub-environment
        self._canvas = np.full((num_envs, layout.length), layout.outside, np.int16)
        self._everyone = np.arange(num_envs)
        self._nobody = np.zeros(num_envs, bool)
        self._order = np.zeros((num_envs, layout.length), np.int64)  # cells in the order of writing
        self._time = np.zeros(num_envs, np.int64)  # steps taken
        self._steps = np.zeros(num_envs, np.int64)  # length of the episode; 0 before a reset
        self._mode = np.full(num_envs, "", object)
        self._rows = np.zeros(num_envs, np.int64)
        self._given = np.zeros((num_envs, layout.length), bool)  # cells not to be written
        self._paid = np.zeros(num_envs, np.int64)  # rows whose scores have been paid (rowwise)
        self._earned = np.zeros((num_envs, layout.length), np.float32)  # by each step (rowwise)

    # --- the discriminator ---

    def set_discriminator(
        self, net: nn.Module, reward_scale: float, input: str | None = None
    ) -> None:
        """Score with a copy of ``net`` from now on.

        Args:
            net: maps its input (B, C, H, W) to a score map (B, 1, H // stride, W // stride), real
                is high, and has the attribute ``stride``.
            reward_scale: scores are divided by it, then clamped to [-1, 1].
            input: "image" or "codes" (codebook vectors on the finest grid); None keeps it.

        Raises:
            ValueError: if the scale is not positive, the input is unknown, or the net's stride is
                larger than the whole image.
        """
        input = self.discriminator_input if input is None else input
        extents = {"image": self.bundle.image_size, "codes": self.layout.levels[-1][0]}
        extent = extents[_choose("input", input, tuple(extents))]
        stride = getattr(net, "stride", None)
        if not isinstance(stride, int) or not 1 <= stride <= extent:
            raise ValueError(
                f"the discriminator's stride is {stride}, expected 1 to {extent}: the {extent} "
                f"rows of the {input} input must give one row of scores or more"
            )
        self._set_scale(reward_scale)
        self.discriminator = self._own(net)
        self.discriminator_input = input
        self.min_rows = starts.min_rows(stride, extent // self.layout.rows)
        self._strides = [stride * h / extent for h, _ in self.layout.levels]  # in cells of a level

    def load_discriminator(self, state_dict: Mapping[str, Tensor], reward_scale: float) -> None:
        """Load other weights into the present discriminator.

        Raises:
            ValueError: if the weights do not fit, or the scale is not positive.
        """
        self._set_scale(reward_scale)
        try:
            self.discriminator.load_state_dict(state_dict)
        except RuntimeError as error:
            raise ValueError(f"these weights do not fit the discriminator: {error}") from error

    def _set_scale(self, scale: float) -> None:
        if not 0 < scale < float("inf"):
            raise ValueError(f"reward_scale={scale}, expected a positive finite number")
        self.reward_scale = float(scale)

    def _own(self, net: nn.Module) -> Any:
        return copy.deepcopy(net).to(self.device).eval()

    # --- codes to images and scores ---

    @torch.no_grad()
    def score(self, codes: Any) -> Tensor:
        """Normalised score maps (B, 1, h', w') in [-1, 1], real is high, of finished canvases.

        Args:
            codes: integers (B, length). All canvases are of one height.

        Raises:
            ValueError: if a cell is EMPTY, the heights differ, or a score is not finite.
        """
        grids = self._tensors(codes)
        scores = self.discriminator(represent(self._vqvae, grids, self.discriminator_input))
        return rewards_of.normalise(scores, self.reward_scale)

    @torch.no_grad()
    def images(self, codes: Any) -> np.ndarray:
        """Decoded images, uint8 (B, 3, H, W), of finished canvases of one height.

        Raises:
            ValueError: if a cell is EMPTY or the heights differ.
        """
        images = self._vqvae.decode(self._tensors(codes))
        return picture.to_bytes(images)

    def _tensors(self, codes: Any) -> list[Tensor]:
        """Flat codes of one height to grids of int64 tensors, cropped to that height."""
        codes = _integers("codes", codes)
        if codes.ndim != 2:
            raise ValueError(f"codes: got shape {codes.shape}, expected (B, {self.layout.length})")
        heights = self.layout.heights(codes)
        grids = self.layout.unflatten(codes, int(heights[0]))
        for grid in grids:
            _in_range("codes of finished canvases of one height", grid, self.layout.num_codes)
        if (heights != heights[0]).any():
            raise ValueError(f"codes: canvases of {np.unique(heights)} rows, expected one height")
        return [torch.from_numpy(grid.astype(np.int64)).to(self.device) for grid in grids]

    # --- episodes ---

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: an int (sub-environment i gets seed + i), one for each, or None: the generators
                go on.
            options: for this reset only. ``start`` and ``rows`` replace the environment's own;
                ``codes`` gives the real rows of a continue start: flat, a grid, or a list of grids,
                for all canvases or one for each (leading dimension ``num_envs``); ``reset_mask``,
                bool (num_envs,), leaves the canvases that are False as they are.

        Returns:
            Observations int16 (num_envs, length) and an empty info.

        Raises:
            ValueError: if an option is unknown or does not fit.
        """
        options = dict(options or {})
        if unknown := set(options) - set(OPTIONS):
            raise ValueError(f"unknown reset options {sorted(unknown)}, expected some of {OPTIONS}")
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"reset_mask: got {mask.dtype} {mask.shape}, expected bool ({self.num_envs},) with "
                "one or more True"
            )
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds were given, expected {self.num_envs}")
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self.rngs[i] = seeding.np_random(seeds[i])[0]
        self._begin(np.flatnonzero(mask), **options)
        return self._canvas.copy(), {}

    def _begin(
        self,
        which: np.ndarray,
        start: str | None = None,
        rows: int | None = None,
        codes: Any = None,
    ) -> None:
        """New episodes for the sub-environments ``which``; the first one's start is everyone's."""
        asked = self.start if start is None else start
        rngs = [self.rngs[i] for i in which]
        # Each generator moves on alike, whoever leads: an episode depends on its own seed's past.
        drawn = [starts.draw(rng, self.layout, asked, rows, self.min_rows) for rng in rngs]
        index = [int(rng.integers(len(self._real))) for rng in rngs]
        mode, rows = drawn[0]
        if codes is not None:
            if asked not in ("continue", "partial"):
                raise ValueError(
                    f"codes were given with start={asked!r}, expected start='continue' (or "
                    "'partial'): no other start has real rows"
                )
            real = self._as_asked(codes)[which]
        else:
            # Only a continue start reads the codes' values; the memory map is left alone otherwise.
            shape = (len(which), self.layout.length)
            real = self._real[index] if mode == "continue" else np.zeros(shape, np.int16)
        canvas = starts.canvas(self.layout, mode, rows, real)
        empty = canvas[0] == self.layout.empty  # one start: the same cells for all
        steps = int(empty.sum())
        self._canvas[which] = canvas
        self._order[which, :steps] = np.flatnonzero(empty)
        self._steps[which] = steps
        self._time[which] = 0
        self._mode[which] = mode
        self._rows[which] = rows
        self._given[which] = ~empty
        self._paid[which] = 0
        self._earned[which] = 0

    def _as_asked(self, codes: Any) -> np.ndarray:
        """The option ``codes``, in any of its forms, as (num_envs, length)."""
        layout, levels = self.layout, len(self.layout.levels)
        if isinstance(codes, list | tuple) and [np.ndim(g) > 1 for g in codes] == [True] * levels:
            flat = layout.flatten([_integers("codes", grid) for grid in codes])
        else:
            flat = _integers("codes", codes)
            if levels == 1 and flat.shape[-2:] == layout.levels[0]:
                flat = layout.flatten([flat])
        if flat.shape not in ((layout.length,), (1, layout.length), (self.num_envs, layout.length)):
            raise ValueError(
                f"codes: got shape {flat.shape}, expected grids of {layout.levels} or flat "
                f"({layout.length},), with a leading {self.num_envs} if each canvas has its own"
            )
        _in_range("codes", flat, layout.num_codes)
        return np.broadcast_to(flat, (self.num_envs, layout.length))

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
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
        over = self._over()
        if over.any() and self.autoreset_mode == AutoresetMode.DISABLED:
            raise ValueError(
                f"step after the end of the episode (of sub-environments {np.flatnonzero(over)}): "
                "call reset() first"
            )
        actions = _integers("actions", actions, (self.num_envs,))
        acting = self._everyone
        if over.any():
            acting = np.flatnonzero(~over)
            actions = actions[acting]
        _in_range("actions", actions, self.layout.num_codes)
        cells = self._order[acting, self._time[acting]]
        self._canvas[acting, cells] = actions
        self._time[acting] += 1
        rewards = np.zeros(self.num_envs)
        if self.reward == "rowwise":
            ended = self.layout.band_ends[cells] & (self._time[acting] < self._steps[acting])
            for rows in np.unique(self.layout.bands[cells[ended]] + 1):
                which = acting[ended & (self.layout.bands[cells] + 1 == rows)]
                rewards[which] = self._pay_rows(which, int(rows))
        return self._advance(acting, rewards)

    def complete(
        self, codes: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Write every EMPTY cell at once; returns what the last :meth:`step` would have returned.

        Args:
            codes: integers (num_envs, length), array or tensor: the observation with every EMPTY
                cell replaced by a code.

        Raises:
            ValueError: if a canvas is finished already, a cell that was not EMPTY is changed, or a
                new one is not a code.
        """
        if (over := self._over()).any():
            raise ValueError(
                f"sub-environments {np.flatnonzero(over)} are finished: call reset() first"
            )
        codes = _integers("codes", codes, self._canvas.shape)
        empty = self._canvas == self.layout.empty
        if changed := int(((codes != self._canvas) & ~empty).sum()):
            raise ValueError(
                f"codes: {changed} cells differ that were not EMPTY, expected the observation with "
                "only its EMPTY cells replaced"
            )
        _in_range("codes", codes[empty], self.layout.num_codes)
        self._canvas[:] = codes
        self._time[:] = self._steps
        if self.reward == "rowwise":
            # Rows that are given have no cells to pay for, and the last row ends the episode.
            heights = self._heights(self._everyone)
            first = np.where(self._mode == "continue", self._rows, 0)
            for rows in range(1, self.layout.rows):
                which = np.flatnonzero((first < rows) & (rows < heights))
                if which.size:
                    self._pay_rows(which, rows)
        return self._advance(self._everyone, np.zeros(self.num_envs))

    def _over(self) -> np.ndarray:
        if not self._steps.all():
            raise ValueError("the episode has not begun: call reset() first")
        return self._time == self._steps

    def _advance(self, acting: np.ndarray, rewards: np.ndarray) -> tuple[Any, ...]:
        """Score the canvases that have just been finished, reset as autoreset says."""
        terminated = self._nobody.copy()
        info: dict[str, Any] = {}
        finished = acting[self._time[acting] == self._steps[acting]]
        if len(acting) < self.num_envs:
            self._begin(np.setdiff1d(self._everyone, acting, assume_unique=True))
        if finished.size:
            episodes = self._finish(finished)
            terminated[finished] = True
            for i, episode in zip(finished, episodes, strict=True):
                earned = episode["step_rewards"]
                last = earned[-1:] if self.reward == "rowwise" else earned
                rewards[i] = last.sum(dtype=np.float64)
            info = self._vector_info(finished, episodes)
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                final_obs = np.full(self.num_envs, None, object)
                for i in finished:
                    final_obs[i] = self._canvas[i].copy()
                info = {
                    "final_obs": final_obs,
                    "_final_obs": terminated.copy(),
                    "final_info": info,
                    "_final_info": terminated.copy(),
                }
                self._begin(finished)
        return self._canvas.copy(), rewards, terminated, self._nobody.copy(), info

    def _judge(self, which: np.ndarray, rows: int) -> tuple[Tensor, np.ndarray]:
        """Decode and score the first ``rows`` rows of canvases in one pass.

        Returns the score map (n, 1, h', w') that is paid, and each cell's own score, float32
        (n, length), 0 below those rows.
        """
        head = self.layout.head(rows)
        canvas = np.where(head, self._canvas[which], self.layout.outside)
        score_map = rewards_of.control(
            self.score(canvas), self.reward_source, [self.rngs[i] for i in which]
        )
        cells = np.zeros(canvas.shape, np.float32)
        cells[:, head] = rewards_of.intermediate(
            score_map, self.layout.grids(rows), self._strides
        ).cpu()
        return score_map, cells

    def _pay_rows(
        self, which: np.ndarray, rows: int, cells: np.ndarray | None = None
    ) -> np.ndarray:
        """Pay the rows finished since the last payment what their written cells score: (n,).

        Nothing yet while the image is too short for the discriminator. ``cells``: what
        :meth:`_judge` says, where it is known already.
        """
        if rows < self.min_rows:
            return np.zeros(len(which), np.float32)
        cells = self._judge(which, rows)[1] if cells is None else cells
        bands = self.layout.bands
        own = ~self._given[which] & (bands >= self._paid[which, None])
        # The step that wrote the last cell of row `rows`: coarser levels are written before it.
        coarser = np.arange(self.layout.length) < self.layout.slices[-1].start
        step = (~self._given[which] & (coarser | (bands < rows))).sum(1) - 1
        earned = (cells * own).sum(1)
        self._earned[which, step] = earned
        self._paid[which] = rows
        return earned

    @torch.no_grad()
    def _finish(self, finished: np.ndarray) -> list[dict[str, Any]]:
        """The final info of each finished canvas: one decode and one scoring for each height."""
        episodes: dict[int, dict[str, Any]] = {}
        for rows, which in self._by_height(finished):
            canvas = self._canvas[which]
            score_map, cells = self._judge(which, rows)
            single = rewards_of.single(score_map).cpu().numpy()  # (n,)
            if self.reward == "rowwise":
                self._pay_rows(which, rows, cells)
            nll = None
            if self._oracles:
                nll = -joint.total_log_prob(self._oracles, self._tensors(canvas)).cpu().numpy()
            for n, i in enumerate(which):
                steps = self._steps[i]
                if self.reward == "single":
                    step_rewards = np.zeros(steps, np.float32)
                    step_rewards[-1] = single[n]
                elif self.reward == "intermediate":
                    step_rewards = cells[n, self._order[i, :steps]]
                else:
                    step_rewards = self._earned[i, :steps].copy()
                episodes[i] = {
                    "final_canvas": canvas[n].copy(),
                    "step_rewards": step_rewards,
                    "score_map": score_map[n, 0].cpu().numpy(),
                    "start": self._mode[i],
                    "rows": int(self._rows[i]),
                }
                if nll is not None:
                    episodes[i]["nll_oracle"] = float(nll[n])
        return [episodes[i] for i in finished]

    def _heights(self, which: np.ndarray) -> np.ndarray:
        """Rows of each canvas's image, counted on the coarsest grid."""
        return np.where(self._mode[which] == "scratch", self._rows[which], self.layout.rows)

    def _by_height(self, which: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Rows of the image, and the sub-environments whose image is that tall."""
        heights = self._heights(which)
        return [(int(rows), which[heights == rows]) for rows in np.unique(heights)]

    def _vector_info(self, which: np.ndarray, infos: list[dict[str, Any]]) -> dict[str, Any]:
        """Gymnasium's vector info: an array for each key, and in ``_key`` a mask of who has it.

        (The base class's ``_add_info`` takes arrays of one shape only.)
        """
        vector_info: dict[str, Any] = {}
        mask = np.zeros(self.num_envs, bool)
        mask[which] = True
        for key, first in infos[0].items():
            if len({np.shape(info[key]) for info in infos}) > 1 or isinstance(first, str):
                values = np.full(self.num_envs, None, object)
            else:
                values = np.zeros((self.num_envs, *np.shape(first)), np.asarray(first).dtype)
            for i, info in zip(which, infos, strict=True):
                values[i] = info[key]
            vector_info |= {key: values, f"_{key}": mask.copy()}
        return vector_info

    # --- pictures ---

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One frame for each canvas, uint8 (H, W, 3), as far as it is written.

        Unwritten cells are a grey checker, cells that the episode does not have are dark. Where
        the coarsest level is written and finer ones not yet, the picture is what the former alone
        lets expect. ``overlay`` tints frames.
        """
        if self.render_mode is None:
            return None
        self._over()  # refuses before the first reset
        size = self.bundle.image_size
        scale = -(-RENDER_SIDE // size)
        frames = np.full((self.num_envs, size * scale, size * scale, 3), picture.ABSENT, np.uint8)
        for rows, which in self._by_height(self._everyone):
            canvas = torch.from_numpy(self._canvas[which].astype(np.int64)).to(self.device)
            grids = self.layout.unflatten(canvas, rows)
            images = picture.paint(self._vqvae, grids, self.layout.num_codes, self._usually)
            frames[which, : images.shape[1] * scale] = images.repeat(scale, 1).repeat(scale, 2)
        if self.overlay is not None:
            for i in range(self.num_envs):
                self._tint(i, frames[i], size * scale // self.layout.rows)
        return tuple(frames)

    @cached_property
    def _usually(self) -> list[Tensor] | None:
        """What unwritten finer cells are painted with: learnt from some real codes."""
        if len(self.layout.levels) == 1 or not isinstance(self._vqvae, VQVAE):
            return None
        real = torch.from_numpy(self._real[:200].astype(np.int64)).to(self.device)
        return picture.mean_child_vectors(self._vqvae, self.layout.unflatten(real))

    def _tint(self, i: int, frame: np.ndarray, side: int) -> None:
        """Lay what ``overlay`` asks for over a frame, in place; ``side``: pixels to a row."""
        if self.overlay in ("real", "both") and self._mode[i] == "continue":
            picture.tint(frame[: self._rows[i] * side], picture.REAL)
        canvas = self._canvas[i : i + 1]
        unfinished = self.layout.bands[canvas[0] >= self.layout.empty]
        rows = int(unfinished.min()) if unfinished.size else self.layout.rows
        if self.overlay in ("scores", "both") and rows >= self.min_rows:
            head = self.layout.head(rows)
            score_map = self.score(np.where(head, canvas, self.layout.outside))
            stride = self._strides[0] * side  # in pixels of the frame
            scores = rewards_of.upsample(score_map, (rows * side, frame.shape[1]), stride)
            picture.tint_scores(frame[: rows * side], scores[0].cpu().numpy())

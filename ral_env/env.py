"""LatentCanvasEnv: one canvas of :class:`ral_env.vector.LatentCanvasVectorEnv`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor, nn

from ral_env.bundle import Bundle
from ral_env.layout import CodeLayout
from ral_env.vector import LatentCanvasVectorEnv


class LatentCanvasEnv(gym.Env[np.ndarray, Any]):
    """Write an image, code by code; a discriminator scores it.

    ## Description
    A frozen VQ-VAE turns a grid of codes into an image. The agent writes the codes in raster order,
    level after level, coarsest first. When the last one is written, the image is decoded and a
    PatchGAN scores its patches (Ak et al., ECCV 2020, section 4).

    ## Observation space
    ``Box(0, num_codes + 1, (length,), int16)``: the canvas, all levels in raster order.
    ``num_codes`` is EMPTY, a cell still to be written; ``num_codes + 1`` is OUTSIDE, a cell that
    this episode does not have. ``layout.unflatten(observation)`` gives the grids.

    ## Action space
    ``Discrete(num_codes)``: the code for the first EMPTY cell.

    ## Rewards
    Scores are divided by ``reward_scale`` and clamped to [-1, 1]; real is high.
    - "single" (Eq. 6): 0, and with the last code the mean of the score map.
    - "intermediate": each code earns the score at its own location. Scores are known only when the
      canvas is finished, so the last step pays the sum, and ``info["step_rewards"]`` says what
      each step earned.

    ``reward_source`` replaces the score map in control experiments: "constant" (ones), "random"
    (uniform in [-1, 1)), "shuffled" (another canvas's; needs the vector environment).

    ## Starting state
    ``reset(options={"start": ..., "rows": k, "codes": ...})``; rows count on the coarsest grid.
    - "full": every cell is EMPTY.
    - "continue": the first k rows are real: ``codes`` (flat, grid, or a list of grids), or those
      of an image of the train split.
    - "scratch": only the first k rows exist, all EMPTY; the image is only that tall.
    - "partial": continue or scratch, and the rows, at random (section 4.3).

    ## Episode end
    ``terminated`` when no cell is EMPTY; never ``truncated``. The last ``info`` holds
    ``final_canvas`` int16 (length,), ``step_rewards`` float32 (steps,), ``score_map`` float32
    (h', w') normalised, ``start``, ``rows``, and where the bundle has an oracle ``nll_oracle``: the
    negative log-likelihood in nats of all cells that the episode has.

    ## Arguments
    - ``bundle`` ("faces32"): name or path of a bundle, or a loaded one.
    - ``bundle_required`` (False): refuse anything but the bundle that was asked for.
    - ``reward`` ("single"): or "intermediate".
    - ``reward_source`` ("discriminator"): or "constant", "random", "shuffled".
    - ``start`` ("full"): or "continue", "scratch", "partial"; for resets without that option.
    - ``render_mode`` (None): or "rgb_array".
    - ``device`` ("cpu"): where the networks run.

    All raise a ValueError that says what was expected, as do wrong actions and options.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 16}

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle = "faces32",
        *,
        render_mode: str | None = None,
        **arguments: Any,
    ):
        self._batch = LatentCanvasVectorEnv(
            1, bundle, render_mode=render_mode, autoreset_mode="disabled", **arguments
        )
        self.render_mode = render_mode
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    @property
    def bundle(self) -> Bundle:
        return self._batch.bundle

    @property
    def layout(self) -> CodeLayout:
        return self._batch.layout

    @property
    def min_rows(self) -> int:
        """Fewest rows of a scratch start: what the discriminator can score."""
        return self._batch.min_rows

    def set_discriminator(
        self, net: nn.Module, reward_scale: float, input: str | None = None
    ) -> None:
        """See :meth:`LatentCanvasVectorEnv.set_discriminator`."""
        self._batch.set_discriminator(net, reward_scale, input)

    def load_discriminator(self, state_dict: Mapping[str, Tensor], reward_scale: float) -> None:
        """See :meth:`LatentCanvasVectorEnv.load_discriminator`."""
        self._batch.load_discriminator(state_dict, reward_scale)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._batch.rngs = [self.np_random]
        observations, _ = self._batch.reset(options=options)
        return observations[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        action = np.asarray(action)
        if action.ndim:
            raise ValueError(f"action: got shape {action.shape}, expected a single integer")
        observations, rewards, terminated, _, infos = self._batch.step(action[None])
        info = {key: values[0] for key, values in infos.items() if not key.startswith("_")}
        info = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in info.items()
        }
        return observations[0], float(rewards[0]), bool(terminated[0]), False, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The canvas as far as it is written, uint8 (H, W, 3)."""
        frames = self._batch.render()
        return None if frames is None else frames[0]

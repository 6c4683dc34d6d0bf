"""LatentCanvasEnv: one canvas of :class:`ral_env.envs.vector.LatentCanvasVectorEnv`."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np

from ral_env.bundle import Bundle
from ral_env.envs import infos
from ral_env.envs.frames import Window
from ral_env.envs.options import integers
from ral_env.envs.scored import Scored
from ral_env.envs.specs import StorableSpec
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.layout import CodeLayout


class LatentCanvasEnv(StorableSpec, Scored, gym.Env[np.ndarray, Any]):  # type: ignore[override]
    """Write an image, code by code; a discriminator scores it.

    ## Description
    A frozen VQ-VAE turns a grid of codes into an image. The agent writes the codes in raster order,
    level after level, coarsest first. When the last one is written, the image is decoded and a
    PatchGAN scores its patches (Ak et al., ECCV 2020, section 4).

    ## Observation space
    ``Box(0, num_codes + 1, (length,), int16)``: the canvas, all levels in raster order.
    ``num_codes`` is EMPTY, a cell still to be written; ``num_codes + 1`` is OUTSIDE, a cell that
    this episode does not have. ``layout.unflatten(observation)`` gives the grids, as does the
    wrapper ``ral_env.envs.wrappers.GridObservation``.

    ## Action space
    ``Discrete(num_codes)``: the code for the first EMPTY cell.

    ## Rewards
    Scores are divided by ``reward_scale`` and clamped to [-1, 1]; real is high.
    - "single" (Eq. 6): 0, and with the last code the mean of the score map.
    - "intermediate" (section 4.2): each code earns the score at its location; the score map is
      upsampled to the grid of each level. Scores are known only when the canvas is finished, so the
      last step pays the sum, and ``info["step_rewards"]`` says what each step earned.
    - "rowwise": dense and causal, for agents that do not read infos. When a row of the coarsest
      grid is complete on all levels, the image down to that row is scored, and the codes of the row
      earn the scores at their locations at once. Where the first rows are too few for the
      discriminator, they are paid together with the first row that makes them enough.

    ``reward_fn`` puts a function of your own in the discriminator's place. It is given the finished
    images, float32 (B, 3, H, W) in [-1, 1], or with ``ral_env.envs.reward_fn.takes_codes`` their
    codes, and returns a number (B,) or a map (B, h', w') for each canvas, which is paid as it is,
    neither scaled nor clamped: it is the score map. ``help("ral_env.envs.reward_fn")`` tells all.

    ``reward_source`` replaces the score map in control experiments: "constant" (ones), "random"
    (uniform in [-1, 1)), "shuffled" (that of another canvas; needs the vector environment).

    ## Starting state
    ``reset(options={"start": ..., "rows": k, "codes": ...})``; rows count on the coarsest grid.
    - "full": every cell is EMPTY.
    - "continue": the first k rows are real: ``codes`` (flat, grid, or a list of grids), or those
      of an image of the train split.
    - "scratch": only the first k rows exist, all EMPTY; the image is only that tall.
    - "partial": "continue" or "scratch", at random, and so are the rows (section 4.3).

    ## Episode end
    ``terminated`` when no cell is EMPTY; never ``truncated``. The last ``info`` holds
    ``final_canvas`` int16 (length,), ``step_rewards`` float32 (steps,), ``score_map`` float32
    (h', w') as it was paid, ``start``, an index of ``ral_env.starts.STARTS``, ``rows``, and where
    the bundle has an oracle ``nll_oracle``: the negative log-likelihood in nats of all cells that
    the episode has. All of these are finite numbers.

    ## Arguments
    - ``bundle`` (None): name or path of a bundle, or a loaded one. A bare word is a name; a
      ``Path``, and what has a separator in it, such as "./mine", is a path. None takes the bundle
      that the id names; if it is not found, a stand-in of the same shape (procedural faces), with a
      warning.
      ``env.unwrapped.bundle.dataset`` says what it was trained on.
    - ``task`` (set by the id): the images and grids that a bundle must have.
    - ``bundle_required`` (False): whether to refuse a stand-in.
    - ``reward`` ("single"): or "intermediate", "rowwise".
    - ``reward_source`` ("discriminator"): or "constant", "random", "shuffled".
    - ``reward_fn`` (None): "package.module:function", or a callable; None is the discriminator. A
      name keeps ``env.spec`` such as JSON holds. Starts and times of pay are as without.
    - ``start`` ("full"): or "continue", "scratch", "partial"; for resets without that option.
    - ``render_mode`` (None): or "rgb_array", or "human", a window (needs the extra ``window``).
    - ``overlay`` (None): what tints the frames: "scores" (of the finished rows; green is real, red
      is fake), "real" (the rows that were given are blue), or "both".
    - ``pad_info`` (False): whether to fill ``step_rewards`` with 0 up to ``length`` and
      ``score_map`` with 0 up to the size of a whole image's. The info then has their lengths
      before that, ``steps`` and ``score_rows``. Gymnasium's Sync- and AsyncVectorEnv hold infos of
      one shape only and need this where episodes differ in length; the native vector environment
      does not.
    - ``device`` ("cpu"): device that the networks run on. They compute in float32, whatever
      ``torch.autocast`` or default device the caller has set for its own computations.

    All raise a ValueError that says what was expected, as do wrong actions and options.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 16}

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        render_mode: str | None = None,
        **arguments: Any,
    ):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode={render_mode!r}, expected None or one of "
                f"{self.metadata['render_modes']}"
            )
        self._batch = LatentCanvasVectorEnv(
            1,
            bundle,
            render_mode=render_mode and "rgb_array",
            autoreset_mode="disabled",
            **arguments,
        )
        self.render_mode = render_mode
        self.scorer = self._batch.scorer
        human = render_mode == "human"
        self._window = (
            Window(str(self.bundle.dataset), self.metadata["render_fps"]) if human else None
        )
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    @property
    def bundle(self) -> Bundle:
        """The bundle that it runs on."""
        return self._batch.bundle

    @property
    def layout(self) -> CodeLayout:
        """How the codes of all levels lie in an observation."""
        return self._batch.layout

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: seed of the generator, or None: it goes on where it is.
            options: ``start``, ``rows``, ``codes``; see "Starting state" above.

        Returns:
            The observation int16 (length,), and an empty info.
        """
        super().reset(seed=seed)
        self._batch.rngs[0] = self.np_random
        observations, _ = self._batch.reset(options=options)
        self._show()
        return observations[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Write ``action``, a code, into the first EMPTY cell.

        Returns:
            The observation int16 (length,), the reward, terminated, False (never truncated), and
            the info: empty before the end.
        """
        action = integers("action", action, ())
        observations, rewards, terminated, _, batch_info = self._batch.step(action[None])
        info = infos.of_first(batch_info)
        self._show()
        return observations[0], float(rewards[0]), bool(terminated[0]), False, info

    def render(self) -> Any:  # Gymnasium types it as a type variable of its own
        """The canvas as far as it is written, uint8 (H, W, 3); None if it is shown in a window."""
        frames = self._batch.render()
        return None if frames is None or self._window else frames[0]

    def _show(self) -> None:
        if self._window:
            frames = self._batch.render()
            assert frames is not None
            self._window.show(frames[0])

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window:
            self._window.close()

"""Frames of canvases for people: painted as far as codes are written, and shown in a window."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ral_env import picture, reward
from ral_env.bundle import RealCodes
from ral_env.envs.options import choose
from ral_env.envs.scorer import Scorer
from ral_env.envs.shapes import Canvas, Frame, Frames, Rows
from ral_env.nets import VQVAE

OVERLAYS = (None, "scores", "real", "both")
SIDE = 256  # pixels: frames are magnified until the short side has as many


class FramePainter:
    """Paints canvases that may be unfinished.

    Unwritten cells are a grey checker, cells that the episode does not have are dark. Where the
    coarsest level is written and finer ones not yet, the picture is the mean of what real images
    have beneath the same codes.

    Args:
        scorer: decodes and scores.
        real: real codes (N, length), of which the first 200 give those means.
        overlay: None, or what frames are tinted with: "scores" (of the finished rows: green is
            real, red is fake), "real" (the rows that were given are blue), or "both".

    Raises:
        ValueError: if there is no such overlay.
    """

    def __init__(self, scorer: Scorer, real: RealCodes, overlay: str | None):
        self.scorer, self.layout = scorer, scorer.layout
        self.overlay = choose("overlay", overlay, OVERLAYS)
        self._real = real

    def paint(self, canvas: Canvas, heights: Rows, given_rows: Rows) -> tuple[Frame, ...]:
        """One frame for each canvas, uint8 (H, W, 3), 256 pixels or more a side.

        Args:
            canvas: codes, EMPTY and OUTSIDE, int16 (n, length).
            heights: int64 (n,), rows of the coarsest grid that each has.
            given_rows: int64 (n,), how many of them were given as real.
        """
        size = self.scorer.image_size
        scale = -(-SIDE // size)
        frames = np.full((len(canvas), size * scale, size * scale, 3), picture.ABSENT, np.uint8)
        for rows in np.unique(heights):
            which = heights == rows
            images = self.images(canvas[which], int(rows))
            frames[which, : images.shape[1] * scale] = images.repeat(scale, 1).repeat(scale, 2)
        row_side = size * scale // self.layout.rows  # pixels to a row of the coarsest grid
        for i, frame in enumerate(frames):
            if self.overlay in ("real", "both"):
                picture.tint(frame[: given_rows[i] * row_side], picture.REAL)
            if self.overlay in ("scores", "both"):
                self._tint_scores(canvas[i : i + 1], frame, row_side)
        return tuple(frames)

    def images(self, canvas: Canvas, rows: int) -> Frames:
        """Canvases of one height without overlay, in the size of the image.

        Args:
            canvas: codes, EMPTY and OUTSIDE, int16 (n, length).
            rows: rows of the coarsest grid that each has.

        Returns:
            uint8 (n, H, W, 3); H is the image's share of those rows.
        """
        codes = torch.from_numpy(canvas.astype(np.int64)).to(self.scorer.device)
        grids = self.layout.unflatten(codes, rows)
        with self.scorer.apart():
            return picture.paint(
                self.scorer.codec, grids, self.layout.num_codes, self._mean_child_vectors
            )

    @cached_property
    def _mean_child_vectors(self) -> list[Tensor] | None:
        """What unwritten finer cells are painted with; None where there is no finer level."""
        if len(self.layout.levels) == 1 or not isinstance(self.scorer.codec, VQVAE):
            return None
        real = torch.from_numpy(self._real[:200].astype(np.int64)).to(self.scorer.device)
        return picture.mean_child_vectors(self.scorer.codec, self.layout.unflatten(real))

    def _tint_scores(self, canvas: np.ndarray, frame: np.ndarray, row_side: int) -> None:
        """Tint the finished rows of one canvas (1, length), once they are enough to be scored."""
        unfinished = self.layout.bands[canvas[0] >= self.layout.empty]
        rows = int(unfinished.min()) if unfinished.size else self.layout.rows
        if rows < self.scorer.min_rows:
            return
        finished = np.where(self.layout.head(rows), canvas, self.layout.outside)
        shape, score_map = (rows * row_side, frame.shape[1]), self.scorer.score(finished)
        stride = self.scorer.cells_per_score(score_map, shape[1])  # in pixels of the frame
        scores = reward.upsample(score_map, shape, stride)
        picture.tint_scores(frame[: rows * row_side], scores[0].cpu().numpy())


class Window:
    """A window that shows frames; the first frame opens it, and a copy opens another one.

    Args:
        caption: its title.
        fps: frames a second at most.
    """

    def __init__(self, caption: str, fps: int):
        self.caption, self.fps = caption, fps
        self._surface: Any = None
        self._clock: Any = None

    def show(self, frame: Frame) -> None:
        """Show a frame, uint8 (H, W, 3); waits until the one before has had its time.

        Raises:
            gymnasium.error.DependencyNotInstalled: if there is no pygame.
            ValueError: if there is no screen. ``SDL_VIDEODRIVER=dummy`` asks for none.
        """
        try:
            import pygame
        except ModuleNotFoundError as error:
            raise gym.error.DependencyNotInstalled(
                "render_mode='human' needs pygame: pip install 'ral-env[window]'"
            ) from error
        if self._surface is None:
            pygame.display.init()  # not pygame.init(), which wants sound as well
            driver = pygame.display.get_driver()
            if driver in ("dummy", "offscreen") and "SDL_VIDEODRIVER" not in os.environ:
                pygame.display.quit()
                raise ValueError(
                    "a window needs a screen, and none was found here: `ral view` opens a page in "
                    "the browser instead, and `ral film` writes a GIF"
                )
            self._surface = pygame.display.set_mode(frame.shape[1::-1])
            pygame.display.set_caption(self.caption)
            self._clock = pygame.time.Clock()
        pygame.event.pump()
        # pygame counts columns first.
        self._surface.blit(pygame.surfarray.make_surface(frame.transpose(1, 0, 2)), (0, 0))
        pygame.display.flip()
        self._clock.tick(self.fps)

    def close(self) -> None:
        """Close it, if it is open; the next frame opens it again."""
        if self._surface is not None:
            import pygame

            pygame.display.quit()
            self._surface = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Window, (self.caption, self.fps)

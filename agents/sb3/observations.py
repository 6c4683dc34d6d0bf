"""What a policy is shown: canvases to be written, and finished ones that tell what was written.

A *step* is a canvas as the environment shows it, with the code to be chosen at its first EMPTY
cell. An *episode* is the finished canvas, in which the codes that the episode wrote are raised by
``num_codes + 2``: the row alone tells every state and every action of it.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ral_env.layout import CodeLayout


def raise_written(canvases: np.ndarray, written: np.ndarray, num_codes: int) -> np.ndarray:
    """Episodes as rows: finished canvases (B, length), raised where they were ``written``."""
    return np.where(written, canvases + num_codes + 2, canvases)


def read(observations: Tensor, layout: CodeLayout) -> tuple[Tensor, Tensor]:
    """Canvases, and which of their cells ask for a code.

    Args:
        observations: steps or episodes (B, length), of any dtype.

    Returns:
        The canvases, int64 (B, length), and the cells, bool (B, length): of a step the first EMPTY
        one, of an episode all that it wrote.

    Raises:
        ValueError: if they are no canvases, ask for nothing, or are of both kinds.
    """
    canvas = observations.long()
    if observations.is_floating_point() and not torch.equal(
        canvas.to(observations.dtype), observations
    ):
        raise ValueError(
            "observations are not whole numbers: VecNormalize(norm_obs=True) destroys codes, "
            "expected norm_obs=False"
        )
    if canvas.shape[1:] != (layout.length,) or not (
        0 <= int(canvas.min()) <= int(canvas.max()) < 2 * layout.num_codes + 2
    ):
        raise ValueError(
            f"observations {tuple(canvas.shape)} hold {int(canvas.min())} to "
            f"{int(canvas.max())}, expected (B, {layout.length}) of codes, "
            f"{layout.empty} (EMPTY) and {layout.outside} (OUTSIDE)"
        )
    written, empty = canvas > layout.outside, canvas == layout.empty
    if not written.any():
        first = empty.int().argmax(1, keepdim=True)
        asked = torch.zeros_like(empty).scatter_(1, first, True)
        if not (asked & empty).any(1).all():
            raise ValueError(
                "a canvas is finished: no cell is EMPTY, so there is no code to choose"
            )
        return canvas, asked
    if empty.any() or not written.any(1).all():
        raise ValueError(
            "canvases to be written and finished episodes are mixed, expected one or the other"
        )
    return torch.where(written, canvas - layout.outside - 1, canvas), written


def check_spaces(
    observations: gym.spaces.Space, actions: gym.spaces.Space, layout: CodeLayout
) -> None:
    """Refuse spaces that are not those of canvases of a layout.

    Raises:
        ValueError: says what they are and what was expected.
    """
    fits = (
        isinstance(observations, gym.spaces.Box)
        and isinstance(actions, gym.spaces.Discrete)
        and observations.shape == (layout.length,)
        and observations.high.max() == layout.outside
        and actions.n == layout.num_codes
    )
    if not fits:
        raise ValueError(
            f"the environment has {observations} and {actions}, but priors of {layout} expect "
            f"canvases of {layout.length} cells up to {layout.outside} and {layout.num_codes} "
            "codes: take both from one bundle, and leave observations unwrapped"
        )

"""Infos at the end of episodes, in the forms in which Gymnasium passes them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def of_batch(
    which: np.ndarray, infos: Sequence[Mapping[str, Any]], num_envs: int
) -> dict[str, Any]:
    """A vector info: an array for each key, and in ``_key`` a mask of the canvases that have it.

    Gymnasium's ``_add_info`` does the same for arrays of one shape only; episodes differ in length.

    Args:
        which: the canvases (k,) that have an info.
        infos: theirs, all with the same keys.
        num_envs: canvases of the batch.
    """
    batch: dict[str, Any] = {}
    mask = np.zeros(num_envs, bool)
    mask[which] = True
    for key, first in infos[0].items():
        if len({np.shape(info[key]) for info in infos}) > 1:
            values = np.full(num_envs, None, object)
        else:
            values = np.zeros((num_envs, *np.shape(first)), np.asarray(first).dtype)
        for i, info in zip(which, infos, strict=True):
            values[i] = info[key]
        batch |= {key: values, f"_{key}": mask.copy()}
    return batch


def before_reset(
    which: np.ndarray, canvas: np.ndarray, info: Mapping[str, Any], pad: bool = False
) -> dict[str, Any]:
    """The vector info of a step in which finished canvases are reset (autoreset "same_step").

    Args:
        which: the canvases that are.
        canvas: int16 (num_envs, length), before the reset.
        info: the vector info of their episodes.
        pad: whether ``final_obs`` is one int16 array, of 0 where a canvas is not reset. Gymnasium's
            is of objects, which no tensor can be made of, and of None there.
    """
    mask = np.zeros(len(canvas), bool)
    mask[which] = True
    final = np.zeros_like(canvas) if pad else np.full(len(canvas), None, object)
    for i in which:
        final[i] = canvas[i].copy()
    return {
        "final_obs": final,
        "_final_obs": mask,
        "final_info": dict(info),
        "_final_info": mask.copy(),
    }


def of_first(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The info of the first canvas in a vector info; numbers as Python's types."""
    found = {key: values[0] for key, values in batch.items() if not key.startswith("_")}
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in found.items()
    }


def padded(info: Mapping[str, Any], length: int) -> dict[str, Any]:
    """A final info whose arrays have the shapes of an episode that writes the whole canvas.

    ``step_rewards`` is filled with 0 up to ``length``, and ``score_map`` with rows of 0 up to a
    square; ``steps`` and ``score_rows`` say how long they were.
    """
    rewards, score_map = info["step_rewards"], info["score_map"]
    missing = score_map.shape[1] - score_map.shape[0]  # a whole image's map is square
    return {
        **info,
        "step_rewards": np.pad(rewards, (0, length - len(rewards))),
        "score_map": np.pad(score_map, ((0, missing), (0, 0))),
        "steps": len(rewards),
        "score_rows": len(score_map),
    }

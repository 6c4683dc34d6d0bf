"""What callers hand to an environment, checked: settings, actions, codes, seeds, reset options.

Every function returns what it was given in the one form that the dynamics work with, or raises a
ValueError that says what was given and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from ral_env.layout import CodeLayout

RESET_OPTIONS = ("start", "rows", "codes", "reset_mask")


def choose(name: str, value: Any, allowed: Sequence[str | None]) -> Any:
    """The value of the setting ``name``, which has to be one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}, expected one of {tuple(allowed)}")
    return value


def autoreset(mode: str | AutoresetMode) -> AutoresetMode:
    """Gymnasium's mode of that name: "next_step", "same_step" or "disabled"."""
    if isinstance(mode, AutoresetMode):
        return mode
    names = [known.name.lower() for known in AutoresetMode]
    return AutoresetMode[choose("autoreset_mode", mode, names).upper()]


def torch_device(device: str | torch.device) -> torch.device:
    """The device of that name, once it has computed something."""
    try:
        found = torch.device(device)
        torch.ones(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError) as error:  # as PyTorch lacks it, or has none
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device={device!r} cannot be used ({reason}), expected 'cpu', or what PyTorch has "
            "here, such as 'cuda' or 'cuda:1'"
        ) from error
    return found


def no_time_limit(max_episode_steps: int | None) -> None:
    """Refuse a time limit for a batch: its episodes end when their canvases are written."""
    if max_episode_steps is not None:
        raise ValueError(
            f"max_episode_steps={max_episode_steps}, expected None: episodes of this vector "
            'environment end when no cell is EMPTY. vectorization_mode="sync" takes a limit'
        )


def integers(what: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """``value`` (numbers, an array or a tensor) as an integer array, of ``shape`` if that is given.

    ``what`` names it in the error.
    """
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


def check_codes(what: str, codes: np.ndarray, num_codes: int) -> None:
    """Refuse integers that are no codes; EMPTY and OUTSIDE are none."""
    wrong = codes[(codes < 0) | (codes >= num_codes)]
    if wrong.size:
        raise ValueError(f"{what}: got {wrong[0]}, expected codes from 0 to {num_codes - 1}")


def finished_canvas(codes: Any, canvas: np.ndarray, layout: CodeLayout) -> np.ndarray:
    """Codes (n, length) that fill the EMPTY cells of ``canvas`` and change no other cell."""
    codes = integers("codes", codes, canvas.shape)
    empty = canvas == layout.empty
    if changed := int(((codes != canvas) & ~empty).sum()):
        raise ValueError(
            f"codes: {changed} cells differ that were not EMPTY, expected the observation with "
            "only its EMPTY cells replaced"
        )
    check_codes("codes", codes[empty], layout.num_codes)
    return codes


def seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """A seed for each sub-environment; None leaves its generator as it is."""
    if seed is None or isinstance(seed, int | np.integer):
        return [None if seed is None else int(seed) + i for i in range(num_envs)]
    if len(given := list(seed)) != num_envs:
        raise ValueError(f"{len(given)} seeds were given, expected {num_envs}")
    return given


@dataclass(frozen=True)
class ResetOptions:
    """The options of one reset.

    Attributes:
        which: int64 (k,), the canvases that are reset.
        start: one of :data:`ral_env.starts.START_MODES`; other words are refused where it is drawn.
        rows: rows of the coarsest grid, or None to draw them.
        codes: integers (num_envs, length), whose first rows are the real rows of a continue start,
            or None to take those of real images.
    """

    which: np.ndarray
    start: str
    rows: Any
    codes: np.ndarray | None


def reset_options(
    options: Mapping[str, Any] | None, default_start: str, num_envs: int, layout: CodeLayout
) -> ResetOptions:
    """The options of a vector environment's reset; all are optional, see :data:`RESET_OPTIONS`."""
    options = dict(options or {})
    if unknown := set(options) - set(RESET_OPTIONS):
        raise ValueError(
            f"unknown reset options {sorted(unknown)}, expected those of {RESET_OPTIONS}"
        )
    mask = np.asarray(options.get("reset_mask", np.ones(num_envs, bool)))
    if mask.shape != (num_envs,) or mask.dtype != bool or not mask.any():
        raise ValueError(
            f"reset_mask: got {mask.dtype} {mask.shape}, expected bool ({num_envs},) with one or "
            "more True"
        )
    start, codes = options.get("start"), options.get("codes")
    start = default_start if start is None else start
    if codes is not None:
        if start not in ("continue", "partial"):
            raise ValueError(
                f"codes were given with start={start!r}, expected start='continue' (or "
                "'partial'): no other start has real rows"
            )
        codes = _real_codes(codes, num_envs, layout)
    return ResetOptions(np.flatnonzero(mask), start, options.get("rows"), codes)


def _real_codes(codes: Any, num_envs: int, layout: CodeLayout) -> np.ndarray:
    """The option ``codes`` in any of its forms (flat, a grid, a list of grids; of one canvas or of
    each) as (num_envs, length)."""
    levels = len(layout.levels)
    if isinstance(codes, list | tuple) and [np.ndim(g) > 1 for g in codes] == [True] * levels:
        flat = layout.flatten([integers("codes", grid) for grid in codes])
    else:
        flat = integers("codes", codes)
        if levels == 1 and flat.shape[-2:] == layout.levels[0]:
            flat = layout.flatten([flat])
    if flat.shape not in ((layout.length,), (1, layout.length), (num_envs, layout.length)):
        raise ValueError(
            f"codes: got shape {flat.shape}, expected grids of {layout.levels} or flat "
            f"({layout.length},), with a leading {num_envs} if canvases differ"
        )
    check_codes("codes", flat, layout.num_codes)
    return np.broadcast_to(flat, (num_envs, layout.length))

"""Playing environments that are checked, and comparing what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from ral_env.layout import CodeLayout

TOLERANCE = 1e-5  # relative to the size of numbers, and of what adds up to them


@dataclass(frozen=True)
class Case:
    """An environment that is to be checked.

    Args:
        make: makes a new environment.
        make_vec: makes a new vector environment of so many canvases; only vector checks call it.
        seed: of episodes and of the codes that are written.
        options: of every reset; short episodes make quick checks.
    """

    make: Callable[[], gym.Env[Any, Any]]
    make_vec: Callable[[int], VectorEnv] | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def reset(self, env: Any, seeded: bool = True) -> tuple[Any, dict[str, Any]]:
        """Reset with the options, and with the seed unless the generators are to go on."""
        return env.reset(seed=self.seed if seeded else None, options=dict(self.options))

    def batch(self, count: int) -> Any:
        """A new vector environment."""
        if self.make_vec is None:
            raise ValueError("make_vec=None: a vector check needs what makes a vector environment")
        return self.make_vec(count)


@dataclass(frozen=True)
class Step:
    """An action, and what a step returned: of one environment, or of a batch."""

    action: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: dict[str, Any]


def layout_of(env: Any) -> CodeLayout:
    """The layout that every environment of codes has as ``unwrapped.layout``."""
    layout = getattr(env.unwrapped, "layout", None)
    assert isinstance(layout, CodeLayout), f"unwrapped.layout is {layout!r}, no CodeLayout"
    return layout


def play(env: Any, case: Case) -> tuple[np.ndarray, list[Step]]:
    """The start, and a step for every EMPTY cell of it, unless the episode ends before.

    Of a batch the first canvas counts; the others are taken to have the same EMPTY cells.
    """
    layout, codes = layout_of(env), np.random.default_rng(case.seed)
    start, steps = case.reset(env)[0].copy(), []
    for _ in range(int((np.atleast_2d(start)[0] == layout.empty).sum())):
        steps.append(
            take_step(env, codes.integers(layout.num_codes, size=start.shape[:-1] or None))
        )
        if np.any(steps[-1].terminated) or np.any(steps[-1].truncated):
            break
    assert steps, "no cell is EMPTY after a reset"
    return start, steps


def take_step(env: Any, action: Any) -> Step:
    """One step of the environment, with a copy of what it returned."""
    observation, *rest = env.step(action)
    return Step(action, np.array(observation), *rest)  # a copy: the environment may reuse it


def before_reset(envs: Any, last: Step) -> tuple[Any, dict[str, Any]]:
    """The observations and the info of the last step, whether or not it has reset the canvases."""
    if envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP:
        for key in ("final_obs", "final_info"):
            assert key in last.info, f"the last info has no {key!r}, which same_step has"
        return last.info["final_obs"], last.info["final_info"]
    return last.observation, last.info


def refused(what: str, call: Callable[[], Any]) -> None:
    """The call has to raise a ValueError, or an error of Gymnasium's."""
    try:
        call()
    except (ValueError, gym.error.Error):
        return
    except Exception as error:
        raise AssertionError(f"{what} raised {error!r}, and no ValueError") from error
    raise AssertionError(f"{what} was not refused")


def same_steps(steps: list[Step], others: list[Step]) -> None:
    """The same to the bit."""
    assert len(steps) == len(others), f"an episode of {len(steps)} steps took {len(others)}"
    for n, (step, other) in enumerate(zip(steps, others, strict=True)):
        alike(f"step {n}'s", vars(other), vars(step), terms=0)


def alike(what: str, found: Any, expected: Any, terms: int = 1) -> None:
    """Equal; numbers but for rounding, where ``terms`` numbers of about 1 add up to each.

    With no terms there is none: numbers are equal to the bit.
    """
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), f"{what} {sorted(found)} are not all that is due"
        for key in expected:
            alike(f"{what} {key}", found[key], expected[key], terms)
        return
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"{what} has shape {found.shape}, not {expected.shape}"
    if expected.dtype == object:
        for one, other in zip(found, expected, strict=True):
            alike(what, one, other, terms)
    elif expected.dtype.kind == "f" and terms:
        same = np.allclose(found, expected, TOLERANCE, TOLERANCE * terms, equal_nan=True)
        assert same, f"{what} is {found}, not {expected}"
    else:
        same = np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")
        assert same, f"{what} is {found}, not {expected}"

"""What every environment of codes promises, as checks that anyone's can be put to.

An environment of codes is a Gymnasium environment whose ``unwrapped.layout`` is a
:class:`ral_env.layout.CodeLayout`. Its observation is the canvas: a code in every cell that is
written, EMPTY in every cell that is still to be written, OUTSIDE in every cell that the episode
does not have. Its action is the code for the first EMPTY cell, so that an observation alone says
what an action will do.

Check one at once, or let pytest show each promise by itself::

    from ral_env.testing import CHECKS, VECTOR_CHECKS, Case, check_codes_env

    check_codes_env(MyEnv, MyVectorEnv)

    @pytest.mark.parametrize("check", [*CHECKS, *VECTOR_CHECKS])
    def test_my_environment_keeps_its_promises(check):
        check(Case(MyEnv, MyVectorEnv))

A check raises an AssertionError that says what was promised and what happened instead. Numbers that
one canvas and a batch, or steps and ``complete``, both compute may differ by 1e-5 of their size.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ral_env import StandInWarning
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


def check_codes_env(
    make: Callable[[], gym.Env[Any, Any]],
    make_vec: Callable[[int], VectorEnv] | None = None,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Put an environment of codes to all checks; arguments are those of :class:`Case`.

    Without ``make_vec``, :data:`VECTOR_CHECKS` are left out.

    Raises:
        AssertionError: names the first promise that is broken, and what happened instead.
    """
    case = Case(make, make_vec, seed, options or {})
    for check in (*CHECKS, *(VECTOR_CHECKS if make_vec else ())):
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__.replace('_', ' ')}: {error}") from error


# --- one canvas ---


def spaces_are_those_of_the_layout(case: Case) -> None:
    """``Box(0, num_codes + 1, (length,), int16)`` and ``Discrete(num_codes)``."""
    env = case.make()
    layout = _layout(env)
    box = gym.spaces.Box(0, layout.outside, (layout.length,), np.int16)
    assert env.observation_space == box, f"observations are of {env.observation_space}, not {box}"
    discrete = gym.spaces.Discrete(layout.num_codes)
    assert env.action_space == discrete, f"actions are of {env.action_space}, not {discrete}"


def an_episode_begins_with_cells_to_write(case: Case) -> None:
    """A reset returns a canvas with EMPTY cells, and no info."""
    env = case.make()
    observation, info = case.reset(env)
    inside = isinstance(observation, np.ndarray) and observation in env.observation_space
    assert inside, f"{observation!r} is not in {env.observation_space}"
    assert (observation == _layout(env).empty).any(), "no cell is EMPTY after a reset"
    assert info == {}, f"a reset returned the info {info}"


def an_action_is_written_into_the_first_empty_cell(case: Case) -> None:
    """And into no other: neither codes that are there nor OUTSIDE cells ever change."""
    env = case.make()
    canvas, steps = _episode(env, case)
    for n, step in enumerate(steps):
        expected = canvas.copy()
        expected[int((canvas == _layout(env).empty).argmax())] = step.action
        space = env.observation_space
        assert step.observation in space, f"the observation of step {n} is not in {space}"
        wrong = np.flatnonzero(step.observation != expected)
        assert not wrong.size, f"step {n} left cells {wrong} other than they had to be"
        canvas = step.observation


def an_episode_ends_when_no_cell_is_empty(case: Case) -> None:
    """It is ``terminated`` then and not before, and never ``truncated``."""
    env = case.make()
    _, steps = _episode(env, case)
    for n, step in enumerate(steps):
        over = not (step.observation == _layout(env).empty).any()
        for name in ("terminated", "truncated"):
            value = getattr(step, name)
            assert type(value) is bool, f"{name} is a {type(value).__name__} in step {n}"
        assert step.terminated == over, f"terminated is {step.terminated} in step {n}"
        assert not step.truncated, f"step {n} is truncated"
    assert steps[-1].terminated, f"the episode has not ended after {len(steps)} steps"


def infos_come_at_the_end(case: Case) -> None:
    """All are empty but the last one, which holds ``final_canvas`` and ``step_rewards``.

    ``final_canvas`` is the last observation, ``step_rewards`` float32 (steps,). Where there are a
    ``score_map``, ``start`` or ``rows``, they are float32 (h', w') in [-1, 1]; "full", "continue"
    or "scratch"; and an int.
    """
    env = case.make()
    _, steps = _episode(env, case)
    for n, step in enumerate(steps[:-1]):
        assert step.info == {}, f"step {n} is not the last and returned the info {step.info}"
    info = steps[-1].info
    for key in ("final_canvas", "step_rewards"):
        assert key in info, f"the last info has {sorted(info)}, and no {key!r}"
    canvas, rewards = info["final_canvas"], info["step_rewards"]
    same = canvas.dtype == np.int16 and np.array_equal(canvas, steps[-1].observation)
    assert same, "final_canvas is not the last observation, int16"
    assert rewards.dtype == np.float32 and rewards.shape == (len(steps),), (
        f"step_rewards are {rewards.dtype} {rewards.shape} after {len(steps)} steps"
    )
    if "score_map" in info:
        score_map = info["score_map"]
        sound = score_map.dtype == np.float32 and score_map.ndim == 2 and abs(score_map).max() <= 1
        assert sound, "score_map is not float32 (h', w') in [-1, 1]"
    start, rows = info.get("start", "full"), info.get("rows", 1)
    assert start in ("full", "continue", "scratch"), f"start is {start!r}"
    assert type(rows) is int and 1 <= rows <= _layout(env).rows, f"rows is {rows!r}"


def rewards_add_up_to_the_step_rewards(case: Case) -> None:
    """An episode's return is the sum of ``step_rewards``: all are finite, and Python's floats."""
    _, steps = _episode(case.make(), case)
    for n, step in enumerate(steps):
        kind = type(step.reward)
        assert kind in (float, int), f"the reward of step {n} is of type {kind.__name__}"
        assert np.isfinite(step.reward), f"the reward of step {n} is {step.reward}"
    expected = steps[-1].info["step_rewards"]
    _alike("the return", sum(step.reward for step in steps), expected.sum(dtype=float), len(steps))


def a_seed_is_an_episode(case: Case) -> None:
    """One seed and the same actions give the same episode: again, and in another environment.

    So do resets without a seed that follow it.
    """
    env, other = case.make(), case.make()
    start, steps = _episode(env, case)
    for one in (env, other):
        again, repeated = _episode(one, case)
        _alike("the start", again, start)
        _same_steps(steps, repeated)
    for _ in range(3):
        later, others = (case.reset(one, seeded=False)[0] for one in (env, other))
        assert np.array_equal(later, others), "resets without a seed differ after the same seed"


def observations_are_the_callers(case: Case) -> None:
    """Writing on an observation changes nothing in the environment."""
    (_, expected), env = _episode(case.make(), case), case.make()
    observation, _ = case.reset(env)
    for n, step in enumerate(expected):
        observation[0] = observation[0] == 0
        observation = env.step(step.action)[0]
        assert np.array_equal(observation, step.observation), f"step {n} shows what was written"


def what_is_no_code_is_refused(case: Case) -> None:
    """A ValueError says so, and the canvas stays as it is."""
    env = case.make()
    layout, canvas = _layout(env), case.reset(env)[0]
    for action in (-1, layout.empty, layout.outside, 0.5, "a", None):
        _refused(f"the action {action!r}", lambda action=action: env.step(action))
    after = env.step(0)[0]
    assert (after != canvas).sum() == 1, "actions that were refused have changed the canvas"


def steps_are_refused_before_a_reset_and_after_the_end(case: Case) -> None:
    """A ValueError, or Gymnasium's ResetNeeded, says so."""
    env = case.make()
    _refused("a step before the first reset", lambda: env.step(0))
    _episode(env, case)
    _refused("a step after the end", lambda: env.step(0))
    case.reset(env)
    env.step(0)


def a_copy_goes_on_by_itself(case: Case) -> None:
    """A deep copy in the middle of an episode ends it alike; neither moves the other."""
    (_, expected), env = _episode(case.make(), case), case.make()
    case.reset(env)
    env.step(expected[0].action)
    both = (copy.deepcopy(env), env)
    for step in expected[1:]:
        for one in both:
            _same_steps([step], [_step(one, step.action)])
    starts = [one.reset()[0] for one in both]
    assert np.array_equal(*starts), "a copy begins another episode than the original"


def gymnasiums_checker_finds_nothing(case: Case) -> None:
    """Gymnasium's ``check_env`` passes without a warning; rendering is left out."""
    env = case.make().unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", StandInWarning)
        try:
            check_env(env, skip_render_check=True)
        except (Warning, gym.error.Error) as error:
            raise AssertionError(str(error)) from error


# --- a batch of canvases ---


def spaces_of_a_batch_are_those_of_one(case: Case) -> None:
    """``single_...`` are the spaces of one environment, and the others are batches of them."""
    env, envs = case.make(), case.batch(3)
    assert envs.num_envs == 3, f"num_envs is {envs.num_envs}, of 3"
    for name in ("observation_space", "action_space"):
        one, many = getattr(envs, f"single_{name}"), getattr(envs, name)
        assert one == getattr(env, name), f"single_{name} is {one}"
        assert many == batch_space(one, 3), f"{name} is {many}"


def canvases_that_begin_together_end_together(case: Case) -> None:
    """One start is drawn for all: the same cells are EMPTY in every canvas, and in every step."""
    envs = case.batch(3)
    observations, steps = _episode(envs, case)
    for n, step in enumerate(steps):
        empty = observations == _layout(envs).empty
        assert (empty == empty[0]).all(), f"other cells are EMPTY in other canvases at step {n}"
        ends = step.terminated
        assert len({*ends.tolist()}) == 1, f"step {n} ends some canvases and others not: {ends}"
        observations = step.observation


def one_canvas_is_the_first_of_a_batch(case: Case) -> None:
    """A seed gives the same episode alone and as the first of a batch."""
    env, envs = case.make(), case.batch(2)
    canvas, (start, steps) = case.reset(env)[0], _episode(envs, case)
    assert np.array_equal(canvas, start[0]), "it begins otherwise"
    for n, step in enumerate(steps):
        canvas, reward, terminated, truncated, info = env.step(int(step.action[0]))
        shown, batch_info = _before_reset(envs, step) if terminated else (step.observation, {})
        assert np.array_equal(canvas, shown[0]), f"step {n} gives another canvas"
        ends = (bool(step.terminated[0]), bool(step.truncated[0]))
        assert (terminated, truncated) == ends, f"step {n} ends otherwise"
        _alike(f"the reward of step {n}", step.reward[0], reward, len(canvas))
        for key, value in info.items():
            assert key in batch_info, f"the info of a batch has no {key!r}"
            _alike(f"the info {key!r}", batch_info[key][0], value, len(canvas))


def complete_is_all_steps_that_are_left(case: Case) -> None:
    """``complete(codes)`` returns what the last step would: from the start, and from the middle.

    A vector environment without that method passes.
    """
    stepped, whole = case.batch(2), case.batch(2)
    if not hasattr(whole.unwrapped, "complete"):
        return
    for middle in (False, True):
        codes, steps = _episode(stepped, case)
        _alike("the start", case.reset(whole)[0], codes)
        cells = np.flatnonzero(codes[0] == _layout(stepped).empty)
        for step, cell in zip(steps, cells, strict=True):
            codes[:, cell] = step.action
        for step in steps[: len(steps) // 2 if middle else 0]:
            whole.step(step.action)
        result = Step(steps[-1].action, *whole.unwrapped.complete(codes))
        when = "after some steps" if middle else "at once"
        _alike(f"what complete returns {when},", vars(result), vars(steps[-1]), codes.shape[1])


def canvases_are_reset_as_metadata_says(case: Case) -> None:
    """``metadata["autoreset_mode"]`` is Gymnasium's, and what happens after the end is that."""
    envs = case.batch(2)
    mode = envs.metadata.get("autoreset_mode")
    assert isinstance(mode, AutoresetMode), f"autoreset_mode is {mode!r}"
    last = _episode(envs, case)[1][-1]
    zeros = np.zeros(2, np.int64)
    if mode is AutoresetMode.DISABLED:
        _refused("a step after the end", lambda: envs.step(zeros))
        return
    final, info = _before_reset(envs, last)
    _alike("the last observation", np.stack(final), np.stack(info["final_canvas"]))
    observations = last.observation
    if mode is AutoresetMode.NEXT_STEP:
        observations, rewards, *ends, info = envs.step(zeros)
        assert not (rewards.any() or np.any(ends) or info), "the step that resets pays or ends"
    empty = observations == _layout(envs).empty
    assert empty.any(1).all(), "no cell is EMPTY after the reset"
    after = envs.step(zeros)[0]
    assert (after[[0, 1], empty.argmax(1)] == 0).all(), "the first action is not written"


CHECKS: tuple[Callable[[Case], None], ...] = (
    spaces_are_those_of_the_layout,
    an_episode_begins_with_cells_to_write,
    an_action_is_written_into_the_first_empty_cell,
    an_episode_ends_when_no_cell_is_empty,
    infos_come_at_the_end,
    rewards_add_up_to_the_step_rewards,
    a_seed_is_an_episode,
    observations_are_the_callers,
    what_is_no_code_is_refused,
    steps_are_refused_before_a_reset_and_after_the_end,
    a_copy_goes_on_by_itself,
    gymnasiums_checker_finds_nothing,
)
VECTOR_CHECKS: tuple[Callable[[Case], None], ...] = (
    spaces_of_a_batch_are_those_of_one,
    canvases_that_begin_together_end_together,
    one_canvas_is_the_first_of_a_batch,
    complete_is_all_steps_that_are_left,
    canvases_are_reset_as_metadata_says,
)


# --- how they are played and compared ---


@dataclass(frozen=True)
class Step:
    """An action, and what a step returned: of one environment, or of a batch."""

    action: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: dict[str, Any]


def _layout(env: Any) -> CodeLayout:
    layout = getattr(env.unwrapped, "layout", None)
    assert isinstance(layout, CodeLayout), f"unwrapped.layout is {layout!r}, no CodeLayout"
    return layout


def _episode(env: Any, case: Case) -> tuple[np.ndarray, list[Step]]:
    """The start, and a step for every EMPTY cell of it, unless the episode ends before.

    Of a batch the first canvas counts; the others are taken to have the same EMPTY cells.
    """
    layout, codes = _layout(env), np.random.default_rng(case.seed)
    start, steps = case.reset(env)[0].copy(), []
    for _ in range(int((np.atleast_2d(start)[0] == layout.empty).sum())):
        steps.append(_step(env, codes.integers(layout.num_codes, size=start.shape[:-1] or None)))
        if np.any(steps[-1].terminated) or np.any(steps[-1].truncated):
            break
    assert steps, "no cell is EMPTY after a reset"
    return start, steps


def _step(env: Any, action: Any) -> Step:
    observation, *rest = env.step(action)
    return Step(action, np.array(observation), *rest)  # a copy: the environment may reuse it


def _before_reset(envs: Any, last: Step) -> tuple[Any, dict[str, Any]]:
    """The observations and the info of the last step, whether or not it has reset the canvases."""
    if envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP:
        for key in ("final_obs", "final_info"):
            assert key in last.info, f"the last info has no {key!r}, which same_step has"
        return last.info["final_obs"], last.info["final_info"]
    return last.observation, last.info


def _refused(what: str, call: Callable[[], Any]) -> None:
    """The call has to raise a ValueError, or an error of Gymnasium's."""
    try:
        call()
    except (ValueError, gym.error.Error):
        return
    except Exception as error:
        raise AssertionError(f"{what} raised {error!r}, and no ValueError") from error
    raise AssertionError(f"{what} was not refused")


def _same_steps(steps: list[Step], others: list[Step]) -> None:
    """The same to the bit."""
    assert len(steps) == len(others), f"an episode of {len(steps)} steps took {len(others)}"
    for n, (step, other) in enumerate(zip(steps, others, strict=True)):
        _alike(f"step {n}'s", vars(other), vars(step), terms=0)


def _alike(what: str, found: Any, expected: Any, terms: int = 1) -> None:
    """Equal; numbers but for rounding, where ``terms`` numbers of about 1 add up to each.

    With no terms there is none: numbers are equal to the bit.
    """
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), f"{what} {sorted(found)} are not all that is due"
        for key in expected:
            _alike(f"{what} {key}", found[key], expected[key], terms)
        return
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"{what} has shape {found.shape}, not {expected.shape}"
    if expected.dtype == object:
        for one, other in zip(found, expected, strict=True):
            _alike(what, one, other, terms)
    elif expected.dtype.kind == "f" and terms:
        same = np.allclose(found, expected, TOLERANCE, TOLERANCE * terms, equal_nan=True)
        assert same, f"{what} is {found}, not {expected}"
    else:
        same = np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")
        assert same, f"{what} is {found}, not {expected}"

"""Promises of an environment of one canvas."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from ral_env import StandInWarning, starts
from ral_env.testing.play import Case, alike, layout_of, play, refused, same_steps, take_step


def spaces_are_those_of_the_layout(case: Case) -> None:
    """``Box(0, num_codes + 1, (length,), int16)`` and ``Discrete(num_codes)``."""
    env = case.make()
    layout = layout_of(env)
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
    assert (observation == layout_of(env).empty).any(), "no cell is EMPTY after a reset"
    assert info == {}, f"a reset returned the info {info}"


def an_action_is_written_into_the_first_empty_cell(case: Case) -> None:
    """And into no other: neither codes that are there nor OUTSIDE cells ever change."""
    env = case.make()
    canvas, steps = play(env, case)
    for n, step in enumerate(steps):
        expected = canvas.copy()
        expected[int((canvas == layout_of(env).empty).argmax())] = step.action
        space = env.observation_space
        assert step.observation in space, f"the observation of step {n} is not in {space}"
        wrong = np.flatnonzero(step.observation != expected)
        assert not wrong.size, f"step {n} left cells {wrong} other than they had to be"
        canvas = step.observation


def an_episode_ends_when_no_cell_is_empty(case: Case) -> None:
    """It is ``terminated`` then and not before, and never ``truncated``."""
    env = case.make()
    _, steps = play(env, case)
    for n, step in enumerate(steps):
        over = not (step.observation == layout_of(env).empty).any()
        for name in ("terminated", "truncated"):
            value = getattr(step, name)
            assert type(value) is bool, f"{name} is a {type(value).__name__} in step {n}"
        assert step.terminated == over, f"terminated is {step.terminated} in step {n}"
        assert not step.truncated, f"step {n} is truncated"
    assert steps[-1].terminated, f"the episode has not ended after {len(steps)} steps"


def infos_come_at_the_end(case: Case) -> None:
    """All are empty but the last one, which holds ``final_canvas`` and ``step_rewards``.

    ``final_canvas`` is the last observation, ``step_rewards`` float32 (steps,). Where there are a
    ``score_map``, ``start`` or ``rows``, they are float32 (h', w'), in [-1, 1] unless
    ``unwrapped.reward_fn`` pays; an int, the number of one of ``ral_env.starts.STARTS``; and an
    int.
    """
    env = case.make()
    _, steps = play(env, case)
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
        sound = score_map.dtype == np.float32 and score_map.ndim == 2
        assert sound, "score_map is not float32 (h', w')"
        own = getattr(env.unwrapped, "reward_fn", None) is not None
        assert own or abs(score_map).max() <= 1, "score_map is not in [-1, 1]"
    start, rows = info.get("start", 0), info.get("rows", 1)
    assert type(start) is int and 0 <= start < len(starts.STARTS), f"start is {start!r}"
    assert type(rows) is int and 1 <= rows <= layout_of(env).rows, f"rows is {rows!r}"


def infos_hold_finite_numbers(case: Case) -> None:
    """And nothing else: learners put infos into arrays and tensors."""
    for n, step in enumerate(play(case.make(), case)[1]):
        for key, value in step.info.items():
            array = np.asarray(value)
            sound = array.dtype.kind in "biuf" and np.isfinite(array).all()
            assert sound, f"info[{key!r}] of step {n} is {value!r}, and no finite number or numbers"


def rewards_add_up_to_the_step_rewards(case: Case) -> None:
    """An episode's return is the sum of ``step_rewards``: all are finite, and Python's floats."""
    _, steps = play(case.make(), case)
    for n, step in enumerate(steps):
        kind = type(step.reward)
        assert kind in (float, int), f"the reward of step {n} is of type {kind.__name__}"
        assert np.isfinite(step.reward), f"the reward of step {n} is {step.reward}"
    expected = steps[-1].info["step_rewards"]
    alike("the return", sum(step.reward for step in steps), expected.sum(dtype=float), len(steps))


def a_seed_is_an_episode(case: Case) -> None:
    """One seed and the same actions give the same episode: again, and in another environment.

    So do resets without a seed that follow it.
    """
    env, other = case.make(), case.make()
    start, steps = play(env, case)
    for one in (env, other):
        again, repeated = play(one, case)
        alike("the start", again, start)
        same_steps(steps, repeated)
    for _ in range(3):
        later, others = (case.reset(one, seeded=False)[0] for one in (env, other))
        assert np.array_equal(later, others), "resets without a seed differ after the same seed"


def observations_are_the_callers(case: Case) -> None:
    """Writing on an observation changes nothing in the environment."""
    (_, expected), env = play(case.make(), case), case.make()
    observation, _ = case.reset(env)
    for n, step in enumerate(expected):
        observation[0] = observation[0] == 0
        observation = env.step(step.action)[0]
        assert np.array_equal(observation, step.observation), f"step {n} shows what was written"


def what_is_no_code_is_refused(case: Case) -> None:
    """A ValueError says so, and the canvas stays as it is."""
    env = case.make()
    layout, canvas = layout_of(env), case.reset(env)[0]
    for action in (-1, layout.empty, layout.outside, 0.5, "a", None):
        refused(f"the action {action!r}", lambda action=action: env.step(action))
    after = env.step(0)[0]
    assert (after != canvas).sum() == 1, "actions that were refused have changed the canvas"


def steps_are_refused_before_a_reset_and_after_the_end(case: Case) -> None:
    """A ValueError, or Gymnasium's ResetNeeded, says so."""
    env = case.make()
    refused("a step before the first reset", lambda: env.step(0))
    play(env, case)
    refused("a step after the end", lambda: env.step(0))
    case.reset(env)
    env.step(0)


def a_copy_goes_on_by_itself(case: Case) -> None:
    """A deep copy in the middle of an episode ends it alike; neither moves the other."""
    (_, expected), env = play(case.make(), case), case.make()
    case.reset(env)
    env.step(expected[0].action)
    both = (copy.deepcopy(env), env)
    for step in expected[1:]:
        for one in both:
            same_steps([step], [take_step(one, step.action)])
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


CHECKS: tuple[Callable[[Case], None], ...] = (
    spaces_are_those_of_the_layout,
    an_episode_begins_with_cells_to_write,
    an_action_is_written_into_the_first_empty_cell,
    an_episode_ends_when_no_cell_is_empty,
    infos_come_at_the_end,
    infos_hold_finite_numbers,
    rewards_add_up_to_the_step_rewards,
    a_seed_is_an_episode,
    observations_are_the_callers,
    what_is_no_code_is_refused,
    steps_are_refused_before_a_reset_and_after_the_end,
    a_copy_goes_on_by_itself,
    gymnasiums_checker_finds_nothing,
)

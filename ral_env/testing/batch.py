"""Promises of an environment of a batch of canvases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ral_env.testing.play import Case, Step, alike, before_reset, layout_of, play, refused


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
    observations, steps = play(envs, case)
    for n, step in enumerate(steps):
        empty = observations == layout_of(envs).empty
        assert (empty == empty[0]).all(), f"other cells are EMPTY in other canvases at step {n}"
        ends = step.terminated
        assert len({*ends.tolist()}) == 1, f"step {n} ends some canvases and others not: {ends}"
        observations = step.observation


def one_canvas_is_the_first_of_a_batch(case: Case) -> None:
    """A seed gives the same episode alone and as the first of a batch."""
    env, envs = case.make(), case.batch(2)
    canvas, (start, steps) = case.reset(env)[0], play(envs, case)
    assert np.array_equal(canvas, start[0]), "it begins otherwise"
    for n, step in enumerate(steps):
        canvas, reward, terminated, truncated, info = env.step(int(step.action[0]))
        shown, batch_info = before_reset(envs, step) if terminated else (step.observation, {})
        assert np.array_equal(canvas, shown[0]), f"step {n} gives another canvas"
        ends = (bool(step.terminated[0]), bool(step.truncated[0]))
        assert (terminated, truncated) == ends, f"step {n} ends otherwise"
        alike(f"the reward of step {n}", step.reward[0], reward, len(canvas))
        for key, value in info.items():
            assert key in batch_info, f"the info of a batch has no {key!r}"
            alike(f"the info {key!r}", batch_info[key][0], value, len(canvas))


def complete_is_all_steps_that_are_left(case: Case) -> None:
    """``complete(codes)`` returns what the last step would: from the start, and from the middle.

    A vector environment without that method passes.
    """
    stepped, whole = case.batch(2), case.batch(2)
    if not hasattr(whole.unwrapped, "complete"):
        return
    for middle in (False, True):
        codes, steps = play(stepped, case)
        alike("the start", case.reset(whole)[0], codes)
        cells = np.flatnonzero(codes[0] == layout_of(stepped).empty)
        for step, cell in zip(steps, cells, strict=True):
            codes[:, cell] = step.action
        for step in steps[: len(steps) // 2 if middle else 0]:
            whole.step(step.action)
        result = Step(steps[-1].action, *whole.unwrapped.complete(codes))
        when = "after some steps" if middle else "at once"
        alike(f"what complete returns {when},", vars(result), vars(steps[-1]), codes.shape[1])


def canvases_are_reset_as_metadata_says(case: Case) -> None:
    """``metadata["autoreset_mode"]`` is Gymnasium's, and what happens after the end is that."""
    envs = case.batch(2)
    mode = envs.metadata.get("autoreset_mode")
    assert isinstance(mode, AutoresetMode), f"autoreset_mode is {mode!r}"
    last = play(envs, case)[1][-1]
    zeros = np.zeros(2, np.int64)
    if mode is AutoresetMode.DISABLED:
        refused("a step after the end", lambda: envs.step(zeros))
        return
    final, info = before_reset(envs, last)
    alike("the last observation", np.stack(final), np.stack(info["final_canvas"]))
    observations = last.observation
    if mode is AutoresetMode.NEXT_STEP:
        observations, rewards, *ends, info = envs.step(zeros)
        assert not (rewards.any() or np.any(ends) or info), "the step that resets pays or ends"
    empty = observations == layout_of(envs).empty
    assert empty.any(1).all(), "no cell is EMPTY after the reset"
    after = envs.step(zeros)[0]
    assert (after[[0, 1], empty.argmax(1)] == 0).all(), "the first action is not written"


VECTOR_CHECKS: tuple[Callable[[Case], None], ...] = (
    spaces_of_a_batch_are_those_of_one,
    canvases_that_begin_together_end_together,
    one_canvas_is_the_first_of_a_batch,
    complete_is_all_steps_that_are_left,
    canvases_are_reset_as_metadata_says,
)

"""A third party's environment passes the conformance suite; one that breaks a promise fails it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ral_env.layout import CodeLayout
from ral_env.testing import CHECKS, VECTOR_CHECKS, Case, check_codes_env

STAY = CodeLayout(levels=((4, 2), (8, 4)), num_codes=5)


class Echo(gym.Env):
    """A code earns 1 if it repeats the one before it. One row is given, and the last is OUTSIDE."""

    layout = STAY

    def __init__(self):
        self.observation_space = gym.spaces.Box(0, 6, (self.layout.length,), np.int16)
        self.action_space = gym.spaces.Discrete(5)
        self.canvas = np.zeros(0, np.int16)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        given, rows = self.layout.head(1), self.layout.head(3)
        self.canvas = np.full(self.layout.length, self.layout.outside, np.int16)
        self.canvas[rows] = self.layout.empty
        self.canvas[given] = self.np_random.integers(5, size=given.sum())
        self.earned: list[float] = []
        return self.canvas.copy(), {}

    def step(self, action: Any) -> Any:
        empty = np.flatnonzero(self.canvas == self.layout.empty)
        if not empty.size:
            raise ValueError("no cell is EMPTY: call reset()")
        if not isinstance(action, int | np.integer) or not 0 <= action < 5:
            raise ValueError(f"action={action!r}, expected a code from 0 to 4")
        self.canvas[empty[0]] = action
        self.earned.append(float(self.canvas[empty[0] - 1] == action))
        if len(empty) > 1:
            return self.canvas.copy(), 0.0, False, False, {}
        steps = np.array(self.earned, np.float32)
        info = {"final_canvas": self.canvas.copy(), "step_rewards": steps}
        return self.canvas.copy(), sum(self.earned), True, False, info


class EchoBatch(SyncVectorEnv):
    """Gymnasium's vector environment of them, with ``complete``."""

    def __init__(self, count: int, kind: type[Echo] = Echo, **settings: Any):
        super().__init__([kind] * count, **settings)
        self.layout = kind.layout

    def complete(self, codes: np.ndarray) -> Any:
        result: Any = None
        for cell in np.flatnonzero(self.envs[0].unwrapped.canvas == self.layout.empty):  # type: ignore[attr-defined]
            result = self.step(codes[:, cell])
        return result


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_third_partys_environment_passes(mode):
    check_codes_env(Echo, partial(EchoBatch, autoreset_mode=mode), seed=3)
    check_codes_env(Echo, seed=4, options={"start": "full"})


@pytest.mark.parametrize("check", [*CHECKS, *VECTOR_CHECKS])
def test_a_third_partys_environment_passes_each_check_by_itself(check):
    check(Case(Echo, EchoBatch))


# --- environments that each break one promise: the check that says so, and its words ---


def stepping(change) -> type[Echo]:
    """An Echo whose steps return what ``change`` makes of (environment, observation, ..., info)."""

    class Changed(Echo):
        def step(self, action: Any) -> Any:
            return change(self, *super().step(action))

    return Changed


def ending(change) -> type[Echo]:
    """An Echo whose last info is what ``change`` makes of it."""
    return stepping(lambda _, *result: (*result[:4], change(result[4]) if result[2] else {}))


class WiderSpace(Echo):
    def __init__(self):
        super().__init__()
        self.observation_space = gym.spaces.Box(0, 7, (self.layout.length,), np.int16)


class NoLayout(Echo):
    layout = None  # type: ignore[assignment]

    def __init__(self):
        self.observation_space = gym.spaces.Box(0, 6, (40,), np.int16)
        self.action_space = gym.spaces.Discrete(5)


class BeginsFinished(Echo):
    def reset(self, **arguments: Any) -> Any:
        super().reset(**arguments)
        self.canvas[self.canvas == self.layout.empty] = 0
        return self.canvas.copy(), {}


class TellsAtReset(Echo):
    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0], {"rows": 3}


class WritesFromTheEnd(Echo):
    def step(self, action: Any) -> Any:
        result = super().step(action)
        return self.turned(result[0]), *result[1:]

    def turned(self, canvas: np.ndarray) -> np.ndarray:
        written = canvas.copy()
        cells = slice(2, 6)  # two rows of the top level
        written[cells] = written[cells][::-1]
        return written


class UsesOutside(Echo):
    def step(self, action: Any) -> Any:
        result = super().step(action)
        self.canvas[-1] = 0
        return self.canvas.copy(), *result[1:]


class DrawsElsewhere(Echo):
    generator = np.random.default_rng(0)

    def reset(self, **arguments: Any) -> Any:
        super().reset(**arguments)
        self.canvas[self.layout.head(1)] = self.generator.integers(5, size=10)
        return self.canvas.copy(), {}


class ForgetsItsGenerator(Echo):
    """Draws anew from the system when a reset has no seed."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        return super().reset(seed=np.random.randint(2**31) if seed is None else seed)


class SharesItsCanvas(Echo):
    def step(self, action: Any) -> Any:
        return self.canvas, *super().step(action)[1:]


class TakesAnything(Echo):
    def step(self, action: Any) -> Any:
        return super().step(action if isinstance(action, int | np.integer) and action < 5 else 0)


class GoesOn(Echo):
    def step(self, action: Any) -> Any:
        if self.canvas.size and not (self.canvas == self.layout.empty).any():
            return self.canvas.copy(), 0.0, True, False, {}
        return super().step(action)


class SharesAcrossCopies(Echo):
    def __deepcopy__(self, memo: dict) -> Echo:
        return self


class TakesNoSeed(Echo):
    def reset(self, options: dict | None = None, **arguments: Any) -> Any:
        return super().reset(options=options, **arguments)


SINGLE = {
    "a wider space": (WiderSpace, "spaces are those of the layout", "observations are of"),
    "no layout": (NoLayout, "spaces are those of the layout", "no CodeLayout"),
    "nothing to write": (BeginsFinished, "an episode begins with cells", "no cell is EMPTY"),
    "an info at reset": (TellsAtReset, "an episode begins with cells", "returned the info"),
    "another order": (WritesFromTheEnd, "an action is written into the first", "left cells"),
    "OUTSIDE is written": (UsesOutside, "an action is written into the first", "left cells"),
    "an int64 observation": (
        stepping(lambda _, obs, *rest: (obs.astype(np.int64), *rest)),
        "an action is written into the first",
        "is not in Box",
    ),
    "truncated at the end": (
        stepping(lambda _, obs, reward, end, __, info: (obs, reward, False, end, info)),
        "an episode ends when no cell is empty",
        "terminated is False",
    ),
    "numpy's bool": (
        stepping(lambda _, obs, reward, end, cut, info: (obs, reward, np.bool_(end), cut, info)),
        "an episode ends when no cell is empty",
        "terminated is a bool",
    ),
    "an info on the way": (
        stepping(lambda _, *before: (*before[:4], before[4] or {"step": 1})),
        "infos come at the end",
        "step 0 is not the last",
    ),
    "an info without the canvas": (
        ending(lambda info: {"step_rewards": info["step_rewards"]}),
        "infos come at the end",
        "no 'final_canvas'",
    ),
    "a word in an info": (
        ending(lambda info: {**info, "how": "well"}),
        "infos hold finite numbers",
        r"info\['how'\] of step 19 is 'well'",
    ),
    "NaN in an info": (
        ending(lambda info: {**info, "score": np.float32("nan")}),
        "infos hold finite numbers",
        "score.* no finite number",
    ),
    "a word for the start": (
        ending(lambda info: {**info, "start": "full"}),
        "infos come at the end",
        "start is 'full'",
    ),
    "step rewards of float64": (
        ending(lambda info: {**info, "step_rewards": info["step_rewards"].astype(float)}),
        "infos come at the end",
        "step_rewards are float64",
    ),
    "a return that is no sum": (
        stepping(lambda _, obs, reward, *rest: (obs, reward + 1e-2, *rest)),
        "rewards add up to the step rewards",
        "the return is",
    ),
    "numpy's float": (
        stepping(lambda _, obs, reward, *rest: (obs, np.float32(reward), *rest)),
        "rewards add up to the step rewards",
        "of type float32",
    ),
    "a generator of its own": (DrawsElsewhere, "a seed is an episode", "the start is"),
    "a generator that forgets": (ForgetsItsGenerator, "a seed is an episode", "resets without"),
    "a shared canvas": (SharesItsCanvas, "observations are the callers", "step 1 shows what was"),
    "any action": (TakesAnything, "what is no code is refused", "was not refused"),
    "steps after the end": (GoesOn, "steps are refused", "a step after the end was not refused"),
    "copies that are none": (SharesAcrossCopies, "a copy goes on by itself", "step 0's"),
    "a reset without seed": (TakesNoSeed, "gymnasiums checker finds nothing", "seed"),
}


@pytest.mark.parametrize("variant", SINGLE)
def test_an_environment_that_breaks_a_promise_fails(variant):
    kind, promise, words = SINGLE[variant]
    with pytest.raises(AssertionError, match=f"^{promise}.*{words}"):
        check_codes_env(kind, partial(EchoBatch, kind=kind))


class SeedsOtherwise(EchoBatch):
    def reset(self, *, seed: Any = None, options: dict | None = None) -> Any:
        return super().reset(seed=None if seed is None else seed + 1, options=options)


class NoMask(EchoBatch):
    def step(self, actions: Any) -> Any:
        return *super().step(actions)[:4], {}


class OfTwoLengths(Echo):
    """Every other one has a row more."""

    made = 0

    def __init__(self):
        super().__init__()
        self.rows = 3 + OfTwoLengths.made % 2
        OfTwoLengths.made += 1

    def reset(self, **arguments: Any) -> Any:
        super().reset(**arguments)
        self.canvas[self.layout.head(self.rows) & ~self.layout.head(1)] = self.layout.empty
        return self.canvas.copy(), {}


class CompletesWithoutPay(EchoBatch):
    def complete(self, codes: np.ndarray) -> Any:
        obs, rewards, *rest = super().complete(codes)
        return obs, np.zeros_like(rewards), *rest


class CompletesFromTheStart(EchoBatch):
    """Pays what is written before ``complete`` twice."""

    def complete(self, codes: np.ndarray) -> Any:
        before = np.array([sum(env.unwrapped.earned) for env in self.envs])  # type: ignore[attr-defined]
        obs, rewards, *rest = super().complete(codes)
        return obs, rewards + before, *rest


class SaysOtherwise(EchoBatch):
    def __init__(self, count: int):
        super().__init__(count, autoreset_mode=AutoresetMode.SAME_STEP)
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}


class SaysAWord(EchoBatch):
    def __init__(self, count: int):
        super().__init__(count)
        self.metadata = {"autoreset_mode": "next_step"}


BATCHES = {
    "other spaces": (lambda n: EchoBatch(n, WiderSpace), "spaces of a batch", "single_observation"),
    "one canvas too many": (lambda n: EchoBatch(n + 1), "spaces of a batch", "num_envs is 4"),
    "two lengths": (lambda n: EchoBatch(n, OfTwoLengths), "canvases that begin", "other cells"),
    "other seeds": (SeedsOtherwise, "one canvas is the first of a batch", "it begins otherwise"),
    "no infos": (NoMask, "one canvas is the first of a batch", "no 'final_canvas'"),
    "no pay": (CompletesWithoutPay, "complete is all steps", "at once, reward is"),
    "paid twice": (CompletesFromTheStart, "complete is all steps", "after some steps, reward is"),
    "the other autoreset": (SaysOtherwise, "one canvas is the first", "gives another canvas"),
    "a word for a mode": (SaysAWord, "canvases are reset as", "autoreset_mode is 'next_step'"),
}


@pytest.mark.parametrize("variant", BATCHES)
def test_a_batch_that_breaks_a_promise_fails(variant):
    kind, promise, words = BATCHES[variant]
    with pytest.raises(AssertionError, match=f"^{promise}.*{words}"):
        check_codes_env(Echo, kind)


def test_a_vector_check_without_a_vector_environment_is_refused():
    with pytest.raises(ValueError, match="make_vec=None"):
        VECTOR_CHECKS[0](Case(Echo))


def test_the_suite_needs_no_pytest():
    code = "import sys, ral_env.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

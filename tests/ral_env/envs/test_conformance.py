"""Every environment id keeps the same promises, on whatever bundle it runs."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import close
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from test_contracts import assert_alike
from test_episode import STARTS, fill

from ral_env import bundle, starts
from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.tasks import TASKS
from ral_env.testing import CHECKS, VECTOR_CHECKS, Case, check_codes_env

ANY = "RALBundle-v0"  # runs on two levels here
KEYS = {"final_canvas", "step_rewards", "score_map", "start", "rows"}

pytestmark = pytest.mark.filterwarnings("ignore::ral_env.StandInWarning")


@pytest.fixture(params=[*TASKS, ANY])
def name(request) -> str:
    return request.param


@pytest.fixture
def settings(name, tiny_two) -> dict[str, Any]:
    return {"bundle": str(tiny_two)} if name == ANY else {}


@pytest.fixture
def make(name, settings):
    return partial(gym.make, name, **settings)


@pytest.fixture
def make_vec(name, settings):
    return partial(gym.make_vec, name, **settings)


def short(env) -> dict[str, Any]:
    """Options of the shortest episodes: one coarsest row is to be written, the rest is real."""
    return {"start": "continue", "rows": env.unwrapped.layout.rows - 1}


def finish(env: Any, seed: int = 0) -> list[tuple]:
    """Step with random codes until the end; the results of every step."""
    codes, results = np.random.default_rng(seed), []
    while not results or not results[-1][2]:
        results.append(env.step(codes.integers(env.action_space.n)))
    return results


def assert_same_results(a: list[tuple], b: list[tuple]) -> None:
    assert len(a) == len(b)
    for (obs, reward, *ends, info), (other, reward_, *ends_, info_) in zip(a, b, strict=True):
        assert np.array_equal(obs, other) and ends == ends_ and info.keys() == info_.keys()
        assert reward == reward_ and all(np.array_equal(info[key], info_[key]) for key in info)


# --- the conformance suite ---


@pytest.mark.parametrize("check", [*CHECKS, *VECTOR_CHECKS])
def test_every_id_keeps_every_promise(make, make_vec, check):
    """In short episodes; the next one after an autoreset is whole."""
    case = Case(partial(make, reward="rowwise"), partial(make_vec, reward="rowwise"))
    check(dataclasses.replace(case, options=short(make())))


@pytest.mark.parametrize("options", STARTS, ids=lambda o: o["start"])
@pytest.mark.parametrize(
    ("reward", "mode"),
    [("single", "next_step"), ("intermediate", "same_step"), ("rowwise", "disabled")],
)
def test_every_promise_is_kept_from_every_start(tiny_two, reward, mode, options):
    settings = {"bundle": bundle.load(tiny_two), "reward": reward}
    check_codes_env(
        partial(LatentCanvasEnv, **settings),
        partial(LatentCanvasVectorEnv, **settings, autoreset_mode=mode),
        options=options,
    )


# --- what an id is ---


def test_spaces_and_layout_are_the_tasks(name, make):
    env = make().unwrapped
    levels, num_codes, size = ((8, 8), (16, 16)), 16, 32  # of tiny_two
    if name in TASKS:
        levels, num_codes, size = (
            getattr(TASKS[name], key) for key in ("levels", "num_codes", "image_size")
        )
    length = sum(h * w for h, w in levels)
    assert env.observation_space == gym.spaces.Box(0, num_codes + 1, (length,), np.int16)
    assert env.action_space == gym.spaces.Discrete(num_codes)
    assert (env.layout.levels, env.layout.num_codes) == (levels, num_codes)
    assert env.layout.length == length and env.bundle.image_size == size
    obs, _ = env.reset()
    assert obs.dtype == np.int16 and (obs == num_codes).all()


def test_gymnasiums_check_passes_in_every_render_mode_without_a_warning(make, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    check_env(make(render_mode="rgb_array", reward="rowwise").unwrapped)


def test_stable_baselines_check_passes_without_a_warning(make):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(make(render_mode="rgb_array", start="continue").unwrapped)


def test_a_spec_survives_json(name, make):
    env = make(reward="intermediate", start="scratch")
    again: Any = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec and again.spec.id == name
    assert again.unwrapped.bundle.path == env.unwrapped.bundle.path
    for one in (env, again):
        one.reset(seed=3)
        one.reset(seed=3, options=short(one))
    assert_same_results(finish(env), finish(again))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_made_mid_episode_goes_on_by_itself(make, how):
    env = make(reward="rowwise", start="continue").unwrapped
    env.reset(seed=1, options=short(env))
    env.step(2)
    other = how(env)
    assert_same_results(finish(env), finish(other))
    # Each has its generator: they draw the same, and neither's draws move the other's.
    assert other.np_random is not env.np_random
    for _ in range(2):
        assert np.array_equal(env.reset()[0], other.reset()[0])
    before = copy.deepcopy(other.np_random.bit_generator.state)
    env.reset()
    assert other.np_random.bit_generator.state == before


# --- one episode, alone and in a batch ---


def test_native_and_sync_vector_environments_agree(make_vec):
    native = make_vec(num_envs=2, vectorization_mode="vector_entry_point", reward="rowwise")
    sync = make_vec(num_envs=2, vectorization_mode="sync", reward="rowwise")
    assert isinstance(native.unwrapped, LatentCanvasVectorEnv)
    assert native.observation_space == sync.observation_space
    assert native.action_space == sync.action_space
    options, codes = short(native), np.random.default_rng(0)
    obs, theirs = (envs.reset(seed=4, options=options)[0] for envs in (native, sync))
    mine, info = [], {}
    steps = sum(h * w // native.layout.rows for h, w in native.layout.levels)
    for _ in range(steps):
        assert obs.dtype == theirs.dtype and np.array_equal(obs, theirs)
        actions = codes.integers(0, native.layout.num_codes, 2)
        obs, *mine, info = native.step(actions)
        theirs, *others, their_info = sync.step(actions)
        for a, b in zip(mine, others, strict=True):
            assert a.dtype == b.dtype and a == close(b, steps)
        assert_alike(info, their_info, steps)
    assert mine[1].all() and info["score_map"].shape[0] == 2


def test_the_order_of_a_batch_does_not_matter(make_vec):
    order = [2, 0, 1]
    envs = make_vec(num_envs=3, reward="intermediate")
    envs.set_discriminator(envs.discriminator, 10 * envs.reward_scale)  # next to none is clamped
    first, _ = envs.reset(seed=[7, 8, 9], options=short(envs))
    codes = fill(envs, first)
    _, rewards, *_, info = envs.complete(codes)
    obs, _ = envs.reset(seed=[9, 7, 8], options=short(envs))
    assert np.array_equal(obs, first[order]) and len({*rewards}) == 3
    _, permuted, *_, other = envs.complete(codes[order])
    assert permuted == close(rewards[order], info["step_rewards"].shape[1])
    for key in ("step_rewards", "score_map"):
        assert other[key] == close(info[key][order])


def test_the_final_info_says_what_is_promised(name, make):
    env = make(reward="intermediate")
    env.reset(seed=0, options=short(env))
    *before, (obs, reward, terminated, truncated, info) = finish(env)
    assert all(step[1:] == (0.0, False, False, {}) for step in before)
    assert (terminated, truncated, type(reward)) == (True, False, float)
    oracle = env.unwrapped.bundle.oracles
    assert bool(oracle) == ("Oracle" in name or name == ANY)
    assert set(info) == KEYS | ({"nll_oracle"} if oracle else set())
    assert (starts.STARTS[info["start"]], info["rows"]) == tuple(short(env).values())
    assert info["final_canvas"].dtype == np.int16 and np.array_equal(info["final_canvas"], obs)
    assert info["step_rewards"].dtype == info["score_map"].dtype == np.float32
    assert info["step_rewards"].shape == (len(before) + 1,) and info["score_map"].ndim == 2
    assert abs(info["score_map"]).max() <= 1
    assert reward == close(info["step_rewards"].sum(dtype=float))
    if oracle:  # between the best and the worst that a prior could say of so many codes
        assert 0 < info["nll_oracle"] < 30 * env.unwrapped.layout.length


# --- other processes ---


def test_a_fresh_interpreter_makes_a_prefixed_id():
    ids = ["RALDigits-v0", "RALCelebA128-v0", "RALOracleTwoLevel-v0"]
    code = (
        "import sys, gymnasium\n"
        "for id in sys.argv[1:]:\n"
        "    env = gymnasium.make('ral_env:' + id)\n"
        "    print(env.spec.id, env.reset()[0].size, env.step(0)[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *ids], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sizes = [sum(h * w for h, w in TASKS[id].levels) for id in ids]
    assert done.stdout.splitlines() == [
        f"{id} {size} (0.0, False, False, {{}})" for id, size in zip(ids, sizes, strict=True)
    ]


def test_a_spawned_worker_makes_a_prefixed_id():
    envs = gym.make_vec(
        "ral_env:RALFaces32-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
    )
    try:
        obs, _ = envs.reset(seed=0, options={"start": "continue", "rows": 7})
        native, ends, info = gym.make_vec("RALFaces32-v0", num_envs=2), [], {}
        assert np.array_equal(
            obs, native.reset(seed=0, options={"start": "continue", "rows": 7})[0]
        )
        for actions in np.random.default_rng(0).integers(0, 64, (8, 2)):
            (obs, rewards, *ends, info), expected = envs.step(actions), native.step(actions)
            assert np.array_equal(obs, expected[0])
            assert rewards == close(expected[1])
        assert ends[0].all() and np.array_equal(info["final_canvas"], obs)
    finally:
        envs.close()

"""What Gymnasium and Stable-Baselines3 demand of an environment holds, without a warning."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import close
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from ral_env.envs.vector import LatentCanvasVectorEnv

ID = "RALTiny-v0"


@pytest.fixture(autouse=True)
def registered(tiny):
    gym.register(
        ID,
        entry_point="ral_env.envs.single:LatentCanvasEnv",
        vector_entry_point="ral_env.envs.vector:LatentCanvasVectorEnv",
        kwargs={"bundle": str(tiny)},
    )
    yield
    gym.registry.pop(ID)


@pytest.mark.parametrize("start", ["full", "partial"])
@pytest.mark.parametrize("reward", ["single", "intermediate"])
def test_gymnasiums_check_passes_without_a_warning(start, reward, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # it makes a window, too
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(ID, start=start, reward=reward, render_mode="rgb_array")
        check_env(env.unwrapped, skip_render_check=False)


@pytest.mark.parametrize("start", ["full", "partial"])
def test_stable_baselines_check_passes_without_a_warning(start):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.make(ID, start=start, render_mode="rgb_array").unwrapped)


def test_make_runs_an_episode_through_gymnasiums_own_wrappers():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.wrappers.RecordEpisodeStatistics(gym.make(ID, reward="intermediate"))
        env.reset(seed=0)
        for _ in range(63):
            assert env.step(env.action_space.sample())[2:4] == (False, False)
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert (terminated, truncated) == (True, False)
    assert info["episode"]["l"] == 64 and info["episode"]["r"] == close(reward)
    assert env.spec is not None and ID in env.spec.to_json()
    assert env.get_wrapper_attr("bundle").dataset == "noise"


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_make_vec_gives_the_native_vector_environment(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gym.make_vec(ID, num_envs=3, autoreset_mode=mode)
        assert isinstance(envs, LatentCanvasVectorEnv)
        assert envs.metadata["autoreset_mode"] is AutoresetMode[mode.upper()]
        obs, _ = envs.reset(seed=0)
        obs, rewards, terminated, truncated, info = envs.step(envs.action_space.sample())
    assert obs in envs.observation_space and rewards.dtype == np.float64
    assert terminated.dtype == truncated.dtype == bool and info == {}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_native_vector_environment_speaks_as_gymnasiums_own(tiny, mode):
    """Same seeds, same actions, through SyncVectorEnv over the single environment."""
    native: Any = gym.make_vec(
        ID, num_envs=2, autoreset_mode=mode.name.lower(), reward="intermediate"
    )
    sync = gym.make_vec(
        ID,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        reward="intermediate",
    )
    obs, theirs = native.reset(seed=0)[0], sync.reset(seed=0)[0]
    rng = np.random.default_rng(0)
    for _ in range(67):  # past the end of the first episode
        assert np.array_equal(obs, theirs)
        actions = rng.integers(0, 16, 2)
        (obs, *mine, info), (theirs, *others, their_info) = native.step(actions), sync.step(actions)
        for a, b in zip(mine, others, strict=True):
            assert a.dtype == b.dtype and a == close(b, native.layout.length)
        assert_alike(info, their_info)


def assert_alike(mine: dict, theirs: dict, terms: float = 1.0) -> None:
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        if isinstance(value, dict):
            assert_alike(value, theirs[key], terms)
        elif value.dtype == object:
            for a, b in zip(value, theirs[key], strict=True):
                assert np.array_equal(a, b)
        else:
            assert value.dtype == theirs[key].dtype
            assert value == close(theirs[key], terms)

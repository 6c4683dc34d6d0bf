"""What Gymnasium and Stable-Baselines3 demand of an environment holds, without a warning."""

import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from conftest import close
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.envs.wrappers import GridObservation

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
def test_gymnasiums_check_passes_without_a_warning(start, reward):
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
    own = gym.make_vec(ID, num_envs=2, autoreset_mode=mode.name.lower(), reward="intermediate")
    sync = gym.make_vec(
        ID,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        reward="intermediate",
    )
    obs, theirs = own.reset(seed=0)[0], sync.reset(seed=0)[0]
    rng = np.random.default_rng(0)
    for _ in range(67):  # past the end of the first episode
        assert np.array_equal(obs, theirs)
        actions = rng.integers(0, 16, 2)
        (obs, *mine, info), (theirs, *others, their_info) = own.step(actions), sync.step(actions)
        for a, b in zip(mine, others, strict=True):
            assert a.dtype == b.dtype and a == close(b, own.layout.length)
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


def test_importing_the_package_imports_no_torch():
    code = "import sys, ral_env; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("start", ["partial", "scratch", "continue"])
def test_gymnasiums_sync_vector_env_takes_episodes_of_different_lengths(start):
    """With pad_info, as its infos hold arrays of one shape only."""
    envs = gym.make_vec(ID, 4, vectorization_mode="sync", start=start, pad_info=True)
    envs.reset(seed=0)
    seen = 0
    for _ in range(200):
        *_, terminated, _, info = envs.step(np.zeros(4, int))
        for i in np.flatnonzero(terminated):
            seen += 1
            canvas, rewards, score_map = (
                info[key][i] for key in ("final_canvas", "step_rewards", "score_map")
            )
            written = int((canvas == 0).sum()) if start == "scratch" else None
            assert rewards.shape == (64,) and score_map.shape == (2, 2)
            assert written is None or (rewards[written:] == 0).all()
            short = info["start"][i] == "scratch" and info["rows"][i] < 8
            assert np.isnan(score_map).any() == short
    assert seen > 8


def test_grid_observations_are_the_flat_ones_cut_into_levels(tiny_two):
    flat = gym.make("RALBundle-v0", bundle=str(tiny_two))
    grids = GridObservation(gym.make("RALBundle-v0", bundle=str(tiny_two)))
    observation, _ = flat.reset(seed=3, options={"start": "continue", "rows": 5})
    found, _ = grids.reset(seed=3, options={"start": "continue", "rows": 5})
    for action in (1, 2):
        assert found in grids.observation_space
        assert np.array_equal(observation[:64].reshape(8, 8), found["level_0"])
        assert np.array_equal(observation[64:].reshape(16, 16), found["level_1"])
        observation, found = flat.step(action)[0], grids.step(action)[0]

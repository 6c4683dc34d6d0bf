"""Wrappers, Gymnasium's and ours, work on environments of codes."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close

import ral_env  # noqa: F401  registers the ids
from ral_env.envs.wrappers import GridObservation
from ral_env.starts import STARTS

ANY = "RALBundle-v0"
KEYS = {"final_canvas", "step_rewards", "score_map", "start", "rows"}


@pytest.fixture(params=["tiny", "tiny_two"])
def settings(request) -> dict[str, str]:
    return {"bundle": str(request.getfixturevalue(request.param))}


@pytest.fixture
def make(settings):
    return partial(gym.make, ANY, **settings)


@pytest.fixture
def make_vec(settings):
    return partial(gym.make_vec, ANY, **settings)


def short(env) -> dict[str, object]:
    """Options of the shortest episodes: one coarsest row is to be written, the rest is real."""
    return {"start": "continue", "rows": env.unwrapped.layout.rows - 1}


def finish(env: Any) -> list[tuple]:
    """Step with random codes until the end; the results of every step."""
    codes, results = np.random.default_rng(0), []
    while not results or not results[-1][2]:
        results.append(env.step(codes.integers(env.action_space.n)))
    return results


def test_a_time_limit_truncates_without_a_reward(make):
    env = make(max_episode_steps=3)
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(1)[1:] for _ in range(3)]
        assert ends == [(0.0, False, False, {})] * 2 + [(0.0, False, True, {})]
    env.reset(options=short(env))


def test_gymnasiums_wrappers_work(make):
    env = make(render_mode="rgb_array")
    flat = gym.wrappers.FlattenObservation(env)
    assert flat.observation_space == env.observation_space
    rendered = gym.wrappers.RenderCollection(gym.wrappers.RecordEpisodeStatistics(flat))
    obs, _ = rendered.reset(seed=0, options=short(env))
    assert obs in flat.observation_space
    results = finish(rendered)
    info = results[-1][4]
    assert info["episode"]["l"] == len(results)
    assert info["episode"]["r"] == close(results[-1][1])
    frames: Any = rendered.render()
    assert len(frames) == len(results) + 1 and {f.shape for f in frames} == {(256, 256, 3)}
    assert not np.array_equal(frames[0], frames[-1])


def test_a_video_is_recorded(make, tmp_path):
    pytest.importorskip("moviepy")
    env = gym.wrappers.RecordVideo(make(render_mode="rgb_array"), str(tmp_path / "videos"))
    env.reset(seed=0, options=short(env))
    finish(env)
    env.close()
    assert [file.stat().st_size > 0 for file in tmp_path.glob("videos/*.mp4")] == [True]


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_gymnasiums_vector_wrappers_work(make_vec, mode):
    inner = make_vec(num_envs=2, reward="intermediate", autoreset_mode=mode)
    counted = gym.wrappers.vector.RecordEpisodeStatistics(inner)
    listed = gym.wrappers.vector.DictInfoToList(counted)
    obs, info = listed.reset(seed=0, options=short(inner))
    assert info == [{}, {}]
    rewards = np.zeros(2)
    for _ in range(int((obs[0] == inner.layout.empty).sum())):
        _, rewards, *_, info = listed.step(np.ones(2, int))
    for i in range(2):
        assert info[i]["episode"]["r"] == close(rewards[i])
        final = info[i] if mode == "next_step" else info[i]["final_info"]
        assert set(final) >= KEYS and final["rows"] == inner.layout.rows - 1
        assert final["step_rewards"].sum(dtype=float) == close(rewards[i])


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_an_episode_of_tensors_ends(make_vec, mode):
    """With "same_step" by pad_info: Gymnasium's own ``final_obs`` is an array of objects."""
    pytest.importorskip("array_api_compat")
    inner = make_vec(num_envs=2, autoreset_mode=mode, pad_info=mode == "same_step")
    envs = gym.wrappers.vector.NumpyToTorch(inner)
    obs, info = envs.reset(seed=0)
    rewards = torch.zeros(2)
    for _ in range(inner.layout.length):
        obs, rewards, *_, info = envs.step(torch.ones(2, dtype=torch.int64))
        assert isinstance(rewards, torch.Tensor) and obs.dtype == torch.int16
    if mode == "next_step":
        assert torch.equal(info["final_canvas"], obs)
    else:
        assert info["_final_obs"].all() and info["final_obs"].dtype == torch.int16
        assert torch.equal(info["final_obs"], info["final_info"]["final_canvas"])
        assert (obs == inner.layout.empty).all(), "the next episode has begun"
    assert isinstance(info.get("final_info", info)["step_rewards"], torch.Tensor)


def test_padded_final_observations_are_zero_where_no_episode_ended(make_vec):
    envs = make_vec(num_envs=2, autoreset_mode="same_step", pad_info=True, start="continue")
    envs.reset(seed=0, options={"rows": envs.layout.rows - 1})
    envs.reset(options={"rows": 1, "reset_mask": np.array([False, True])})
    info = {}
    while not info:
        *_, info = envs.step(np.ones(2, int))
    assert info["_final_obs"].tolist() == [True, False]
    assert (info["final_obs"][0, -1], info["final_obs"][1].any()) == (1, False)


@pytest.mark.parametrize("start", ["partial", "scratch", "continue"])
def test_gymnasiums_sync_vector_env_takes_episodes_of_different_lengths(tiny, start):
    """With pad_info, as its infos hold arrays of one shape only."""
    envs = gym.make_vec(
        ANY, 4, bundle=str(tiny), vectorization_mode="sync", start=start, pad_info=True
    )
    envs.reset(seed=0)
    ends = 0
    for _ in range(200):
        *_, terminated, _, info = envs.step(np.zeros(4, int))
        for i in np.flatnonzero(terminated):
            ends += 1
            canvas, rewards, score_map = (
                info[key][i] for key in ("final_canvas", "step_rewards", "score_map")
            )
            written = int((canvas == 0).sum()) if start == "scratch" else None
            assert rewards.shape == (64,) and score_map.shape == (2, 2)
            assert written is None or (rewards[written:] == 0).all()
            assert (rewards[info["steps"][i] :] == 0).all()
            assert np.isfinite(score_map).all() and (score_map[info["score_rows"][i] :] == 0).all()
            short = STARTS[info["start"][i]] == "scratch" and info["rows"][i] < 8
            assert (info["score_rows"][i] < 2) == short
    assert ends > 8


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

"""Stable-Baselines3 sees the same episodes as it would through its own wrappers."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import close
from sb3_contrib import MaskablePPO
from sb3_models import EMBEDDED, Recorder
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.sb3 import LatentCanvasVecEnv, make_vec_env
from ral_env import bundle
from ral_env.bundle.custom import assemble
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.starts import STARTS


def adapted(path, count: int = 3, **changes: Any) -> LatentCanvasVecEnv:
    arguments: dict[str, Any] = {"autoreset_mode": "same_step", **changes}
    return LatentCanvasVecEnv(LatentCanvasVectorEnv(count, path, **arguments))


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
@pytest.mark.parametrize("reward", ["single", "rowwise"])
def test_it_plays_the_episodes_of_sb3s_own_dummy_vec_env(request, name, reward):
    path = str(request.getfixturevalue(name))
    ours: Any = adapted(path, reward=reward)
    theirs: Any = DummyVecEnv(
        [lambda: gym.make("RALBundle-v0", bundle=path, reward=reward) for _ in range(3)]
    )
    for envs in (ours, theirs):
        envs.seed(5)
    assert np.array_equal(ours.reset(), theirs.reset())
    rng, length = np.random.default_rng(0), ours.envs.layout.length
    row = length // 8  # codes that are paid for at once
    ends = 0
    for _ in range(length * 2 + 3):
        actions = rng.integers(0, 16, 3)
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = (
            envs.step(actions) for envs in (ours, theirs)
        )
        assert np.array_equal(obs, obs2) and np.array_equal(dones, dones2)
        assert rewards.dtype == rewards2.dtype and rewards == close(rewards2, row)
        for info, info2 in zip(infos, infos2, strict=True):
            assert info.keys() | {"TimeLimit.truncated"} == info2.keys() | {"TimeLimit.truncated"}
            for key in info:
                if isinstance(info[key], np.ndarray):
                    assert info[key] == close(info2[key], row)
        ends += int(dones.sum())
    assert ends == 6


def test_reset_options_are_passed_on(tiny):
    envs = adapted(tiny)
    envs.set_options({"start": "scratch", "rows": 5})
    assert (envs.reset() == envs.envs.layout.outside).sum() == 3 * 24
    assert (envs.reset() == envs.envs.layout.outside).sum() == 0, "for one reset only"
    envs.set_options([{"start": "full"}, {"start": "full"}, {"start": "partial"}])
    with pytest.raises(ValueError, match="differ between canvases"):
        envs.reset()


@pytest.mark.parametrize("start", ["continue", "scratch", "partial"])
def test_every_episode_starts_with_the_rows_asked_for(tiny_two, start):
    envs = LatentCanvasVecEnv(
        LatentCanvasVectorEnv(2, tiny_two, start=start, autoreset_mode="same_step"), rows=4
    )
    assert envs.episode_length == 160
    envs.seed(0)
    modes: set[str] = set()
    observations: Any = envs.reset()
    for step in range(160 * 6):
        if step % 160 == 0:
            assert ((observations == 16).sum(1) == 160).all()
        observations, _, dones, infos = envs.step(np.zeros(2, int))
        assert dones.all() == dones.any() == (step % 160 == 159)
        modes |= {STARTS[info["start"]] for info in infos if info}
    assert modes == ({"continue", "scratch"} if start == "partial" else {start})
    envs.set_options({"start": "continue", "rows": 7})
    assert (envs.reset() == 16).sum() == 2 * 40, "options replace them for one reset"


def test_the_length_of_episodes_is_known_where_it_is_one(tiny, tiny_two):
    assert adapted(tiny).episode_length == 64 and adapted(tiny_two).episode_length == 320
    assert all(adapted(tiny, start=s).episode_length is None for s in ("continue", "partial"))
    with pytest.raises(ValueError, match="rows from 1 to 7"):
        make_vec_env("RALBundle-v0", 2, rows=8, bundle=str(tiny), start="continue").reset()


def bundle_of_few_codes(path):
    """Of two levels, whose real grids hold codes 0 to 4 and 0 to 9 of 16."""
    loaded = bundle.load(path)
    few = [np.minimum(np.asarray(codes), most)
           for codes, most in zip(loaded.codes, (4, 9), strict=True)]  # fmt: skip
    return assemble(codec=loaded.vqvae, discriminator=loaded.discriminator, codes=few, num_codes=16)


def test_masks_tell_the_codes_of_real_grids_of_the_level(tiny_two):
    envs = make_vec_env("RALBundle-v0", 3, seed=0, bundle=bundle_of_few_codes(tiny_two))
    envs.reset()
    assert envs.has_attr("action_masks")
    for step in range(320):
        masks = np.stack(envs.env_method("action_masks"))
        assert masks.shape == (3, 16) and masks.dtype == bool
        assert (masks == (np.arange(16) <= (4 if step < 64 else 9))).all()
        envs.step(np.zeros(3, int))
    assert np.stack(envs.env_method("action_masks", indices=[1])).sum() == 5, "the next episode"


def test_another_autoreset_is_refused(tiny):
    with pytest.raises(ValueError, match="expected 'same_step'"):
        adapted(tiny, autoreset_mode="next_step")


def test_attributes_and_methods_are_reached(tiny):
    envs = make_vec_env("RALBundle-v0", 3, seed=0, bundle=str(tiny), render_mode="rgb_array")
    envs.reset()
    assert envs.get_attr("layout")[2].length == 64
    net = envs.get_attr("discriminator", 0)[0]
    envs.env_method("set_discriminator", net, 0.5)
    assert envs.get_attr("reward_scale") == [0.5] * 3
    with pytest.raises(ValueError, match="all canvases share"):
        envs.set_attr("reward_scale", 1.0, indices=0)
    assert envs.env_is_wrapped(gym.Wrapper) == [False] * 3
    frames: Any = envs.get_images()
    assert len(frames) == 3 and frames[0].shape == (256, 256, 3)


def test_the_monitor_tells_returns_and_lengths(tiny):
    envs = make_vec_env("RALBundle-v0", 2, seed=0, bundle=str(tiny), reward="rowwise")
    envs.reset()
    total, infos = np.zeros(2), []
    for _ in range(64):
        _, rewards, _, infos = envs.step(np.zeros(2, int))
        total += rewards
    for i in range(2):
        assert infos[i]["episode"]["r"] == close(total[i], 64)
        assert infos[i]["episode"]["l"] == 64


def test_masked_ppo_writes_only_codes_that_real_grids_hold(tiny_two):
    envs = make_vec_env(
        "RALBundle-v0", 2, seed=0, bundle=bundle_of_few_codes(tiny_two), start="continue", rows=7
    )
    model = MaskablePPO("MlpPolicy", envs, n_steps=40, batch_size=80, n_epochs=1, gamma=1.0,
                        policy_kwargs=EMBEDDED, seed=0)  # fmt: skip
    before = model.policy.parameters_to_vector()
    recorder = Recorder()
    model.learn(160, callback=recorder)
    assert not np.array_equal(before, model.policy.parameters_to_vector())
    canvases = np.stack([info["final_canvas"] for finals in recorder.finals for info in finals])
    assert len(canvases) == 4
    assert canvases[:, :64].max() == 4 and canvases[:, 64:].max() == 9

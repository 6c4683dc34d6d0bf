"""Stable-Baselines3 sees the same episodes as it would through its own wrappers, and learns."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.sb3 import CodeEmbeddingExtractor, LatentCanvasVecEnv, make_vec_env
from ral_env.bundle.custom import assemble
from ral_env.envs.vector import LatentCanvasVectorEnv


def adapted(path, count=3, **arguments) -> LatentCanvasVecEnv:
    arguments = {"autoreset_mode": "same_step"} | arguments
    return LatentCanvasVecEnv(LatentCanvasVectorEnv(count, path, **arguments))


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
@pytest.mark.parametrize("reward", ["single", "rowwise"])
def test_it_plays_the_episodes_of_sb3s_own_dummy_vec_env(request, name, reward):
    path = str(request.getfixturevalue(name))
    ours = adapted(path, reward=reward)
    theirs = DummyVecEnv(
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
        for mine, other in zip(infos, infos2, strict=True):
            assert mine.keys() | {"TimeLimit.truncated"} == other.keys() | {"TimeLimit.truncated"}
            for key in mine:
                if isinstance(mine[key], np.ndarray):
                    assert mine[key] == close(other[key], row)
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
    observations, modes = envs.reset(), set()
    for step in range(160 * 6):
        if step % 160 == 0:
            assert ((observations == 16).sum(1) == 160).all()
        observations, _, dones, infos = envs.step(np.zeros(2, int))
        assert dones.all() == dones.any() == (step % 160 == 159)
        modes |= {info["start"] for info in infos if info}
    assert modes == ({"continue", "scratch"} if start == "partial" else {start})
    envs.set_options({"start": "continue", "rows": 7})
    assert (envs.reset() == 16).sum() == 2 * 40, "options replace them for one reset"


def test_the_length_of_episodes_is_known_where_it_is_one(tiny, tiny_two):
    assert adapted(tiny).episode_length == 64 and adapted(tiny_two).episode_length == 320
    assert all(adapted(tiny, start=s).episode_length is None for s in ("continue", "partial"))
    with pytest.raises(ValueError, match="rows from 1 to 7"):
        make_vec_env("RALBundle-v0", 2, rows=8, bundle=str(tiny), start="continue").reset()


def test_masks_tell_the_codes_of_real_grids_of_the_level(tiny_two):
    envs = make_vec_env("RALBundle-v0", 3, seed=0, bundle=str(tiny_two))
    loaded = envs.venv.envs.bundle
    few = [np.minimum(codes, most) for codes, most in zip(loaded.codes, (4, 9), strict=True)]
    own = assemble(codec=loaded.vqvae, discriminator=loaded.discriminator, codes=few, num_codes=16)
    envs = make_vec_env("RALBundle-v0", 3, seed=0, bundle=own)
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


def test_features_tell_codes_and_places_apart(tiny):
    torch.manual_seed(0)
    space = LatentCanvasVectorEnv(1, tiny).single_observation_space
    net = CodeEmbeddingExtractor(space, features_dim=32)
    canvas = torch.full((3, 64), 16.0)  # SB3 hands floats over
    canvas[1, 5], canvas[2, 6] = 3, 3
    found = net(canvas)
    assert found.shape == (3, 32)
    assert (found[1] - found[2]).abs().max() > 1e-4
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_sb3s_algorithms_run_as_they_are(tiny, algorithm):
    envs = make_vec_env("RALBundle-v0", 4, seed=0, bundle=str(tiny), reward="rowwise")
    policy: dict[str, Any] = {"features_extractor_class": CodeEmbeddingExtractor}
    more: dict[str, Any] = {"learning_starts": 64} if algorithm is DQN else {"n_steps": 64}
    model = algorithm("MlpPolicy", envs, policy_kwargs=policy, seed=0, gamma=1.0, **more)
    before = torch.cat([p.flatten() for p in model.policy.parameters()]).clone()
    model.learn(512)
    assert not torch.equal(before, torch.cat([p.flatten() for p in model.policy.parameters()]))


class LikesCode(torch.nn.Module):
    """Scores a cell 1 where its code is 3, else -1."""

    stride = 1

    def __init__(self, codebook: torch.Tensor):
        super().__init__()
        self.wanted = torch.nn.Parameter(codebook[3].clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        match = (x - self.wanted[:, None, None]).abs().sum(1, keepdim=True) < 1e-6
        return match.float() * 2 - 1


@pytest.mark.expensive
def test_ppo_learns_to_write_what_is_liked(tiny_codes):
    envs = make_vec_env("RALBundle-v0", 32, seed=0, bundle=str(tiny_codes), reward="rowwise")
    inner = envs.venv.envs
    envs.env_method("set_discriminator", LikesCode(inner.bundle.vqvae.codebooks[0]), 1.0, "codes")
    policy = {"features_extractor_class": CodeEmbeddingExtractor}
    model = PPO("MlpPolicy", envs, n_steps=64, batch_size=256, gamma=1.0, learning_rate=1e-3,
                policy_kwargs=policy, seed=0)  # fmt: skip
    model.learn(150_000)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    assert np.mean(returns) > 40  # of 64; random codes earn -56

"""SB3's algorithms with a prior as their policy, and with their own; the package's example."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from conftest import close
from sb3_contrib import TRPO
from sb3_models import EMBEDDED, canvases, envs_of, raised
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.logger import configure

import agents.sb3
from agents.sb3 import EpisodeBuffer, PixelCNNPolicy, defaults
from ral_env import bundle

BUNDLES = ["tiny", "tiny_two"]


@pytest.mark.parametrize("name", BUNDLES)
def test_the_first_ratio_is_one(request, name, tmp_path):
    envs = envs_of(request.getfixturevalue(name))
    model = PPO(PixelCNNPolicy, envs, seed=0, **defaults(PPO, envs, n_epochs=1))
    model.set_logger(configure(str(tmp_path), []))
    model.learn(model.n_steps * 4)
    logged = model.logger.name_to_value
    assert logged["train/approx_kl"] == close(0)
    assert logged["train/clip_fraction"] == 0


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_saved_models_go_on_without_the_bundle(tiny, tmp_path, algorithm, monkeypatch):
    envs = envs_of(tiny)
    few = {"cg_max_steps": 2, "n_critic_updates": 1} if algorithm is TRPO else {}
    model: Any = algorithm(PixelCNNPolicy, envs, seed=0, **defaults(algorithm, envs, **few))
    model.learn(256)
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").stat().st_size < 300_000
    monkeypatch.setattr(bundle, "load", None)
    loaded: Any = algorithm.load(tmp_path / "model", env=envs)
    first, codes = canvases(model.policy, "full", 8)
    rows = raised(model.policy, first, codes)
    with torch.no_grad():
        assert torch.equal(
            loaded.policy.evaluate_actions(rows, codes.flatten())[1],
            model.policy.evaluate_actions(rows, codes.flatten())[1],
        )
    assert isinstance(loaded.rollout_buffer, EpisodeBuffer)
    before = loaded.policy.parameters_to_vector()
    loaded.learn(256)
    assert not np.array_equal(before, loaded.policy.parameters_to_vector())


@pytest.mark.expensive
def test_the_packages_example_runs(tmp_path, monkeypatch):
    text = agents.sb3.__doc__
    assert text is not None
    example = text.split("\n\n", 1)[1].split("\n\nA2C and")[0]
    short = example.replace("100 * 64 * 64", "2 * 64 * 64")
    assert short != example
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(short), {})
    assert (tmp_path / "runs" / "ppo" / "model.zip").exists()


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_algorithms_learn_with_policies_of_sb3(tiny, algorithm):
    envs = envs_of(tiny, reward="rowwise")
    more: dict[str, Any] = {"learning_starts": 64} if algorithm is DQN else {"n_steps": 64}
    model = algorithm("MlpPolicy", envs, policy_kwargs=EMBEDDED, seed=0, gamma=1.0, **more)
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
    envs = envs_of(tiny_codes, 32, reward="rowwise")
    inner = envs.venv.envs
    envs.env_method("set_discriminator", LikesCode(inner.bundle.vqvae.codebooks[0]), 1.0, "codes")
    model = PPO("MlpPolicy", envs, n_steps=64, batch_size=256, gamma=1.0, learning_rate=1e-3,
                policy_kwargs=EMBEDDED, seed=0)  # fmt: skip
    model.learn(150_000)
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    assert np.mean(returns) > 40  # of 64; random codes earn -56

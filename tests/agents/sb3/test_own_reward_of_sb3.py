"""Stable-Baselines3's algorithms are paid by a reward of one's own."""

import json

import numpy as np
import pytest
import torch
from conftest import close
from sb3_models import model_of

from agents.sb3 import DiscriminatorCallback, make_vec_env
from agents.sb3.config import Config
from agents.sb3.train import build, train
from ral_env.envs.reward_fn import takes_codes

HIGH = f"{__name__}:high_codes"


@takes_codes
def high_codes(codes: list[torch.Tensor]) -> torch.Tensor:
    return codes[0].float()


def test_the_adapter_pays_it(tiny_codes):
    envs = make_vec_env(
        "RALBundle-v0", 3, seed=0, bundle=str(tiny_codes), reward_fn=HIGH, reward="intermediate"
    )
    envs.reset()
    codes = np.random.default_rng(0).integers(16, size=(64, 3))
    *_, (_, rewards, _, infos) = (envs.step(row) for row in codes)
    assert rewards == close(codes.sum(0), 1000)
    assert infos[1]["step_rewards"].tolist() == codes[:, 1].tolist()


def test_a_run_trains_with_it_alone_and_records_it(tiny_codes, tmp_path):
    config = Config("RALBundle-v0", str(tiny_codes), reward_fn=HIGH, canvases=4, rollouts=2)
    _, callbacks = build("a2c", config)
    assert not any(isinstance(one, DiscriminatorCallback) for one in callbacks)
    figures = train("a2c", config, tmp_path / "run", progress=False)
    assert 0 < figures["own_reward"] < 15 and 0 < figures["prior_own_reward"] < 15
    assert json.loads((tmp_path / "run" / "config.json").read_text())["reward_fn"] == HIGH


def test_a_discriminator_that_would_change_nothing_is_refused(tiny_codes):
    from stable_baselines3 import A2C

    model = model_of(A2C, tiny_codes, {"reward_fn": HIGH})
    with pytest.raises(ValueError, match="high_codes pays.*leave DiscriminatorCallback out"):
        model.learn(64, callback=DiscriminatorCallback(warmup=0))

"""Models that earlier versions saved: they load, choose the same codes, and go on learning.

``tests/fixtures/ppo.zip`` is PPO with a PixelCNNPolicy, ``ppo-mlp.zip`` PPO with SB3's own policy
and CodeEmbeddingExtractor, both saved by version 0.1 on 8 x 8 canvases of 64 codes; ``ppo.json``
tells what they said of an empty canvas and of one begun. Never make them anew: a model that cannot
be loaded any more asks for a line in ``ral_env/migrations.py``.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import close
from stable_baselines3 import PPO

from agents.sb3 import (
    CodeEmbeddingExtractor,
    EpisodeBuffer,
    PixelCNNPolicy,
    StepRewards,
    make_vec_env,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"
MODELS = ["ppo", "ppo-mlp"]


@pytest.mark.filterwarnings("ignore:deterministic=True takes the likeliest code")
@pytest.mark.parametrize("name", MODELS)
def test_an_old_model_says_what_it_said(name):
    model = PPO.load(FIXTURES / f"{name}.zip", device="cpu")
    for expected in json.loads((FIXTURES / "ppo.json").read_text())[name]:
        observation = np.array([expected["observation"]])
        action, _ = model.predict(observation, deterministic=True)
        with torch.no_grad():
            canvas = torch.from_numpy(observation)
            distribution: Any = model.policy.get_distribution(canvas).distribution
            value = model.policy.predict_values(canvas)
        assert action.tolist() == [expected["action"]]
        assert distribution.logits[0].numpy() == close(expected["logits"])
        assert value.item() == close(expected["value"])


@pytest.mark.parametrize("name", MODELS)
def test_an_old_model_is_of_todays_classes_and_goes_on_learning(name):
    envs = make_vec_env("RALDigits-v0", 2, seed=0, reward="intermediate")
    model = PPO.load(FIXTURES / f"{name}.zip", env=envs, device="cpu")
    if name == "ppo":
        assert type(model.policy) is PixelCNNPolicy
        assert type(model.rollout_buffer) is EpisodeBuffer
    else:
        assert type(model.policy.features_extractor) is CodeEmbeddingExtractor
    before, steps = model.policy.parameters_to_vector(), model.num_timesteps
    model.learn(128, callback=StepRewards(), reset_num_timesteps=False)
    assert model.num_timesteps == steps + 128
    assert np.abs(model.policy.parameters_to_vector() - before).max() > 0


def test_an_old_model_saved_again_is_the_same(tmp_path):
    """Weights and optimiser, to the bit."""
    PPO.load(FIXTURES / "ppo.zip", device="cpu").save(tmp_path / "again.zip")
    for member in ("policy.pth", "policy.optimizer.pth"):
        saved = []
        for file in (FIXTURES / "ppo.zip", tmp_path / "again.zip"):
            with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
                saved.append(torch.load(stream, weights_only=True))
        old, new = saved
        if member == "policy.optimizer.pth":
            assert old["param_groups"] == new["param_groups"]
            old, new = (
                {(i, k): v for i, values in state["state"].items() for k, v in values.items()}
                for state in saved
            )
        assert old.keys() == new.keys() and len(old) > 10
        assert all(torch.equal(old[key], new[key]) for key in old)

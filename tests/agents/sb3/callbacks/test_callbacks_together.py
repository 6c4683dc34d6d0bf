"""The callbacks beside each other."""

from __future__ import annotations

import torch
from sb3_models import Recorder, model_of, prior_of
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure

from agents.sb3 import (
    CollapseGuard,
    DiscriminatorCallback,
    SampleGrids,
    StepRewards,
    ValueWarmup,
)
from agents.training.discriminator import DiscriminatorTraining


def test_all_callbacks_do_their_work_beside_each_other(tiny_codes, tmp_path):
    model = model_of(PPO, tiny_codes, {"reward": "intermediate"}, n_steps=128, batch_size=256)
    envs, recorder = model.get_env().unwrapped.envs, Recorder()
    training = DiscriminatorTraining(loss="logistic", learning_rate=1e-2)
    callbacks = [
        StepRewards(kl_coef=0.01),
        ValueWarmup(1, epochs=3),
        CollapseGuard(50.0),
        DiscriminatorCallback(training, updates=1, warmup=2, batch=4),
        SampleGrids(),
        recorder,
    ]
    model.set_logger(configure(str(tmp_path), ["tensorboard"]))
    prior, scale = prior_of(model), envs.reward_scale
    model.learn(3 * 512, callback=callbacks)
    model.logger.close()
    assert not torch.equal(prior_of(model), prior)
    assert envs.reward_scale != scale
    assert len(recorder.logged) == 3
    names = ("rollout/kl_to_reference", "guard/nll", "guard/diversity", "discriminator/auc")
    assert all(name in row for row in recorder.logged for name in names)
    assert "samples" in recorder.logged[0]

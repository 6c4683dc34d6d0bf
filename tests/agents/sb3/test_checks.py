"""Defaults that are right for writing codes, and refusals of what silently breaks."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch
from sb3_contrib import TRPO
from sb3_models import EMBEDDED, envs_of, prior_of
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.sb3 import (
    EpisodeBuffer,
    PixelCNNPolicy,
    ValueWarmup,
    check,
    defaults,
    make_vec_env,
)
from ral_env import bundle
from ral_env.bundle.custom import assemble
from ral_env.nets import UncachedPrior


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_defaults_begin_as_the_prior_pass_the_check_and_can_be_changed(tiny, algorithm):
    envs = envs_of(tiny)
    found = defaults(algorithm, envs, gamma=0.999, policy_kwargs={"value_hidden": 8})
    assert found["n_steps"] == 64 and found["gamma"] == 0.999
    assert found["rollout_buffer_class"] is EpisodeBuffer
    model = algorithm(PixelCNNPolicy, envs, **found)
    check(model)
    assert model.policy.value_hidden == 8
    prior = bundle.load(tiny).priors[0]
    assert torch.equal(prior_of(model), torch.cat([p.flatten() for p in prior.parameters()]))


def test_settings_that_break_are_refused(tiny):
    envs = envs_of(tiny)
    with pytest.raises(ValueError, match="n_steps=100 .*expected n_steps=64"):
        defaults(PPO, envs, n_steps=100)
    with pytest.raises(ValueError, match="batch_size=96 .*expected batch_size=64"):
        defaults(PPO, envs, batch_size=96)
    with pytest.raises(ValueError, match="sub_sampling_factor=2"):
        defaults(TRPO, envs, sub_sampling_factor=2)
    with pytest.raises(ValueError, match="DQN takes no PixelCNNPolicy"):
        defaults(DQN, envs)
    with pytest.raises(ValueError, match="make_vec_env"):
        defaults(PPO, DummyVecEnv([lambda: gym.make("RALBundle-v0", bundle=str(tiny))]))
    for start in ("partial", "scratch", "continue"):
        with pytest.raises(ValueError, match=r"several lengths.*rows=\.\.\."):
            defaults(PPO, envs_of(tiny, start=start))


def test_priors_that_are_no_pixelcnn_are_refused(tiny):
    loaded = bundle.load(tiny)
    custom = assemble(
        codec=loaded.vqvae, priors=[UncachedPrior(loaded.priors[0].logits, 16)],
        discriminator=loaded.discriminator, codes=loaded.codes, num_codes=16,
    )  # fmt: skip
    envs = make_vec_env("RALBundle-v0", 2, bundle=custom)
    with pytest.raises(ValueError, match=r"priors are \['UncachedPrior'\]"):
        defaults(PPO, envs)


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"start": "partial"}, {}, "several lengths"),
        ({}, {"n_steps": 96, "batch_size": 96 * 4}, "n_steps=96"),
        ({}, {"batch_size": 128 + 32}, "batch_size=160"),
    ],
)
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_the_check_refuses_what_sb3_lets_through(tiny, environment, changes, message):
    configs = [prior.config for prior in bundle.load(tiny).priors]
    arguments = {"n_steps": 64, "batch_size": 64, "gamma": 1.0} | changes
    model = PPO(PixelCNNPolicy, envs_of(tiny, **environment), rollout_buffer_class=EpisodeBuffer,
                policy_kwargs={"configs": configs}, **arguments)  # fmt: skip
    with pytest.raises(ValueError, match=message):
        check(model)
    with pytest.raises(ValueError, match=message):
        model.learn(1, callback=ValueWarmup(1))


def test_the_check_refuses_normalised_canvases(tiny):
    model = A2C("MlpPolicy", VecNormalize(envs_of(tiny)), policy_kwargs=EMBEDDED, gamma=1.0)
    with pytest.raises(ValueError, match="norm_obs=False"):
        check(model)


def test_the_check_refuses_whole_episodes_for_a_policy_that_cannot_read_them(tiny):
    model = A2C("MlpPolicy", envs_of(tiny), n_steps=64, policy_kwargs=EMBEDDED, gamma=1.0,
                rollout_buffer_class=EpisodeBuffer)  # fmt: skip
    with pytest.raises(ValueError, match="ActorCriticPolicy cannot read"):
        check(model)


def test_the_check_warns_of_a_discount_that_hides_the_score_from_early_codes(tiny):
    with pytest.warns(UserWarning, match="use gamma=1.0"):
        check(A2C("MlpPolicy", envs_of(tiny), policy_kwargs=EMBEDDED, gamma=0.9))


def test_the_check_refuses_a_model_without_environments(tiny):
    model = A2C("MlpPolicy", envs_of(tiny), policy_kwargs=EMBEDDED, gamma=1.0)
    model.env = None
    with pytest.raises(ValueError, match="no environments"):
        check(model)

"""Handing a pretrained prior to PPO: the reward rises, and what the prior knew stays.

    pytest tests/agents/sb3/test_handoff.py -m expensive -s

prints what benchmarks/README.md's "Hand-off" tables. The score is always by the bundle's
discriminator: the reward itself where that stays as it is (``updates`` 0).
"""

import warnings
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO
from torch import nn

from agents.evaluation.evaluator import results
from agents.sb3 import EpisodeBuffer, InitialPrior, PixelCNNPolicy, make_vec_env
from agents.sb3.train import Config, train
from agents.sb3.vec_env import vector_env

pytestmark = pytest.mark.expensive

IDS = ["RALFaces32-v0", "RALDigits-v0", "RALOracle-v0"]
MAX_NATS = 1.5  # that held-out codes may cost more than the MLE prior's, a canvas of 115 to 127
MIN_GAIN = 0.02  # in score; that of 1,000 samples has a standard error of 0.003 to 0.005
CANVASES = 64


def print_figures(label, env, figures):
    print(f"\n{env}, {label}:")
    for key in ("forward_nll", "score", "entropy", "diversity", "fd", "reverse_kl"):
        if key in figures:
            print(f"    {key:10} {figures[f'prior_{key}']:8.3f} -> {figures[key]:8.3f}")


@pytest.mark.parametrize(("updates", "gain"), [(0, MIN_GAIN), (Config.discriminator_updates, 0.0)])
@pytest.mark.parametrize("env", IDS)
def test_ppo_raises_the_reward_and_keeps_the_likelihood(env, updates, gain, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # CollapseGuard's, were it to stop the run
        figures = train("ppo", Config(env, discriminator_updates=updates), tmp_path / "run", False)
    print_figures(f"defaults, {updates} discriminator updates", env, figures)
    assert figures["forward_nll"] - figures["prior_forward_nll"] < MAX_NATS
    assert figures["score"] - figures["prior_score"] > gain


def plain(env):
    """SB3's own PPO settings and initialisation; only minibatches of 64 are whole canvases."""
    envs = make_vec_env(env, CANVASES, seed=0)
    priors = vector_env(envs).envs.bundle.priors
    model: Any = PPO(
        PixelCNNPolicy, envs, n_steps=64, batch_size=64, seed=0,
        rollout_buffer_class=EpisodeBuffer,
        policy_kwargs={
            "configs": tuple(prior.config for prior in priors), "prior": InitialPrior(priors),
            "value_rate": 1.0, "detach_value": False,
        },
    )  # fmt: skip
    for head in model.policy.value_net:
        nn.init.orthogonal_(head[-1].weight)
    return model, vector_env(envs).envs.bundle


@pytest.mark.parametrize("env", IDS)
@pytest.mark.filterwarnings("ignore:gamma=0.99")
def test_sb3s_own_settings_do_not(env):
    torch.set_num_threads(1)
    model, bundle = plain(env)
    model.learn(5 * CANVASES * 64)
    figures = results(bundle, list(model.policy.priors))
    print_figures("SB3's own", env, figures)
    assert figures["forward_nll"] - figures["prior_forward_nll"] > MAX_NATS

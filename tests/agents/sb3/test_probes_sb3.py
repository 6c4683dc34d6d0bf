"""PPO and A2C, with the defaults for writing codes, learn what each probe asks for."""

import numpy as np
import pytest
import torch
from probes import PROBES, probe_bundle
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents.sb3 import PixelCNNPolicy, ValueWarmup, defaults, make_vec_env

CODES = 16  # of a probe's canvas
CANVASES = 64


class Returns(BaseCallback):
    """Keeps each rollout's mean return."""

    def _on_training_start(self):
        self.means = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.means.append(float(self.locals["rollout_buffer"].rewards.sum(0).mean()))


def model_of(algorithm, probe, **changes):
    envs = make_vec_env("RALBundle-v0", CANVASES, seed=0, bundle=probe_bundle(probe))
    # Random weights have nothing to lose: faster than the defaults, and the critic no faster still.
    changes = {"learning_rate": 1e-2, "policy_kwargs": {"value_rate": 1.0}} | changes
    return algorithm(PixelCNNPolicy, envs, seed=0, **defaults(algorithm, envs, **changes))


def prior_of(model):
    return torch.cat([p.detach().flatten() for p in model.policy.priors.parameters()])


def rollouts(count):
    return count * CANVASES * CODES


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(("algorithm", "count"), [(PPO, 20), (A2C, 25)], ids=["PPO", "A2C"])
def test_it_learns_what_the_probe_asks_for(algorithm, count, probe):
    model, returns = model_of(algorithm, probe), Returns()
    model.learn(rollouts(count), callback=returns)
    assert returns.means[0] < 0.3
    assert np.mean(returns.means[-5:]) > 0.9


def test_the_first_update_on_a_constant_reward_moves_nothing():
    """V is 0 everywhere at first, so all advantages are the same, and normalised they are 0."""
    model = model_of(PPO, "constant")
    before = prior_of(model)
    model.learn(rollouts(1))
    assert torch.equal(prior_of(model), before)


def test_the_critic_learns_a_constant():
    """What is left of advantages is then the critic's error. Beyond the first update that error,
    however small, moves the policy: Adam's steps do not shrink with the gradient, and PPO's
    normalisation makes it of size 1 again. Neither is ours to change; ValueWarmup keeps the policy
    still meanwhile."""
    model = model_of(PPO, "constant", learning_rate=1e-3, policy_kwargs={"value_rate": 10.0})
    start = prior_of(model)
    model.learn(rollouts(10), callback=ValueWarmup(10))
    assert torch.equal(prior_of(model), start)
    values = model.rollout_buffer.values
    assert np.sqrt(np.mean((values - 1) ** 2)) < 0.02

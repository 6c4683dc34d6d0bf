"""The critic learns first, and then both."""

from __future__ import annotations

import pytest
import torch
from sb3_contrib import TRPO
from sb3_models import model_of, prior_of
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents.sb3 import ValueWarmup


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_the_critic_learns_first(tiny, algorithm):
    changes = {"cg_max_steps": 2, "n_critic_updates": 1} if algorithm is TRPO else {}
    model = model_of(algorithm, tiny, {"reward": "rowwise"}, **changes)
    names = ("n_epochs", "n_critic_updates", "line_search_max_iter")
    settings = {name: getattr(model, name, None) for name in names}
    priors, critics = [], []

    class BetweenUpdates(BaseCallback):
        def _on_rollout_start(self) -> None:
            priors.append(prior_of(model))
            critics.append(model.policy.value_net[0][-1].weight.detach().clone())

        def _on_step(self) -> bool:
            return True

    model.learn(3 * 256, callback=[ValueWarmup(1, epochs=2), BetweenUpdates()])
    assert torch.equal(priors[0], priors[1]) and not torch.equal(priors[1], priors[2])
    assert not torch.equal(critics[0], critics[1])
    assert all(p.requires_grad for p in model.policy.parameters())
    assert settings == {name: getattr(model, name, None) for name in names}


def test_bad_bounds_of_the_warmup_are_refused():
    with pytest.raises(ValueError, match="rollouts=-1"):
        ValueWarmup(-1)
    with pytest.raises(ValueError, match="epochs=0"):
        ValueWarmup(1, epochs=0)

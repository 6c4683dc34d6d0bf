"""The critic: it reads earlier cells alone, and learns without moving the actor."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from conftest import close
from sb3_models import canvases, envs_of, policy_of, raised
from stable_baselines3 import PPO

from agents.sb3 import PixelCNNPolicy, defaults


def test_the_value_loss_moves_the_critic_alone(tiny):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    policy.predict_values(first).sum().backward()
    assert all(p.grad is None for p in policy.priors.parameters())
    assert all(p.grad is not None for p in policy.value_net.parameters())


def test_values_depend_on_earlier_cells_alone(tiny_two):
    policy = policy_of(tiny_two)
    first, codes = canvases(policy, "full", 8, count=1)
    changed = codes.clone()
    changed[:, 100:] = (changed[:, 100:] + 1) % 16  # a cell of the finer level
    with torch.no_grad():
        one, other = (
            policy.evaluate_actions(raised(policy, first, each), each.flatten())[0].flatten()
            for each in (codes, changed)
        )
    assert torch.equal(one[:101], other[:101]) and not torch.equal(one[101:], other[101:])


@pytest.mark.parametrize("origin", ["as made", "copied", "pickled"])
def test_the_critic_learns_at_a_rate_of_its_own(tiny, origin):
    policy = policy_of(tiny, value_rate=5.0, optimizer_class=torch.optim.SGD, optimizer_kwargs={})
    if origin == "copied":
        policy = copy.deepcopy(policy)
    elif origin == "pickled":
        policy = pickle.loads(pickle.dumps(policy))
    before = [p.detach().clone() for p in policy.parameters()]
    for _ in range(2):
        for parameter in policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        policy.optimizer.step()
    assert [group["lr"] for group in policy.optimizer.param_groups] == pytest.approx([1e-3] * 2)
    moved = dict(zip([name for name, _ in policy.named_parameters()], before, strict=True))
    for name, parameter in policy.named_parameters():
        expected = 2e-3 * (5 if name.startswith("value_net") else 1)
        assert moved[name] - parameter.detach() == close(torch.full_like(parameter, expected))


def test_only_the_critic_learns_from_a_frozen_prior(tiny):
    envs = envs_of(tiny)
    model: Any = PPO(PixelCNNPolicy, envs, seed=0, **defaults(PPO, envs))
    before = copy.deepcopy(model.policy.state_dict())
    model.policy.freeze_prior(True)
    model.learn(256)
    after = model.policy.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"value_net"}
    model.policy.freeze_prior(False)
    model.learn(256)
    after = model.policy.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before if "priors" in name)

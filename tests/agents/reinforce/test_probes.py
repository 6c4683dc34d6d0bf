"""Agents learn what each probe asks for; the policy gradient equals the analytic one."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from probes import PROBES, probe_bundle

from agents.reinforce import Config, train
from agents.reinforce.loop import compute_advantages, play, sample_rollout, score, update_policy
from agents.reinforce.losses import returns
from agents.reinforce.state import TrainState
from agents.training.timings import Timings

CONFIG = Config(
    env="RALBundle-v0",
    start="full",
    gamma=1.0,
    discriminator_warmup=0,
    discriminator_updates=0,  # the probe is what it is
    fake_pool=1,
    discriminator_input="codes",
    discriminator_net=None,
    baseline="leave-one-out",
    standardise=True,
    learning_rate=1e-2,
    betas=(0.9, 0.999),
    canvases=64,
    iterations=100,
)


def learns(changes, probe):
    config = dataclasses.replace(CONFIG, **changes)
    result = train(config, bundle=probe_bundle(probe), progress=False)
    before = result.history[0]["reward"]
    after = sum(row["reward"] for row in result.history[-10:]) / 10
    return before < 0.3 and after > 0.9


@pytest.mark.parametrize("probe", PROBES)
def test_reinforce_learns_what_the_probe_asks_for(probe):
    assert learns({}, probe)


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline": "running-mean", "standardise": False},
        {"baseline": "group", "group": 64},
        {"epochs": 3},
    ],
    ids=["running mean", "group", "clipped epochs"],
)
def test_its_relatives_learn_a_code_that_must_equal_a_far_one(changes):
    assert learns(changes, "far context")


def test_a_constant_reward_moves_nothing():
    bundle = probe_bundle("constant")
    config = dataclasses.replace(CONFIG, iterations=3)
    result = train(config, bundle=bundle, progress=False)
    for new, old in zip(
        result.policies[0].parameters(), bundle.priors[0].parameters(), strict=True
    ):
        assert torch.equal(new, old)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baseline": "leave-one-out"},
        {"baseline": "running-mean"},
        {"epochs": 2},  # the first of them
        {"reward": "intermediate", "gamma": 0.5},
    ],
    ids=["plain", "leave-one-out", "running mean", "clipped", "per step, discounted"],
)
def test_the_policy_gradient_equals_the_analytic_one(changes):
    """2 x 2 cells of 3 codes: the gradient of the expected return over all 81 canvases, against
    what the loop hands its optimiser for a large batch."""
    bundle = probe_bundle("code in context", side=2)
    gradients = []
    config = dataclasses.replace(
        CONFIG,
        **({"baseline": "none"} | changes),
        standardise=False,
        canvases=20_000,
        iterations=1,
        learning_rate=1e-9,
    )
    state = TrainState(config, bundle)
    learning: list[Any] = list(state.learning.parameters())
    state.optimizer.register_step_pre_hook(
        lambda *_: gradients.append([p.grad.clone() for p in learning])
    )
    rollout = sample_rollout(state, Timings())
    _, fake = score(state, rollout, Timings())
    _, step_rewards = play(state, rollout, fake, Timings())
    update_policy(state, rollout, compute_advantages(state, step_rewards), Timings())

    prior = bundle.priors[0]
    codes = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    reward = bundle.discriminator(bundle.vqvae.lookup([codes])[0])[:, 0, 0, 0].detach()
    log_prob = prior.log_prob(codes).flatten(1)
    if config.reward == "single":  # gamma 1: the expected return itself
        expected_return = (log_prob.sum(1).exp() * reward).sum()
    else:
        # Each code's own score is paid at its step: Eq. 3's returns from each step on, whose
        # gradient is Eq. 2's, state by state.
        q = returns(reward[:, None].expand(-1, 4).contiguous(), config.gamma)
        weight = log_prob.sum(1).exp().detach()
        expected_return = (weight[:, None] * q * log_prob).sum()
    exact = torch.autograd.grad(-expected_return / 4, list(prior.parameters()), allow_unused=True)
    found = torch.cat([g.flatten() for g in gradients[0]])
    truth = torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(exact, prior.parameters(), strict=True)
        ]
    )
    assert torch.cosine_similarity(found, truth, 0) > 0.995
    assert found.norm().item() == pytest.approx(truth.norm().item(), rel=0.05)

"""Returns, advantages and losses: each by hand, or by enumeration."""

import numpy as np
import pytest
import torch
from conftest import close

from agents.reinforce.config import Config
from agents.reinforce.losses import advantages, policy_losses, returns


def test_returns_equal_eq_3_by_hand():
    rewards = torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 4.0]])
    expected = torch.tensor([[0.25, 0.5, 1.0], [1 + 1 + 1, 2 + 2, 4]])
    torch.testing.assert_close(returns(rewards, 0.5), expected)
    torch.testing.assert_close(returns(rewards, 1.0)[:, 0], rewards.sum(1))


def test_leave_one_out_by_hand():
    q = torch.tensor([[1.0], [2.0], [6.0]])
    expected = torch.tensor([[1 - 4.0], [2 - 3.5], [6 - 1.5]])
    torch.testing.assert_close(advantages(q, "leave-one-out", False), expected)
    assert torch.equal(advantages(q, "none", False), q)
    assert advantages(q, "leave-one-out", True).std().item() == close(1.0)
    assert (advantages(torch.ones(3, 2), "leave-one-out", True) == 0).all()


def test_group_baseline_and_running_mean_by_hand():
    q = torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    expected = torch.tensor([[-1.0], [1.0], [-5.0], [5.0]])
    torch.testing.assert_close(advantages(q, "group", False, group=2), expected)
    scaled = advantages(q, "group", True, group=2)
    torch.testing.assert_close(scaled, torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]) / 2**0.5)
    torch.testing.assert_close(advantages(q, "running-mean", False, before=4.0), q - 4)
    whole = advantages(q, "group", False, group=4)
    torch.testing.assert_close(whole * 4 / 3, advantages(q, "leave-one-out", False))


def test_policy_losses_by_hand():
    log_prob = torch.tensor([[-1.0, -2.0], [-3.0, -0.5]], requires_grad=True)
    old = torch.tensor([[-1.5, -2.0], [-2.0, -0.5]])
    advantage = torch.tensor([[2.0, -1.0], [1.0, 1.0]])
    cells = torch.tensor([[True, True], [True, False]])
    reference = log_prob.detach() - 1
    config = Config(epochs=2, clip=0.2, kl_loss_coef=0.5, ent_coef=0.1)
    losses = policy_losses(log_prob, old, advantage, cells, reference, config)
    gains = 2 * 1.2, -1 * 1.0, 1 * np.exp(-1)
    assert losses["policy_loss"].item() == close(-sum(gains) / 3)
    assert losses["kl_loss"].item() == close(0.5 * 3 * 1 / 2 / 3)
    own = (-1 + 2) * -1 + (-2 + 1.25) * -2 + (-3 + 2) * -3
    assert losses["entropy_loss"].item() == close(0.1 * own / 3)


@pytest.mark.parametrize("what", ["kl", "entropy"])
def test_regularisers_have_the_gradient_of_what_they_are_named_after(what):
    """One cell of three codes, by enumeration: the mean gradient over samples is the exact one."""
    logits = torch.tensor([0.3, -0.4, 1.0], requires_grad=True)
    prior = torch.tensor([0.5, 0.2, 0.3]).log()
    log_prob = logits.log_softmax(0)
    exact = (log_prob.exp() * (log_prob - prior)).sum()  # KL(policy || prior)
    if what == "entropy":
        exact = (log_prob.exp() * log_prob).sum()  # what falls as the entropy rises
    (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
    config = Config(kl_loss_coef=float(what == "kl"), ent_coef=float(what == "entropy"))
    found = torch.zeros(3)
    for code in range(3):
        taken = log_prob[code].view(1, 1)
        # With one canvas the entropy's baseline would be the canvas itself: two that differ.
        pair = torch.cat([taken, torch.zeros(1, 1)]) if what == "entropy" else taken
        cells = torch.ones_like(pair, dtype=torch.bool)
        cells[1:] = False
        reference = prior[code].view(1, 1) if what == "kl" else None
        losses = policy_losses(
            pair, pair.detach(), torch.zeros_like(pair), cells, reference, config
        )
        (part,) = torch.autograd.grad(losses[f"{what}_loss"], logits, retain_graph=True)
        weight = 2 if what == "entropy" else 1  # its baseline halved what the sample says
        found += log_prob[code].exp().item() * weight * part
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)

"""On canvases few enough to list, a round brings the policy where the derivation says."""

import dataclasses
import itertools

import pytest
import torch
from probes import probe_bundle

from agents.rounds import Config, train

CONFIG = Config(
    env="RALBundle-v0",
    rounds=1,
    canvases=20_000,
    discriminator_canvases=1,
    discriminator_warmup=0,
    discriminator_updates=0,  # the probe is what it is
    clip_quantile=1.0,
    updates=150,
    batch=64,
    learning_rate=1e-2,
    final_rate=0.05,
    ema=0.9,
    mle_coef=0.0,
    kl_coef=1.0,
)
# All canvases of 2 x 2 cells and 3 codes.
CODES = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)


@torch.no_grad()
def distribution(prior):
    """The probability of each canvas, float64 (81,)."""
    return prior.log_prob(CODES).double().sum((1, 2)).exp()


@torch.no_grad()
def scores(bundle):
    return bundle.discriminator(bundle.vqvae.lookup([CODES])[0]).double().mean((1, 2, 3))


def kl(p, q):
    return (p * (p / q).log()).sum().item()


@pytest.mark.parametrize(
    ("signed", "kl_coef", "step"),
    [(True, 1.0, 1.0), (True, 2.0, 1 / 2), (False, 0.0, 1.0), (False, 1.0, 1 / 2)],
)
def test_a_round_goes_the_share_of_the_way_that_its_losses_have_their_minimum_at(
    signed, kl_coef, step
):
    """The minimum is prior * (1 + step * (w - 1)), w = exp(D) with mean 1: at step 1, prior * w."""
    bundle = probe_bundle("code in context", side=2)
    config = dataclasses.replace(CONFIG, signed=signed, kl_coef=kl_coef)
    (policy,) = train(config, bundle=bundle, progress=False).policies
    prior, new = distribution(bundle.priors[0]), distribution(policy)
    weights = scores(bundle).exp()
    target = prior * (1 + step * (weights / (prior * weights).sum() - 1))
    assert kl(prior, target) > 0.04
    assert kl(new, target) < 0.1 * kl(prior, target)
    assert kl(target, new) < 0.1 * kl(target, prior)


@pytest.mark.parametrize(
    ("source", "gains"), [("discriminator", True), ("shuffled", False), ("constant", False)]
)
def test_scores_gain_what_shuffled_or_equal_ones_do_not(source, gains):
    bundle = probe_bundle("code in context", side=2)
    config = dataclasses.replace(CONFIG, reward_source=source)
    result = train(config, bundle=bundle, progress=False)
    prior, new = distribution(bundle.priors[0]), distribution(result.policies[0])
    gain = ((new - prior) * scores(bundle)).sum().item()
    assert gain > 0.3 if gains else abs(gain) < 0.05
    row = result.history[1]
    assert (row["ess"] < 0.9) == (source != "constant")
    assert (row["policy_loss"] == 0) == (source == "constant")
    if source == "constant":
        assert kl(prior, new) < 1e-3  # Adam makes steps of gradients that are rounding


def test_rounds_learn_a_code_that_must_equal_a_far_one():
    bundle = probe_bundle("far context")
    config = dataclasses.replace(CONFIG, rounds=4, canvases=4_000, updates=120)
    result = train(config, bundle=bundle, progress=False)
    scored = [row["score_fake"] for row in result.history[1:]]
    assert scored[0] < 0.3 and scored == sorted(scored)
    assert scored[-1] > 0.9

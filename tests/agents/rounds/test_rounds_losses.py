"""Weights, chances and losses of the rounds, against values by hand and by enumeration."""

import itertools
import math

import pytest
import torch
from conftest import close
from probes import probe_bundle

from agents.rounds.losses import (
    effective_sample_size,
    elite_weights,
    exact_kl,
    importance_weights,
    policy_losses,
    proposal,
)


def test_weights_are_exponents_of_the_scores_with_mean_one():
    scores = torch.tensor([1.0, 2.0, 3.0, 6.0]).log()
    assert importance_weights(scores).tolist() == close([1 / 3, 2 / 3, 1, 2])
    assert importance_weights(scores + 500).tolist() == close([1 / 3, 2 / 3, 1, 2])


def test_large_weights_are_cut_at_the_quantile_before_they_are_scaled():
    scores = torch.tensor([1.0, 2.0, 3.0, 6.0]).log()
    assert importance_weights(scores, 0.5).tolist() == close([0.5, 1, 1.25, 1.25])


def test_elites_are_the_share_that_scores_best_and_weigh_alike():
    scores = torch.tensor([0.5, 2.0, -1.0, 1.0])
    assert elite_weights(scores, 0.5).tolist() == [0, 2, 0, 2]
    assert elite_weights(scores, 0.01).tolist() == [0, 4, 0, 0]
    assert elite_weights(scores, 1.0).tolist() == [1, 1, 1, 1]


def test_the_effective_sample_size_is_one_for_equal_weights_and_1_in_n_for_a_single_one():
    assert effective_sample_size(torch.full((5,), 3.0)) == close(1)
    assert effective_sample_size(torch.tensor([0.0, 0.0, 0.0, 4.0])) == close(1 / 4)
    assert effective_sample_size(torch.tensor([1.0, 3.0])) == close(16 / 20)


def test_chances_are_those_by_hand_and_importance_undoes_them():
    weights = torch.tensor([0.2, 1.0, 1.8])
    chance = proposal(weights, 0.4)
    assert chance.tolist() == close([0.429, 0.143, 0.429], terms=100)
    values = torch.tensor([5.0, -2.0, 3.0])
    importance = 1 / (3 * chance)
    assert (chance * importance * values).sum().item() == close(values.mean().item())


def test_losses_are_those_by_hand_on_two_levels():
    """A level of one cell and one of two, two codes, two canvases."""
    half, quarter = math.log(1 / 2), math.log(1 / 4)
    even = [torch.full((2, 1, 1, 2), half), torch.full((2, 1, 2, 2), half)]
    skewed = torch.tensor([quarter, math.log(3 / 4)])
    new = [skewed.expand(2, 1, 1, 2), skewed.expand(2, 1, 2, 2)]
    grids = [torch.tensor([[[0]], [[1]]]), torch.tensor([[[0, 0]], [[1, 1]]])]
    coefficients, importance = torch.tensor([-1.0, 0.5]), torch.tensor([2.0, 3.0])
    losses = policy_losses(new, even, grids, coefficients, importance, kl_coef=0.7)
    first, second = 3 * quarter, 3 * math.log(3 / 4)
    assert losses["policy_loss"].item() == close(-(-1 * 2 * first + 0.5 * 3 * second) / 6)
    a_cell = half - (quarter + math.log(3 / 4)) / 2
    assert losses["kl_loss"].item() == close(0.7 * (2 + 3) * 3 * a_cell / 6)


def test_the_cells_kl_averages_to_that_of_whole_canvases():
    old, new = (probe_bundle("constant", side=2, seed=seed).priors[0] for seed in (0, 1))
    codes = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    with torch.no_grad():
        by_cell = exact_kl(*([net.logits(codes).log_softmax(-1)] for net in (old, new)))
        log_old, log_new = (net.log_prob(codes).sum((1, 2)) for net in (old, new))
    whole = (log_old.exp() * (log_old - log_new)).sum().item()
    assert (log_old.exp() * by_cell).sum().item() == pytest.approx(whole, rel=1e-4)
    assert whole > 0.01

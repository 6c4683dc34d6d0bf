"""The guard keeps the best of what it was shown, by the split to tune on, and says when to end."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.evaluation.guard import Guard
from ral_env import bundle


@pytest.fixture(scope="module")
def digits():
    return bundle.load("digits")


def altered(digits, scale):
    """The prior with noise in its weights."""
    nets = copy.deepcopy(nn.ModuleList(digits.priors))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in nets.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(scale * parameter.std(correction=0) * noise)
    return nets


def test_figures_are_the_evaluator_s_on_the_split_to_tune_on(digits):
    guard = Guard(digits, nn.ModuleList(digits.priors), samples=60, seed=3)
    evaluator = Evaluator(digits, split=digits.tuning_split)
    expected = evaluator.evaluate_prior(TemperedPrior(digits.priors), 60, 3).figures
    assert guard.figures["tuning_fd"] == pytest.approx(expected["fd"])
    assert guard.figures["tuning_nll"] == pytest.approx(expected["forward_nll"])


def test_what_is_better_is_kept_and_what_is_worse_is_not(digits):
    good, bad = nn.ModuleList(digits.priors), altered(digits, 0.3)
    guard = Guard(digits, bad, samples=60, patience=2)
    assert guard.look(altered(digits, 0.6))["tuning_best"] == 0 and guard.since == 1
    assert guard.look(good)["tuning_best"] == 1 and guard.since == 0
    with torch.no_grad():
        kept = [p.clone() for p in good.parameters()]
    assert all(map(torch.equal, guard.best.parameters(), kept))
    for over in (False, True):
        assert guard.look(bad)["tuning_best"] == 0
        assert guard.is_over == over
    assert all(map(torch.equal, guard.best.parameters(), kept)), "the best stays"


def test_what_gives_up_likelihood_is_never_the_best(digits, monkeypatch):
    guard = Guard(digits, nn.ModuleList(digits.priors), bound=1.01, samples=60)
    first = dict(guard.figures)
    for nll, is_best in ((1.011, 0), (1.009, 1)):
        found = {"tuning_fd": 0.0, "tuning_nll": nll * first["tuning_nll"]}
        monkeypatch.setattr(guard, "_measure", lambda _, found=found: found)
        assert guard.look(nn.ModuleList(digits.priors))["tuning_best"] == is_best


def test_looks_draw_no_random_numbers_of_the_run_s(digits):
    guard = Guard(digits, nn.ModuleList(digits.priors), samples=60)
    before = torch.get_rng_state()
    guard.look(nn.ModuleList(digits.priors))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_guard_goes_on_from_its_state(digits):
    good, bad = nn.ModuleList(digits.priors), altered(digits, 0.3)
    guard = Guard(digits, bad, samples=60)
    guard.look(good)
    guard.look(bad)
    other = Guard(digits, bad, samples=60)
    other.load_state_dict(guard.state_dict())
    assert (other.figures, other.since) == (guard.figures, 1)
    assert all(map(torch.equal, other.best.parameters(), guard.best.parameters()))


def test_a_bundle_without_a_feature_net_is_refused(digits):
    without = dataclasses.replace(digits, feature_nets={}, test_features={})
    with pytest.raises(ValueError, match="no feature net.*guard_every=0"):
        Guard(without, nn.ModuleList(digits.priors))

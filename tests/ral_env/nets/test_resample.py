"""Of several candidates one is kept as often as enumeration says, and ever nearer to p * exp(D)."""

import itertools

import pytest
import torch
from probes import probe_bundle

from ral_env.nets.resample import resample, score

CODES = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
PLACES = torch.tensor([27, 9, 3, 1])  # of a canvas of 2 x 2 codes among all 81


@pytest.fixture(scope="module")
def exact():
    """The probability of each canvas by the prior, and its weight exp(D)."""
    bundle = probe_bundle("code in context", side=2)
    with torch.no_grad():
        prior = bundle.priors[0].log_prob(CODES).double().sum((1, 2)).exp()
    return prior, score(bundle.discriminator, bundle.vqvae, [CODES], "codes").double().exp()


def kept(exact, candidates, count=40_000):
    """How often each canvas is kept, of as many candidates that are drawn from the prior."""
    prior, weight = exact
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(prior, count * candidates, replacement=True, generator=generator)
    (grid,) = resample([CODES[drawn]], weight.log()[drawn], candidates, generator)
    return torch.bincount((grid.flatten(1) * PLACES).sum(1), minlength=81) / count


def apart(p, q):
    """Total variation."""
    return (p - q).abs().sum().item() / 2


def test_one_of_two_is_kept_as_often_as_enumeration_says(exact):
    prior, weight = exact
    share = weight[:, None] / (weight[:, None] + weight)  # of a pair, the first is kept
    expected = 2 * prior * (share * prior).sum(1)
    assert expected.sum().item() == pytest.approx(1)
    assert apart(kept(exact, 2), expected) < 0.03 < 0.1 < apart(prior, expected)


def test_a_single_candidate_is_a_sample_of_the_prior(exact):
    assert apart(kept(exact, 1), exact[0]) < 0.03


def test_many_candidates_come_to_the_prior_times_exp_of_the_score(exact):
    prior, weight = exact
    target = prior * weight / (prior * weight).sum()
    assert apart(kept(exact, 64), target) < 0.03
    assert apart(prior, target) > 0.3


def test_canvases_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match="candidates=2"):
        resample([torch.zeros(3, 2, 2)], torch.zeros(3), 2)
    with pytest.raises(ValueError, match="4 canvases with 2 scores"):
        resample([torch.zeros(4, 2, 2)], torch.zeros(2), 2)

"""Noisy contexts: a prior is conditioned on its own samples in part; what it predicts is real."""

import itertools
from typing import Any, cast

import pytest
import torch
from torch import nn

from agents.training.fit import PriorTraining, fit_prior, fit_priors, noisy_context, prior_loss
from ral_env.nets import Mixture, MixtureConfig, PixelCNN, PixelCNNConfig

NOISE = 0.95


class Constant(nn.Module):
    """Always code 1 with probability 3/4, else code 0; remembers what it was conditioned on."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def logits(self, codes, condition=None):
        self.asked.append((codes, condition))
        return torch.tensor([0.25, 0.75]).log().expand(*codes.shape, 2)


def constant() -> Any:
    return Constant()


def three_cells() -> PixelCNN:
    """One row of three cells, whose conditionals depend on what is before them."""
    torch.manual_seed(0)
    prior = PixelCNN(PixelCNNConfig((1, 3), 3, 4, 4, 1, dropout=0.0, output_layers=1))
    with torch.no_grad():
        prior.embedding.weight.mul_(3)
        prior.head.weight.mul_(20)
    return prior


@torch.no_grad()
def test_the_expected_loss_is_that_of_all_contexts_weighted_by_their_chance():
    """All contexts of three cells by hand. Both cells before the last share their canvas's rate."""
    prior, real = three_cells(), torch.tensor([[[0, 1, 2]]])
    first, second = prior.logits(real).softmax(-1)[0, 0, :2].double()
    # The mean over a rate that is uniform in [0, NOISE] of rate^n (1 - rate)^(2 - n).
    mean, square = NOISE / 2, NOISE**2 / 3
    shared = [1 - 2 * mean + square, mean - square, square]
    apart = [(1 - mean) ** 2, mean * (1 - mean), mean**2]  # if every cell had a rate of its own
    losses, chances, others = [], [], []
    for changed in itertools.product([False, True], repeat=2):
        for guess in itertools.product(range(3), repeat=2):
            context = real.clone()
            chance = torch.tensor(1.0).double()
            for cell, probabilities in enumerate((first, second)):
                if changed[cell]:
                    context[0, 0, cell] = guess[cell]
                    chance = chance * probabilities[guess[cell]]
                elif guess[cell]:
                    chance = chance * 0  # counted once, at guess 0
            log_probs = prior.logits(context).log_softmax(-1)
            losses.append(-log_probs.gather(-1, real.unsqueeze(-1)).mean().double())
            chances.append(chance * shared[sum(changed)])
            others.append(chance * apart[sum(changed)])
    loss, chance, other = torch.stack(losses), torch.stack(chances), torch.stack(others)
    assert chance.sum().item() == pytest.approx(1)
    expected = (chance * loss).sum()
    count = 500_000
    error = ((chance * (loss - expected) ** 2).sum() / count).sqrt()
    torch.manual_seed(1)
    found = prior_loss(prior, real.expand(count, 1, 3), None, NOISE)["nats_per_code"]
    assert abs(found - expected) < 4 * error
    assert abs((other * loss).sum() - expected) > 8 * error, "the test would tell"
    assert abs(-prior.log_prob(real).mean() - expected) > 8 * error


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_without_noise_it_is_plain_maximum_likelihood_to_the_bit(noise):
    """No random number is drawn, so dropout and all later ones are the same, too."""
    torch.manual_seed(0)
    prior = PixelCNN(PixelCNNConfig((4, 4), 5, 8, 8, 2, dropout=0.3, output_layers=1))
    codes = torch.randint(5, (6, 4, 4))
    torch.manual_seed(2)
    plain, after_plain = prior.compute_loss(codes), torch.get_rng_state()
    torch.manual_seed(2)
    found, after = prior_loss(prior, codes, None, noise), torch.get_rng_state()
    assert torch.equal(found["nats_per_code"], plain["nats_per_code"]) == (noise == 0)
    assert torch.equal(after, after_plain) == (noise == 0)


def test_targets_and_the_level_above_stay_real():
    prior, codes, above = constant(), torch.zeros(50, 4, 4).long(), torch.ones(50, 2, 2).long()
    loss = prior_loss(prior, codes, above, 0.9)["nats_per_code"]
    assert loss.item() == pytest.approx(-torch.tensor(0.25).log().item()), "of code 0, always"
    (teacher, condition), (context, other_condition) = prior.asked
    assert torch.equal(teacher, torch.zeros_like(codes)) and not codes.any()
    assert context.any(), "what it is conditioned on is changed"
    assert condition is above and other_condition is above


def test_each_canvas_draws_its_rate_between_0_and_the_largest():
    """The net never writes the real code here, so that every replacement shows."""
    prior = constant()
    prior.logits = lambda codes, condition=None: torch.tensor([-1e9, 0.0]).expand(*codes.shape, 2)
    torch.manual_seed(0)
    context = noisy_context(prior, torch.zeros(3000, 40, 40).long(), None, 0.2)
    share = context.float().mean((1, 2))
    sampling = (0.2 * 0.8 / 1600) ** 0.5
    assert 0.2 < share.max() < 0.2 + 4 * sampling and share.min() < 0.001
    assert share.mean().item() == pytest.approx(0.1, abs=4 * 0.2 / 36000**0.5)
    assert share.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.05), "uniform"


def two_levels() -> tuple[list[PixelCNNConfig], list[torch.Tensor]]:
    sizes: dict[str, Any] = {"hidden": 8, "residual": 8, "layers": 1, "output_layers": 0}
    configs = [
        PixelCNNConfig((2, 2), 4, **sizes),
        PixelCNNConfig((4, 4), 4, **sizes, condition_layers=1, condition_grid=(2, 2)),
    ]
    top = torch.randint(4, (60, 2, 2), generator=torch.Generator().manual_seed(0))
    return configs, [top, top.repeat_interleave(2, 1).repeat_interleave(2, 2)]


def test_priors_of_all_levels_learn_from_noisy_contexts():
    """The bottom is what the top says: the top is never noisy, so it can be learnt all the same."""
    configs, grids = two_levels()
    training = PriorTraining(steps=100, batch=30, learning_rate=2e-2, context_noise=0.9)
    _, (_, bottom) = fit_priors(configs, grids, grids, [training] * 2)
    assert bottom[-1]["validation_nats_per_code"] < 0.1 < bottom[0]["validation_nats_per_code"]


@pytest.mark.parametrize("styles_known", [True, False])
def test_mixtures_learn_from_noisy_contexts(styles_known):
    torch.manual_seed(0)
    mixture = Mixture(MixtureConfig((2, 2), 4, 8, 8, 1, output_layers=0, dropout=0.0, styles=2))
    styles = torch.arange(40).remainder(2).view(-1, 1, 1)
    codes = styles.expand(-1, 2, 2).contiguous()
    training = PriorTraining(steps=60, batch=20, learning_rate=2e-2, context_noise=0.5)
    conditions = (styles, styles) if styles_known else None
    rows = fit_prior(mixture, codes, codes, training, conditions)
    assert rows[-1]["validation_nats_per_code"] < 0.3 * rows[0]["validation_nats_per_code"]


def test_mixed_precision_reaches_every_weight():
    """The pass that draws the noise has no gradient; the pass that learns must have one."""
    prior, codes = three_cells(), torch.randint(3, (8, 1, 3))
    with torch.autocast("cpu", torch.bfloat16):
        loss = prior_loss(prior, codes, None, NOISE)["nats_per_code"]
    loss.float().backward()
    # The last layer's vertical stack and the bias that the first row never sees have none, ever.
    plain = three_cells()
    plain.compute_loss(codes)["nats_per_code"].backward()
    for (name, found), expected in zip(prior.named_parameters(), plain.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if expected.grad is not None and expected.grad.any():
            assert cast(torch.Tensor, found.grad).any(), name


@pytest.mark.parametrize("noise", [-0.1, 1.0, float("nan")])
def test_noise_out_of_range_is_refused(noise):
    with pytest.raises(ValueError, match=r"context_noise=.*, expected a number in \[0, 1\)"):
        PriorTraining(context_noise=noise)

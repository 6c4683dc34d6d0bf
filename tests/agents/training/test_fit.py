"""Maximum likelihood: it learns, keeps its best, is reproducible, and stops when told."""

import copy

import numpy as np
import torch
from conftest import FLOAT32, close

from agents.training.fit import PriorTraining, fit_prior, fit_priors, mean_nll
from agents.training.optimise import average_into
from ral_env.layout import CodeLayout
from ral_env.nets import PixelCNN, PixelCNNConfig


def striped(count, seed):
    """Every row repeats its first code, which is uniform over 4: log 4 nats a row, none after."""
    rng = np.random.default_rng(seed)
    return CodeLayout(((4, 4),), 4).as_grids(rng.integers(0, 4, (count, 4)).repeat(4, 1))[0]


def prior(seed=0):
    torch.manual_seed(seed)
    return PixelCNN(PixelCNNConfig((4, 4), 4, 16, 16, 2, dropout=0.0, output_layers=1))


def test_a_prior_learns_the_entropy_of_its_data():
    net = prior()
    training = PriorTraining(steps=150, batch=64, learning_rate=1e-2, validate_every=50)
    rows = fit_prior(net, striped(2000, 0), striped(500, 1), training)
    assert rows[-1]["validation_nats_per_code"] < 1.15 * np.log(4) / 4
    assert rows[0]["validation_nats_per_code"] > 2 * rows[-1]["validation_nats_per_code"]
    assert not net.training


def test_the_weights_that_were_best_are_kept():
    """From 20 canvases it soon overfits; what is left must score as its best row."""
    net, validation = prior(), striped(200, 1)
    training = PriorTraining(
        steps=120, batch=20, learning_rate=3e-2, schedule="constant", validate_every=10
    )
    train = torch.randint(4, (20, 4, 4), generator=torch.Generator().manual_seed(0))
    rows = fit_prior(net, train, validation, training)
    best = min(row["validation_nats_per_code"] for row in rows)
    assert best < rows[-1]["validation_nats_per_code"]
    assert mean_nll(net, validation) / 16 == close(best)


def test_patience_and_time_stop_it():
    training = PriorTraining(
        steps=10**6, batch=4, learning_rate=1e-1, validate_every=1, patience=3, schedule="constant"
    )
    rows = fit_prior(prior(), striped(10, 0), striped(10, 1), training)
    best = min(range(len(rows)), key=lambda i: rows[i]["validation_nats_per_code"])
    assert len(rows) - 1 - best == 3
    slow = PriorTraining(steps=10**6, batch=4, validate_every=10**6)
    assert fit_prior(prior(), striped(10, 0), striped(10, 1), slow, seconds=0.05)[-1]["step"] > 0


def test_the_same_seed_gives_the_same_weights():
    training = PriorTraining(steps=5, batch=8, ema=0.9)
    nets = [prior(), prior()]
    for net in nets:
        torch.manual_seed(3)
        fit_prior(net, striped(50, 0), striped(10, 1), training, seed=7)
    for a, b in zip(*(net.state_dict().values() for net in nets), strict=True):
        assert torch.equal(a, b)


def test_mean_nll_is_the_sum_over_cells():
    net, codes = prior().eval(), striped(7, 0)
    expected = -net.log_prob(codes).sum((1, 2)).mean().item()
    assert mean_nll(net, codes, batch=3) == close(expected)


def test_average_into_by_hand():
    a, b = prior(0), prior(1)
    before = copy.deepcopy(a.state_dict())
    average_into(a, b, 0.9)
    for name, value in a.state_dict().items():
        expected = 0.9 * before[name] + 0.1 * b.state_dict()[name]
        torch.testing.assert_close(value, expected, **FLOAT32)


def test_priors_are_fitted_level_by_level_as_each_would_be_alone():
    """The same nets from the same seed, each given the real codes above."""
    generator = torch.Generator().manual_seed(0)
    train = [torch.randint(4, (40, side, side), generator=generator) for side in (2, 4)]
    validation = [grid[:10] for grid in train]
    configs = [
        PixelCNNConfig((2, 2), 4, 4, 4, 1, output_layers=0),
        PixelCNNConfig(
            (4, 4), 4, 4, 4, 1, output_layers=0, condition_layers=1, condition_grid=(2, 2)
        ),
    ]
    training = PriorTraining(steps=6, batch=8)
    labels = []

    def options(level, fitted):
        labels.append((level, len(fitted)))
        return {}

    fitted, curves = fit_priors(configs, train, validation, [training] * 2, seed=5, options=options)
    assert labels == [(0, 0), (1, 1)]
    for level, config in enumerate(configs):
        torch.manual_seed(5)
        alone = PixelCNN(config)
        above = (train[level - 1], validation[level - 1]) if level else None
        rows = fit_prior(alone, train[level], validation[level], training, above, seed=5)
        assert [r["validation_nats_per_code"] for r in rows] == [
            r["validation_nats_per_code"] for r in curves[level]
        ]
        for a, b in zip(alone.parameters(), fitted[level].parameters(), strict=True):
            assert torch.equal(a, b)

"""A prior that samples by whole forward passes draws what one with a cache draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ral_env.nets import PixelCNN, PixelCNNConfig, UncachedPrior

CODES = 11


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("condition", [None, (3, 2)])
def test_the_uncached_prior_samples_what_the_cache_samples(temperature, condition):
    torch.manual_seed(0)
    above: Any = {"condition_layers": int(bool(condition)), "condition_grid": condition}
    net = PixelCNN(PixelCNNConfig((6, 4), CODES, hidden=8, residual=8, layers=2, **above)).eval()
    net.double()  # no rounding decides between two codes
    uncached = UncachedPrior(net, CODES)
    codes = torch.randint(CODES, (3, 6, 4))
    empty = torch.rand(3, 6, 4) < 0.5  # holes, and a row that is given
    empty[:, 2] = False
    for rows in (6, 4):
        above = condition and torch.randint(CODES, (3, rows // 2, 2))
        prefix = torch.where(empty, CODES, codes)[:, :rows]
        found, expected = (
            prior.sample(prefix, above, temperature, torch.Generator().manual_seed(3))
            for prior in (uncached, net)
        )
        assert torch.equal(found, expected)
        assert torch.equal(found[~empty[:, :rows]], codes[:, :rows][~empty[:, :rows]])
        torch.testing.assert_close(
            uncached.log_prob(codes[:, :rows], above, 0.7),
            net.log_prob(codes[:, :rows], above, 0.7),
        )


def test_the_uncached_prior_takes_the_likeliest_code_and_refuses_a_negative_temperature():
    prior = UncachedPrior(lambda codes: torch.eye(CODES)[torch.full_like(codes, 3)], CODES)
    prefix = torch.full((2, 3, 3), CODES)
    assert prior.sample(prefix, temperature=0.0).unique().tolist() == [3]
    with pytest.raises(ValueError, match="temperature=-1"):
        prior.sample(prefix, temperature=-1)

"""The noise that codes are drawn with: its distribution, to its ends, and a part of it."""

import math

import pytest
import torch
from conftest import FLOAT32

from ral_env import nets
from ral_env.nets import cache
from ral_env.nets.noise import SharedGenerator, gumbel, gumbel_from_bits


def test_noise_is_gumbel_whatever_the_processor():
    """By its distribution function, far into the side on which codes win; from the bits alone."""
    used, again = (torch.Generator().manual_seed(3) for _ in range(2))
    noise = gumbel((50, 4001), torch.zeros(1), used)
    assert noise.dtype == torch.float32 and torch.isfinite(noise).all()
    assert abs(noise.mean() - 0.5772) < 0.01 and abs(noise.std() - 1.2825) < 0.01
    for x in (-2, -1, 0, 1, 3, 6):
        expected = -math.expm1(-math.exp(-x))  # P(noise > x)
        error = (expected * (1 - expected) / noise.numel()) ** 0.5
        assert (noise > x).float().mean().item() == pytest.approx(expected, abs=4 * error)
    bits = torch.empty(100_025, dtype=torch.int64).random_(-(2**63), None, generator=again)
    halves = torch.stack([bits % 2**32, bits >> 32], 1).flatten()[:200_050]
    signed = torch.where(halves >= 2**31, halves - 2**32, halves).double()
    exponential = -torch.log1p(-(signed.abs() + 0.5) / 2**31 * (1 - 2**-24))
    expected = -exponential.log().float()
    wins = expected > -1.5  # the numbers' steps are coarser below, where no code wins
    torch.testing.assert_close(noise.flatten()[wins], expected[wins], **FLOAT32)


def test_the_rarest_noise_is_finite_and_right():
    """From the smallest and the largest bits, where logarithms end."""
    bits = torch.tensor([0, 0, -(2**31), 2**31 - 1, 1, -1], dtype=torch.int32)
    noise = gumbel_from_bits(bits, torch.float32)
    u = torch.tensor([0.5, 0.5, 2**31, 2**31, 1.5, 1.5]).double() / 2**31
    expected = -(-torch.log1p(-u * (1 - 2**-24))).log().float()
    assert torch.isfinite(noise).all() and noise.max() < 23
    torch.testing.assert_close(noise, expected, **FLOAT32)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_that_share_a_generator_draw_what_one_would_draw(count):
    like, shape = torch.zeros(1), (3, 8, 5)  # (columns, canvases, num_codes)
    alone = torch.Generator().manual_seed(2)
    expected = gumbel(shape, like, alone)
    parts = []
    for index in range(count):
        generator = torch.Generator().manual_seed(2)
        shared = SharedGenerator(generator, index, count)
        parts.append(gumbel((3, 8 // count, 5), like, shared))
        assert torch.equal(generator.get_state(), alone.get_state())
    assert torch.equal(torch.cat(parts, 1), expected)


def test_old_names_are_found_where_they_were_with_a_warning():
    with pytest.warns(FutureWarning, match="ral_env.nets.noise.SharedGenerator now"):
        assert cache.Part is SharedGenerator
    with pytest.warns(FutureWarning, match="ral_env.nets.noise.gumbel now"):
        assert cache.gumbel is gumbel
    with pytest.warns(FutureWarning, match="ral_env.nets.UncachedPrior now"):
        assert nets.SlowPrior is nets.UncachedPrior

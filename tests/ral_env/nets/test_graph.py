"""The steps that a GPU replays write what PixelCNN.sample writes."""

import shutil
from typing import Any, cast

import pytest
import torch
from test_cache_equals_forward import CODES, VARIANTS, batch, build

from ral_env.nets import graph
from ral_env.nets.graph import GraphSampler


def prefixes(net):
    """Nothing, one row, half a row more, all but one, few rows, a whole canvas; their condition."""
    codes, condition = batch(net)
    empty = torch.full_like(codes, CODES)
    for cells in (0, 4, 10, 20):
        prefix = empty.clone()
        prefix.flatten(1)[:, :cells] = codes.flatten(1)[:, :cells]
        yield prefix, condition
    holes = torch.where(torch.rand(codes.shape) < 0.5, codes, CODES)
    yield holes, condition  # canvases differ in what is known
    if condition is None:
        yield empty[:, :3], None
    else:
        yield empty[:, :4], condition[:, :2]
    yield codes, condition


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_steps_write_the_same_codes_from_the_same_noise(variant, temperature):
    torch.manual_seed(0)
    net = build(**VARIANTS[variant]).eval().double()
    sampler = in_double(net)
    for prefix, condition in prefixes(net):
        a, b = (torch.Generator().manual_seed(5) for _ in range(2))
        expected = net.sample(prefix, condition, temperature, a)
        found = sampler.sample(prefix, condition, temperature, b)
        assert torch.equal(found, expected)
        assert torch.equal(a.get_state(), b.get_state()), "as much noise was drawn"


def in_double(net, compile=False):
    """A sampler in double precision, in which no rounding decides between two codes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(graph.PRECISIONS, "float32", torch.float64)
        sampler = GraphSampler(net, 3, compile=compile)
    return sampler


@pytest.mark.expensive
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for Inductor")
def test_compiled_steps_write_the_same_codes():
    net = build(**VARIANTS["conditional with attention"]).eval().double()
    sampler = in_double(net, compile=True)
    for prefix, condition in prefixes(net):
        a, b = (torch.Generator().manual_seed(5) for _ in range(2))
        expected = net.sample(prefix, condition, generator=a)
        assert torch.equal(sampler.sample(prefix, condition, generator=b), expected)


def test_a_sampler_follows_the_weights():
    net = build().eval().double()
    sampler = in_double(net)
    prefix = torch.full((3, 6, 4), CODES)
    for _ in range(2):
        generators = [torch.Generator().manual_seed(1) for _ in range(2)]
        found = sampler.sample(prefix, generator=generators[0])
        assert torch.equal(found, net.sample(prefix, generator=generators[1]))
        with torch.no_grad():
            net.head.weight.mul_(-3)


def test_16_bits_are_near():
    """Likelihoods of what is written differ little from those of 32 bits."""
    net = build(attention_layers=1).eval()
    prefix = torch.full((64, 6, 4), CODES)
    nats = []
    for precision in ("float32", "bfloat16"):
        sampler = GraphSampler(net, 64, precision)
        codes = sampler.sample(prefix, generator=torch.Generator().manual_seed(0))
        nats.append(-net.log_prob(codes).mean().item())
    assert nats[0] != nats[1] and nats[0] == pytest.approx(nats[1], rel=0.05)


def test_bad_input_is_refused():
    net = build().eval()
    with pytest.raises(ValueError, match="precision='half'"):
        GraphSampler(net, 3, cast(Any, "half"))
    sampler = GraphSampler(net, 3)
    with pytest.raises(ValueError, match="2 canvases, expected 3"):
        sampler.sample(torch.full((2, 6, 4), CODES))
    with pytest.raises(ValueError, match="temperature=-1"):
        sampler.sample(torch.full((3, 6, 4), CODES), temperature=-1)
    with pytest.raises(ValueError, match="unconditional"):
        sampler.sample(torch.full((3, 6, 4), CODES), torch.zeros(3, 3, 2, dtype=torch.int64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA: nothing to capture")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.expensive)])
def test_captured_steps_write_the_same_codes(variant, compile):
    net = build(**VARIANTS[variant]).eval().cuda()
    sampler = GraphSampler(net, 3, compile=compile)
    for prefix, condition in prefixes(net):
        prefix = prefix.cuda()
        condition = None if condition is None else condition.cuda()
        a, b = (torch.Generator("cuda").manual_seed(5) for _ in range(2))
        expected = net.sample(prefix, condition, generator=a)
        assert torch.equal(sampler.sample(prefix, condition, generator=b), expected)

"""The priors of two levels are one distribution: its probabilities, and samples that follow it."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FLOAT32, close

from ral_env.nets import PixelCNN, PixelCNNConfig, joint
from ral_env.nets.noise import gumbel


def build(top=(3, 2), bottom=(6, 4), codes=7, seed=0, **overrides) -> list[PixelCNN]:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden": 12,
        "residual": 10,
        "layers": 2,
        "output_layers": 1,
    } | overrides
    nets = [
        PixelCNN(PixelCNNConfig(top, codes, **sizes)),
        PixelCNN(PixelCNNConfig(bottom, codes, condition_layers=1, condition_grid=top, **sizes)),
    ]
    with torch.no_grad():
        for net in nets:
            for parameter in net.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return [net.eval() for net in nets]


def in_double(nets: list[PixelCNN]) -> list[PixelCNN]:
    """In double precision, in which no rounding decides between two codes."""
    return [net.double() for net in nets]


def random_grids(nets, count=3, rows=None, seed=1) -> list[torch.Tensor]:
    """Codes of both levels, of the first ``rows`` rows of the top."""
    generator, grids = torch.Generator().manual_seed(seed), []
    for net in nets:
        h, w = net.config.grid
        h = h if rows is None else rows * h // nets[0].config.grid[0]
        grids.append(torch.randint(net.config.num_codes, (count, h, w), generator=generator))
    return grids


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("rows", [3, 2])
def test_log_prob_is_that_of_the_top_and_of_the_bottom_given_the_top(temperature, rows):
    nets = build()
    grids = random_grids(nets, rows=rows)
    found = joint.log_prob(nets, grids, temperature)
    with torch.no_grad():
        logits = [nets[0].logits(grids[0]), nets[1].logits(grids[1], grids[0])]
    total = torch.zeros(3)
    for each, level, codes in zip(found, logits, grids, strict=True):
        share = (level / temperature).softmax(-1)
        expected = share.gather(-1, codes[..., None])[..., 0].log()
        torch.testing.assert_close(each, expected, **FLOAT32)
        total += expected.sum((1, 2))
    for batch in (None, 1, 2):
        whole = joint.total_log_prob(nets, grids, temperature, batch)
        torch.testing.assert_close(whole, total, **FLOAT32)
        assert not whole.requires_grad
    torch.stack([each.sum() for each in found]).sum().backward()
    for net in nets:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_probabilities_of_all_canvases_add_up_to_one():
    nets = build(top=(1, 2), bottom=(2, 4), codes=2)
    cells = torch.tensor(list(product(range(2), repeat=10)))  # every canvas there is
    log_prob = joint.total_log_prob(
        nets, [cells[:, :2].view(-1, 1, 2), cells[:, 2:].view(-1, 2, 4)]
    )
    assert log_prob.double().exp().sum().item() == close(1)
    # The bottom depends on the top: given each top, its probabilities add up to one as well.
    given = joint.log_prob(nets, [cells[:, :2].view(-1, 1, 2), cells[:, 2:].view(-1, 2, 4)])[1]
    share = given.detach().sum((1, 2)).exp().view(4, 256)
    assert share.sum(1).numpy() == close(np.ones(4))
    assert (share[0] - share[3]).abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_drawn_canvases_are_as_frequent_as_they_are_probable(temperature):
    nets = build(top=(1, 1), bottom=(2, 2), codes=2)
    count, generator = 20_000, torch.Generator().manual_seed(0)
    top, bottom = joint.draw(nets, count, generator, temperature, batch=7_000)
    assert top.shape == (count, 1, 1) and bottom.shape == (count, 2, 2)
    cells = torch.tensor(list(product(range(2), repeat=5)))
    grids = [cells[:, :1].view(-1, 1, 1), cells[:, 1:].view(-1, 2, 2)]
    probable = joint.total_log_prob(nets, grids, temperature).exp()
    number = torch.cat([top.flatten(1), bottom.flatten(1)], 1) @ (2 ** torch.arange(4, -1, -1))
    share = torch.bincount(number, minlength=32) / count
    deviation = (probable * (1 - probable) / count).sqrt()
    assert ((share - probable).abs() < 4.5 * deviation + 1e-4).all()
    assert probable.max() > 3 * probable.min()  # a uniform draw would not pass


def test_drawing_without_temperature_takes_the_likeliest_codes():
    nets = in_double(build())
    top, bottom = joint.draw(nets, 3, temperature=0.0, batch=2)
    for grid, logits in ((top, nets[0].logits(top)), (bottom, nets[1].logits(bottom, top))):
        assert torch.equal(grid, logits.argmax(-1))


def naive_sample(nets, prefixes, temperature, generator) -> list[torch.Tensor]:
    """A whole forward pass for each cell, the top level first: the definition."""
    grids: list[torch.Tensor] = []
    for net, prefix in zip(nets, prefixes, strict=True):
        codes, empty = prefix.clone(), prefix == net.config.num_codes
        for row in range(codes.shape[1]):
            if not empty[:, row].any():
                continue
            shape = (codes.shape[2], len(codes), net.config.num_codes)
            noise = gumbel(shape, net.embedding.weight, generator)
            for column in range(codes.shape[2]):
                known = codes.masked_fill(codes == net.config.num_codes, 0)
                logits = net.logits(known, grids[-1] if grids else None)[:, row, column]
                drawn = (logits / temperature + noise[column]).argmax(1)
                codes[:, row, column] = drawn.where(empty[:, row, column], codes[:, row, column])
        grids.append(codes)
    return grids


KINDS = {  # rows of the canvas, and how many of them are given, counted on the top level
    "full": (3, 0),
    "continue from one row": (3, 1),
    "continue from all but one": (3, 2),
    "scratch": (2, 0),
    "one row of two": (2, 1),
    "nothing to write": (3, 3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overrides", [{}, {"attention_layers": 1}], ids=["plain", "attention"])
def test_the_same_noise_gives_the_same_canvases_as_naive_sampling(kind, overrides):
    nets = in_double(build(**overrides))
    rows, given = KINDS[kind]
    real = random_grids(nets, rows=rows)
    prefixes = [grid.clone() for grid in real]
    for prefix, ratio in zip(prefixes, (1, 2), strict=True):
        prefix[:, given * ratio :] = 7
    for temperature in (1.0, 0.7):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(3)
            expected = naive_sample(nets, prefixes, temperature, generator)
        found = joint.sample(nets, prefixes, temperature, torch.Generator().manual_seed(3))
        for level, ratio in enumerate((1, 2)):
            assert torch.equal(found[level], expected[level])
            assert torch.equal(found[level][:, : given * ratio], real[level][:, : given * ratio])
            assert found[level].max() < 7
            assert (prefixes[level][:, given * ratio :] == 7).all()  # what was given is left alone


def test_the_bottom_is_sampled_given_the_top():
    nets = build()
    tops = random_grids(nets)[0]
    empty = torch.full((3, 6, 4), 7)

    def sample(top):
        return joint.sample(nets, [top, empty], generator=torch.Generator().manual_seed(3))

    again, other = sample(tops), sample((tops + 1) % 7)
    assert torch.equal(again[0], tops) and torch.equal(sample(tops)[1], again[1])
    assert (other[1] != again[1]).float().mean() > 0.1  # the noise was the same

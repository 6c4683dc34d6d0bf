"""Incremental sampling is exact: it equals the plain forward, from every kind of prefix."""

from typing import Any

import pytest
import torch
from conftest import FLOAT32

from ral_env.nets import PixelCNN, PixelCNNConfig
from ral_env.nets.cache import Cache
from ral_env.nets.noise import gumbel

CODES = 11
VARIANTS = {
    "plain": {},
    "attention": {"attention_layers": 2},
    "attention everywhere": {"attention_layers": 3},
    "conditional": {"condition_layers": 1, "condition_grid": (3, 2)},
    "conditional with attention": {
        "condition_layers": 1,
        "condition_grid": (3, 2),
        "attention_layers": 1,
    },
    "wide filter": {"filter_size": 7},
    "one layer": {"layers": 1},
    "narrow inside": {"residual": 5},
}


def build(seed=0, **overrides):
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden": 16,
        "residual": 12,
        "layers": 3,
        "output_layers": 2,
    } | overrides
    net = PixelCNN(PixelCNNConfig((6, 4), CODES, **sizes))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # no bias stays at zero
    return net


def batch(net, count=3, rows=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(CODES, (count, rows, 4), generator=generator)
    above = net.config.condition_grid
    condition = above and torch.randint(CODES, (count, *above), generator=generator)
    return codes, condition


def naive_sample(net, prefix, condition, temperature, generator):
    """A whole forward pass for each code: the definition of sampling."""
    codes = prefix.clone()
    for row in range(prefix.shape[1]):
        if not (prefix[:, row] == CODES).any():
            continue
        noise = gumbel((4, len(prefix), CODES), net.embedding.weight, generator)
        for column in range(4):
            empty = prefix[:, row, column] == CODES
            known = torch.where(codes == CODES, 0, codes)  # what stands later must not matter
            scores = net.logits(known, condition)[:, row, column]
            if temperature > 0:
                scores = scores / temperature + noise[column]
            codes[empty, row, column] = scores.argmax(1)[empty]
    return codes


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_logits_equal_the_plain_forward(variant):
    net = build(**VARIANTS[variant]).eval()
    codes, condition = batch(net)
    with torch.inference_mode():
        plain = net.logits(codes, condition)
        cache = Cache(net.weights(), len(codes), net.context(condition, 6))
        for row in range(6):
            cache.next_row(codes[:, row - 1] if row else None)
            for column in range(4):
                left = codes[:, row, column - 1 : column] if column else None
                found = cache.logits(left, column)[:, 0]
                torch.testing.assert_close(found, plain[:, row, column], **FLOAT32)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("known_rows", [1, 4])
def test_cached_logits_behind_known_rows_equal_the_plain_forward(variant, known_rows):
    net = build(**VARIANTS[variant]).eval()
    codes, condition = batch(net)
    with torch.inference_mode():
        plain = net.logits(codes, condition)
        cache = Cache(net.weights(), len(codes), net.context(condition, 6))
        for row in range(6):
            cache.next_row(codes[:, row - 1] if row else None)
            if row < known_rows:
                cache.feed(codes[:, row])
            else:
                found = cache.logits(codes[:, row, :-1], 0, 4)  # several cells in one call
                torch.testing.assert_close(found, plain[:, row], **FLOAT32)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", [1, 3])
def test_nothing_but_rounding_differs_from_the_plain_forward(variant, count):
    """In double precision: one cell at a time, and the rest of a row at once from any cell on.

    One canvas has too few cells for looking products up, three have enough: both are seen.
    """
    net = build(**VARIANTS[variant]).eval().double()
    codes, condition = batch(net, count)
    with torch.inference_mode():
        plain, features = net.logits(codes, condition), net.hidden(codes, condition)
        cache = Cache(net.weights(), count, net.context(condition, 6))
        assert cache.looks_up == (count == 3)
        for row in range(6):
            cache.next_row(codes[:, row - 1] if row else None)
            for first in range(4):
                rest = codes[:, row, max(first - 1, 0) : 3]
                found = cache.logits(rest, first, 4 - first)
                torch.testing.assert_close(found, plain[:, row, first:], atol=1e-10, rtol=1e-10)
            # The same cells once more, one by one: what was returned stays.
            lefts = [codes[:, row, c - 1 : c] if c else None for c in range(4)]
            found = torch.cat([cache.hidden(left, c) for c, left in enumerate(lefts)], 1)
            torch.testing.assert_close(found, features[:, row], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("first_row", range(6))
def test_rows_that_no_cell_asked_for_depends_on_are_left_out(first_row):
    net = build(layers=2, filter_size=3).eval().double()
    codes, _ = batch(net)
    with torch.inference_mode():
        plain = net.logits(codes)
        cache = Cache(net.weights(), len(codes), first_row=first_row)
        assert cache.row + 1 == max(0, first_row - 2)
        for row in range(cache.row + 1, 6):
            cache.next_row(codes[:, row - 1] if row else None)
            found = cache.logits(codes[:, row, :-1], 0, 4)
            if row >= first_row:
                torch.testing.assert_close(found, plain[:, row], atol=1e-10, rtol=1e-10)
        net = build(layers=2, filter_size=3, attention_layers=1)
        assert Cache(net.weights(), 1, first_row=first_row).row == -1  # attention sees all


def test_a_cache_makes_no_graph():
    """It serves as well where gradients are on, and takes "no code" for None."""
    net = build(attention_layers=2).eval()
    cache = Cache(net.weights(), 2)
    cache.next_row(None)
    found = cache.logits(torch.zeros(2, 0, dtype=torch.int64), 0)
    assert not found.requires_grad
    codes, _ = batch(net, 2)
    torch.testing.assert_close(found[:, 0], net.logits(codes)[:, 0, 0].detach(), **FLOAT32)


def prefixes():
    """Every kind of start: name -> which cells (3, h, 4) are EMPTY."""
    ragged = torch.zeros(3, 6, 4, dtype=torch.bool)
    ragged[0, 2:], ragged[1, 3, 2:], ragged[1, 4:] = True, True, True  # canvas 2 is full
    full = torch.ones(3, 6, 4, dtype=torch.bool)
    middle = torch.zeros(3, 6, 4, dtype=torch.bool)
    middle[:, 2:4, 1:3] = True
    return {
        "empty": full,
        "one real row": full & (torch.arange(6) >= 1)[:, None],
        "all but one row real": full & (torch.arange(6) >= 5)[:, None],
        "nothing to write": full & False,
        "fewer rows (scratch)": full[:, :3],
        "each canvas its own rows": ragged,
        "a hole": middle,
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", prefixes())
def test_same_noise_gives_the_same_codes_as_naive_sampling(variant, kind):
    """In double precision, in which no rounding decides between two codes."""
    net = build(**VARIANTS[variant]).eval().double()
    empty = prefixes()[kind]
    codes, condition = batch(net, rows=empty.shape[1])
    prefix = torch.where(empty, CODES, codes)
    for temperature in (1.0, 0.7, 0.0):
        with torch.no_grad():
            noise = torch.Generator().manual_seed(5)
            expected = naive_sample(net, prefix, condition, temperature, noise)
        noise = torch.Generator().manual_seed(5)
        found = net.sample(prefix, condition, temperature, noise)
        assert torch.equal(found, expected)
        assert torch.equal(found[~empty], codes[~empty])
        assert found.max() < CODES


def test_sampling_ignores_dropout_and_leaves_the_mode():
    net = build(dropout=0.5).train()
    prefix = torch.full((2, 6, 4), CODES)
    found = net.sample(prefix, generator=torch.Generator().manual_seed(0))
    assert net.training
    expected = net.eval().sample(prefix, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found, expected)


def test_samples_follow_the_distribution():
    """The first code's frequencies match its probabilities (3,000 draws)."""
    net = build().eval()
    prefix = torch.full((3000, 1, 4), CODES)
    codes = net.sample(prefix, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(codes[:, 0, 0], minlength=CODES) / 3000
    expected = net.logits(codes[:1])[0, 0, 0].softmax(0)
    assert (share - expected).abs().max() < 4 * (0.25 / 3000) ** 0.5


def test_learning_from_sampled_codes_has_the_plain_gradient():
    """Sampled codes carry no graph in; log_prob's gradient is that of hand-written softmax."""
    net = build().eval()
    codes = net.sample(torch.full((2, 6, 4), CODES), generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
    (weights * net.log_prob(codes)).sum().backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    assert found.keys() == dict(net.named_parameters()).keys()
    assert all(g.abs().sum() > 0 for g in found.values())

    net.zero_grad()
    logits = net.logits(codes)
    logits.retain_grad()
    one_hot = torch.nn.functional.one_hot(codes, CODES)
    # d log softmax(z)[c] / dz = onehot(c) - softmax(z), written out by hand.
    logits.backward(weights[..., None] * (one_hot - logits.detach().softmax(-1)))
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4)

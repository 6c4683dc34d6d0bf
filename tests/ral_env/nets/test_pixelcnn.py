"""A PixelCNN is causal, normalised and conditional as it says, whatever it recomputes."""

import dataclasses
from typing import Any

import pytest
import torch
from conftest import FLOAT32, close

from ral_env.nets import PixelCNN, PixelCNNConfig


def tiny_prior(**overrides):
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden": 8,
        "residual": 8,
        "layers": 2,
        "output_layers": 1,
    } | overrides
    return PixelCNN(PixelCNNConfig((4, 4), 5, **sizes)).eval()


@pytest.mark.parametrize("attention_layers", [0, 2])
def test_logits_depend_on_earlier_codes_only(attention_layers):
    net = tiny_prior(attention_layers=attention_layers)
    codes = torch.randint(5, (1, 4, 4))
    base = net.logits(codes).flatten(1, 2)
    for cell in range(16):
        changed = codes.flatten(1).clone()
        changed[0, cell] = (changed[0, cell] + 1) % 5
        difference = (net.logits(changed.view(1, 4, 4)).flatten(1, 2) - base).abs().sum((0, 2))
        assert (difference[: cell + 1] == 0).all()
        if cell < 15:
            assert difference[cell + 1] > 0, "the next cell must see this one"


def test_attention_sees_the_whole_past_and_a_short_filter_does_not():
    codes = torch.zeros(1, 4, 4, dtype=torch.int64)
    changed = codes.clone()
    changed[0, 0, 0] = 1
    for attention_layers, sees in ((0, False), (1, True)):
        net = tiny_prior(layers=1, filter_size=3, attention_layers=attention_layers)
        moved = (net.logits(changed) - net.logits(codes))[0, 3, 3].abs().sum()
        assert (moved > 0) == sees


def test_fewer_rows_give_the_same_logits_as_the_head_of_a_full_grid():
    net = tiny_prior(attention_layers=1)
    codes = torch.randint(5, (2, 4, 4))
    torch.testing.assert_close(net.logits(codes[:, :2]), net.logits(codes)[:, :2], **FLOAT32)


def test_a_conditional_prior_depends_on_its_condition():
    net = tiny_prior(condition_layers=1, condition_grid=(2, 2))
    codes, a, b = torch.randint(5, (1, 4, 4)), torch.zeros(1, 2, 2).long(), torch.ones(1, 2, 2)
    assert (net.logits(codes, a) - net.logits(codes, b.long())).abs().sum() > 0
    with pytest.raises(ValueError, match="level above"):
        net.logits(codes)
    with pytest.raises(ValueError, match="unconditional"):
        tiny_prior().logits(codes, a)


def test_log_probs_sum_to_one_over_all_sequences():
    """All 2^4 canvases of a 2x2 grid with two codes."""
    torch.manual_seed(0)
    net = PixelCNN(PixelCNNConfig((2, 2), 2, 8, 8, 2, output_layers=1)).eval()
    canvases = torch.tensor([[int(b) for b in f"{n:04b}"] for n in range(16)]).view(16, 2, 2)
    total = net.log_prob(canvases).sum((1, 2)).exp().sum()
    assert total.item() == close(1)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (torch.zeros(2, 4, 3).long(), "expected"),
        (torch.zeros(2, 5, 4).long(), "expected"),
        (torch.zeros(4, 4).long(), "expected"),
        (torch.zeros(2, 4, 4), "int64"),
        (torch.full((2, 4, 4), 6), "EMPTY"),
        (torch.full((2, 4, 4), -1), "EMPTY"),
    ],
)
def test_a_bad_prefix_is_refused(no_shape_checks, prefix, message):
    with pytest.raises(ValueError, match=message):
        tiny_prior().sample(prefix)


def test_a_negative_temperature_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        tiny_prior().sample(torch.full((1, 4, 4), 5), temperature=-1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"filter_size": 4},
        {"attention_layers": 9},
        {"condition_layers": 1},
        {"condition_layers": 1, "condition_grid": (3, 2)},
    ],
)
def test_impossible_prior_sizes_are_refused(wrong):
    with pytest.raises(ValueError):
        dataclasses.replace(tiny_prior().config, **wrong)


@pytest.mark.parametrize("kind", [{}, {"condition_layers": 1, "condition_grid": (2, 2)}])
def test_recomputing_activations_changes_neither_values_nor_gradients(kind):
    """Dropout included: the second computation drops what the first one dropped."""
    net = tiny_prior(attention_layers=1, dropout=0.3, **kind).train()
    codes = torch.randint(5, (3, 4, 4))
    condition = torch.randint(5, (3, 2, 2)) if kind else None
    found = []
    for recompute in (False, True):
        net.recompute = recompute
        torch.manual_seed(7)
        loss = net.compute_loss(codes, condition)["nats_per_code"]
        gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        found.append((loss, gradients))
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


def kept_for_backward(net, codes):
    """Elements that a pass with gradient keeps for its way back."""
    kept = 0

    def note(tensor):
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net.compute_loss(codes)["nats_per_code"]
    return kept


def test_recomputing_keeps_less():
    net = tiny_prior(layers=8, hidden=16, residual=16).train()
    codes = torch.randint(5, (16, 4, 4))
    all_kept = kept_for_backward(net, codes)
    net.recompute = True
    assert kept_for_backward(net, codes) < 0.4 * all_kept

"""The layout of a PixelCNN's weights: complete, detached, and a view of the net."""

import torch
from test_cache_equals_forward import VARIANTS, build


def test_every_weight_but_the_condition_stacks_is_laid_out_once():
    for overrides in VARIANTS.values():
        net = build(**overrides)
        laid_out = sum(tensor.numel() for tensor in net.weights().tensors())
        position = net.config.hidden * (24 - (6 + 4))  # the sum of rows and columns: 6 x 4 cells
        weights = sum(
            parameter.numel()
            for name, parameter in net.named_parameters()
            if not name.startswith(("condition_embedding", "condition_stack"))
        )
        assert laid_out == weights + position


def test_weights_are_detached_and_change_with_the_net():
    net = build(attention_layers=1)
    weights = net.weights()
    assert not any(tensor.requires_grad for tensor in weights.tensors())
    with torch.no_grad():
        net.head.weight.fill_(3)
    assert (weights.head == 3).all() and weights.head.shape == (16, 11)


def test_mapping_weights_keeps_their_places_and_what_is_no_tensor():
    weights = build(attention_layers=1).weights()
    doubled = weights.map(lambda tensor: 2 * tensor)
    for found, tensor in zip(doubled.tensors(), weights.tensors(), strict=True):
        assert torch.equal(found, 2 * tensor)
    attention, expected = doubled.blocks[2].attention, weights.blocks[2].attention
    assert attention is not None and expected is not None
    assert attention.heads == expected.heads and doubled.blocks[0].attention is None
    assert torch.equal(attention.merge, 2 * expected.merge)

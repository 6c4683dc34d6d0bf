"""The networks: nothing later leaks in, shapes are as documented, bad input is refused."""

import dataclasses

import pytest
import torch
from conftest import FLOAT32, close

from ral_env.nets import (
    VQVAE,
    FeatureNet,
    FeatureNetConfig,
    MixtureConfig,
    PatchGAN,
    PatchGANConfig,
    PixelCNN,
    PixelCNNConfig,
    VQVAEConfig,
)


def tiny_prior(**overrides):
    torch.manual_seed(0)
    sizes = {"hidden": 8, "residual": 8, "layers": 2, "output_layers": 1} | overrides
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


@pytest.mark.parametrize("config", [PixelCNNConfig((4, 4), 5), VQVAEConfig(16), PatchGANConfig(),
                                    FeatureNetConfig(), MixtureConfig((4, 4), 9)])  # fmt: skip
def test_sizes_out_of_range_are_refused_by_their_name(config):
    sizes = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    numbers = [name for name, value in sizes.items() if type(value) in (int, float, tuple)]
    assert len(numbers) >= 4
    for name in numbers:
        wrong = (0, 4) if isinstance(sizes[name], tuple) else -1
        with pytest.raises(ValueError, match=f"{name}="):
            dataclasses.replace(config, **{name: wrong})
    if "dropout" in sizes:
        with pytest.raises(ValueError, match="dropout=1.0"):
            dataclasses.replace(config, dropout=1.0)


def test_vqvae_shapes_and_partial_decoding():
    torch.manual_seed(0)
    net = VQVAE(VQVAEConfig(16, hidden=8, residual=4, layers=2, num_codes=7, code_dim=3)).eval()
    assert net.config.grids == ((4, 4),)
    (codes,) = net.encode(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert codes.shape == (2, 4, 4) and codes.dtype == torch.int64
    assert net.lookup([codes])[0].shape == (2, 3, 4, 4)
    assert net.decode([codes]).shape == (2, 3, 16, 16)
    assert net.decode([codes[:, :3]]).shape == (2, 3, 12, 16)
    assert net.represent([codes], "codes").shape[1] == 3
    assert net.represent([codes], "image").shape[1] == 3
    with pytest.raises(ValueError, match="'image' or 'codes'"):
        net.represent([codes], "pixels")


def test_images_that_do_not_fit_are_refused(no_shape_checks):
    net = VQVAE(VQVAEConfig(16, hidden=8, residual=4, layers=2, num_codes=7, code_dim=3)).eval()
    for images in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 16, 16), torch.zeros(3, 16, 16)):
        with pytest.raises(ValueError, match=r"expected \(B, 3, 16, 16\)"):
            net.encode(images)
    with pytest.raises(ValueError, match="floats"):
        net.encode(torch.zeros(2, 3, 16, 16).byte())


def test_encoding_takes_the_nearest_code():
    torch.manual_seed(0)
    net = VQVAE(VQVAEConfig(16, hidden=8, residual=4, layers=2, num_codes=7, code_dim=3)).eval()
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        vectors = net.project[0](net.encoder(images)).permute(0, 2, 3, 1)
    by_hand = (vectors[..., None, :] - net.codebooks[0]).square().sum(-1).argmin(-1)
    assert torch.equal(net.encode(images)[0], by_hand)


def two_levels():
    torch.manual_seed(0)
    config = VQVAEConfig(16, hidden=8, residual=4, layers=1, num_codes=7, code_dim=3, levels=2)
    return VQVAE(config).eval()


def test_two_levels_have_the_paper_s_shapes_and_decode_any_rows():
    net = two_levels()
    assert net.config.grids == ((4, 4), (8, 8))
    codes = net.encode(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert [grid.shape for grid in codes] == [(2, 4, 4), (2, 8, 8)]
    assert net.decode(codes).shape == (2, 3, 16, 16)
    assert net.decode([codes[0][:, :3], codes[1][:, :6]]).shape == (2, 3, 12, 16)
    vectors = net.represent(codes, "codes")  # top vectors, each over 2x2 cells, then bottom ones
    assert vectors.shape == (2, 6, 8, 8)
    top = net.codebooks[0][codes[0]].permute(0, 3, 1, 2)
    assert torch.equal(vectors[:, :3], top.repeat_interleave(2, 2).repeat_interleave(2, 3))
    with pytest.raises(ValueError, match="1 grids of codes, expected 2"):
        net.decode(codes[:1])
    with pytest.raises(ValueError, match="divisible"):
        VQVAEConfig(16, layers=2, levels=4)


def test_the_bottom_codes_are_chosen_knowing_the_top_ones():
    net = two_levels()
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    bottom = []

    def nearest(level, vectors):
        if level:
            bottom.append(vectors)
        return torch.full_like(vectors, len(bottom))  # another top each time

    net.quantise(images, nearest)
    net.quantise(images, nearest)
    assert (bottom[0] - bottom[1]).abs().max() > 1e-3


def test_both_levels_reach_the_picture():
    net = two_levels()
    codes = net.encode(torch.rand(1, 3, 16, 16) * 2 - 1)
    base = net.decode(codes)
    for level in (0, 1):
        other = [grid.clone() for grid in codes]
        other[level][0, 1, 1] = (other[level][0, 1, 1] + 1) % 7
        assert (net.decode(other) - base).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("size", "layers", "expected"), [(128, 5, 4), (128, 4, 8), (128, 6, 2), (32, 3, 4), (36, 3, 4)]
)
def test_strided_layers_choose_the_score_maps_size(size, layers, expected):
    net = PatchGAN(PatchGANConfig(hidden=2, layers=layers))
    assert net.stride == 2**layers
    assert net(torch.zeros(1, 3, size, size)).shape == (1, 1, expected, expected)


def test_the_paper_discriminator_scores_partial_images():
    net = PatchGAN(PatchGANConfig(hidden=2, layers=5))
    assert net(torch.zeros(1, 3, 64, 128)).shape == (1, 1, 2, 4)
    with pytest.raises(ValueError, match="at least 32"):
        net(torch.zeros(1, 3, 24, 128))


def test_global_head_adds_one_score_to_every_patch():
    torch.manual_seed(0)
    net = PatchGAN(PatchGANConfig(hidden=4, layers=1, global_head=True)).eval()
    x = torch.randn(2, 3, 8, 8)
    whole = net(x)
    head, net.whole = net.whole, None
    added = (whole - net(x)).flatten(1)
    expected = head(net.body(x).mean((2, 3))).expand(-1, 16)
    torch.testing.assert_close(added, expected, **FLOAT32)


def test_feature_net_shapes():
    net = FeatureNet(FeatureNetConfig(hidden=4, features=6, outputs=3)).eval()
    assert net.features(torch.zeros(2, 3, 32, 32)).shape == (2, 6)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


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

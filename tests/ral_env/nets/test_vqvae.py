"""A VQ-VAE: shapes of one and two levels, the nearest codes, and what each level is for."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ral_env import bundle
from ral_env.nets import VQVAE, VQVAEConfig

FORMAT_4 = Path(__file__).parents[2] / "fixtures" / "bundle-format-4"


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


def test_each_doubling_of_the_resolution_halves_a_narrow_net_s_channels():
    wide = VQVAEConfig(32, hidden=12, residual=4, layers=3, num_codes=7, code_dim=3)
    assert wide.channels == (12, 12, 12)
    net = VQVAE(dataclasses.replace(wide, narrow=True)).eval()
    assert net.config.channels == (3, 6, 12) and net.config.grids == ((4, 4),)
    assert [m.out_channels for m in net.encoder if isinstance(m, torch.nn.Conv2d)][:3] == [3, 6, 12]
    up = [m.out_channels for m in net.decoder if isinstance(m, torch.nn.ConvTranspose2d)]
    assert up == [6, 3, 3]  # the last are red, green and blue
    assert net.decode(net.encode(torch.zeros(2, 3, 32, 32))).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_code_depends_on_a_cell_further_for_each_residual_block(blocks):
    config = VQVAEConfig(64, 16, 16, layers=1, num_codes=7, code_dim=3, blocks=blocks)
    torch.manual_seed(0)
    net = VQVAE(config).eval()
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    net.project[0](net.encoder(image))[0, :, 0, 0].sum().backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0)[0].nonzero().max().item()
    assert seen == 2 * (blocks + 1) + 1  # a cell is 2 pixels; one more convolution at the grid


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


SIZES = st.fixed_dictionaries({
    "layers": st.integers(1, 2), "levels": st.integers(1, 2), "blocks": st.integers(1, 2),
    "narrow": st.booleans(), "hidden": st.integers(1, 6),
})  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(SIZES, st.integers(0, 1), st.integers(0, 2), st.integers(0, 99))
def test_codes_of_an_enlarged_vqvae_are_those_of_the_averaged_image(sizes, before, more, seed):
    """To the bit, whatever the sizes are, and whether the smaller one averages already."""
    sizes |= {"residual": 3, "num_codes": 9, "code_dim": 2}
    torch.manual_seed(seed)
    small = VQVAE(VQVAEConfig(16 * 2**before, enlarge=2**before, **sizes)).eval()
    large = VQVAE(VQVAEConfig(16 * 2 ** (before + more), enlarge=2 ** (before + more), **sizes))
    assert large.config.grids == small.config.grids
    theirs = {n: v for n, v in small.state_dict().items() if not n.startswith("decoder")}
    assert not large.load_state_dict(theirs, strict=False).unexpected_keys
    images = torch.rand(2, 3, *[large.config.image_size] * 2) * 2 - 1
    averaged = images
    for _ in range(more):
        averaged = F.avg_pool2d(averaged, 2)
    torch.testing.assert_close(averaged, F.avg_pool2d(images, 2**more))
    codes = large.eval().encode(images)
    for mine, other in zip(codes, small.encode(averaged), strict=True):
        assert torch.equal(mine, other)
    assert large.decode(codes).shape == images.shape
    rows = large.config.grids[0][0] // 2  # of the coarsest grid
    halves = [grid[:, : rows * 2**level] for level, grid in enumerate(codes)]
    assert large.decode(halves).shape == (2, 3, images.shape[2] // 2, images.shape[3])


def test_an_enlarged_decoder_has_a_stage_more_for_each_doubling():
    config = VQVAEConfig(64, hidden=16, residual=4, layers=2, num_codes=7, code_dim=3, narrow=True)
    up = {
        enlarge: [
            m.out_channels
            for m in VQVAE(
                dataclasses.replace(config, image_size=64 * enlarge, enlarge=enlarge)
            ).decoder
            if isinstance(m, torch.nn.ConvTranspose2d)
        ]
        for enlarge in (1, 2, 4)
    }
    assert up == {1: [8, 3], 2: [8, 4, 3], 4: [8, 4, 2, 3]}  # the last are red, green and blue


def test_a_vqvae_that_enlarges_nothing_has_the_weights_that_it_had_before_there_was_anything():
    """A manifest of then says nothing of it."""
    manifest = json.loads((FORMAT_4 / "manifest.json").read_text(encoding="utf-8"))
    config = manifest["nets"]["vqvae"]["config"]
    assert "enlarge" not in config
    net = bundle.load(FORMAT_4).vqvae
    assert net.config == VQVAEConfig(**config, enlarge=1)
    stored = load_file(FORMAT_4 / "vqvae.safetensors")
    assert stored.keys() == net.state_dict().keys() == VQVAE(net.config).state_dict().keys()
    assert all(torch.equal(value.float(), net.state_dict()[n]) for n, value in stored.items())
    images = torch.rand(1, 3, 32, 32)
    assert net.averaged(images) is images


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"enlarge": 3}, "enlarge=3, expected a power of two"),
        ({"enlarge": 0}, "enlarge=0, expected a number in"),
        ({"enlarge": 16}, r"image_size=16 is not divisible by 2\*\*5=32 .*enlarge=16"),
    ],
)
def test_an_enlargement_that_does_not_fit_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        VQVAEConfig(16, layers=1, **sizes)

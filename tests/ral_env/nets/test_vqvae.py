"""A VQ-VAE: shapes of one and two levels, the nearest codes, and what each level is for."""

import dataclasses

import pytest
import torch

from ral_env.nets import VQVAE, VQVAEConfig


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

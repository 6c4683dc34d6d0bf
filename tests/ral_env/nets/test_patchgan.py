"""A PatchGAN: the score map's size, and what a global head adds."""

import pytest
import torch
from conftest import FLOAT32

from ral_env.nets import PatchGAN, PatchGANConfig


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
    assert head is not None
    added = (whole - net(x)).flatten(1)
    expected = head(net.body(x).mean((2, 3))).expand(-1, 16)
    torch.testing.assert_close(added, expected, **FLOAT32)

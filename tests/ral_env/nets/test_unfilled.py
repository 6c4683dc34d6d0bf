"""Nets without numbers: as those with numbers in all but the numbers."""

import pytest
import torch

from ral_env import bundle
from ral_env.nets import VQVAE, FeatureNet, PatchGAN, PixelCNN
from ral_env.nets.unfilled import unfilled


@pytest.mark.parametrize(
    ("kind", "net"),
    [
        (VQVAE, lambda made: made.vqvae),
        (PixelCNN, lambda made: made.priors[0]),
        (PatchGAN, lambda made: made.discriminator),
        (FeatureNet, lambda made: made.features),
    ],
)
def test_an_unfilled_net_has_the_names_and_shapes_of_a_filled_one(kind, net):
    made = net(bundle.load("digits", verify=False))
    with unfilled():
        empty = kind(made.config)
    shapes = {name: value.shape for name, value in empty.state_dict().items()}
    assert shapes == {name: value.shape for name, value in made.state_dict().items()}
    assert all(value.is_meta for value in empty.state_dict().values())


def test_random_numbers_are_as_they_were_outside():
    torch.manual_seed(0)
    with unfilled():
        torch.nn.Linear(3, 4)
    inside = torch.randn(3)
    torch.manual_seed(0)
    assert torch.equal(torch.randn(3), inside)
    assert not torch.nn.Linear(3, 4).weight.is_meta

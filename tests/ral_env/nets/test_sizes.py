"""Sizes of the networks: those out of range are refused, and shapes follow from the others."""

import dataclasses

import pytest
import torch

from ral_env.nets import (
    FeatureNet,
    FeatureNetConfig,
    MixtureConfig,
    PatchGANConfig,
    PixelCNNConfig,
    VQVAEConfig,
)


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


def test_feature_net_shapes():
    net = FeatureNet(FeatureNetConfig(hidden=4, features=6, outputs=3)).eval()
    assert net.features(torch.zeros(2, 3, 32, 32)).shape == (2, 6)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 3)

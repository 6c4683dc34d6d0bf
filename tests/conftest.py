"""A tiny bundle with random weights: 8x8 codes, 16 of them, 4 pixels a code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ral_env import bundle
from ral_env.nets import (
    VQVAE,
    FeatureNet,
    FeatureNetConfig,
    PatchGAN,
    PatchGANConfig,
    PixelCNN,
    PixelCNNConfig,
    VQVAEConfig,
)

torch.set_num_threads(1)


def tiny_parts(discriminator_input: str = "image", **changes: Any) -> dict[str, Any]:
    """Arguments of ``bundle.save``; the discriminator scores patches of 4 rows of codes."""
    torch.manual_seed(0)
    prior = partial(PixelCNN, PixelCNNConfig((8, 8), 16, hidden=8, residual=8, layers=2))
    channels, layers = {"image": (3, 4), "codes": (6, 2)}[discriminator_input]
    codes = np.random.default_rng(0).integers(0, 16, (40, 8, 8))
    return {
        "vqvae": VQVAE(VQVAEConfig(32, hidden=8, residual=4, layers=2, num_codes=16, code_dim=6)),
        "discriminator": PatchGAN(PatchGANConfig(channels, hidden=4, layers=layers)),
        "discriminator_input": discriminator_input,
        "reward_scale": 0.05,
        "priors": [prior()],
        "codes": [codes],
        "splits": {"train": (0, 30), "validation": (30, 35), "test": (35, 40)},
        "dataset": "noise",
        "recipe": {"name": "tiny"},
        "metrics": {"nats_per_code": 2.77},
        "oracle": prior(),
        "features": FeatureNet(FeatureNetConfig(hidden=4, features=8)),
        **changes,
    }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose discriminator sees images. Shared: do not write to it."""
    return bundle.save(tmp_path_factory.mktemp("bundles") / "tiny", **tiny_parts())


@pytest.fixture(scope="session")
def tiny_codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose discriminator sees codebook vectors. Shared: do not write to it."""
    return bundle.save(tmp_path_factory.mktemp("bundles") / "tiny_codes", **tiny_parts("codes"))

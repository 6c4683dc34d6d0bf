"""Tiny bundles with random weights: 32 pixels, 8x8 codes (and 16x16), 16 of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

# Whatever a test calls in these, the types and shapes that signatures state are checked. Not so in
# the samplers (cache, eager, graph, native), whose calls are too small for it.
NETS = ("features", "joint", "mixture", "patchgan", "pixelcnn", "protocol", "uncached", "vqvae")
ENVS = ("episodes", "frames", "scorer", "vector")
with install_import_hook(
    [
        "ral_env.reward",
        *(f"ral_env.nets.{module}" for module in NETS),
        *(f"ral_env.envs.{module}" for module in ENVS),
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # an int is a float, too
):
    import ral_env.envs.vector  # noqa: F401  so that it and what it imports are checked
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

# One number computed in two ways (alone and in a batch, from a cache and from the whole canvas, by
# one process and by two) is the sum of the same terms in two orders, and every processor has orders
# of its own. float32 rounds each step to 6e-8 of its magnitude, and some dozens of such steps are
# allowed: 1e-5 of the number, and where its terms cancel, 1e-5 of theirs, which are about 1. A
# wrong code, row or weight makes a thousand times as much of a difference.
# What is the same computation twice (another run, a resumed one) is compared exactly.
FLOAT32: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}  # for torch's and numpy's comparisons


def close(expected: Any, terms: float = 1.0) -> Any:
    """Equal but for rounding; ``terms``: the magnitude of what adds up to it, if far above 1."""
    return pytest.approx(expected, rel=1e-5, abs=1e-5 * terms)


def tiny_parts(
    discriminator_input: str = "image", levels: int = 1, *, num_codes: int = 16, **changes: Any
) -> dict[str, Any]:
    """Arguments of ``bundle.save``; the discriminator scores patches of 4 coarsest rows."""
    torch.manual_seed(0)
    vqvae = VQVAE(VQVAEConfig(32, 8, 4, 3 - levels, num_codes=num_codes, code_dim=6, levels=levels))
    grids = vqvae.config.grids
    prior = partial(PixelCNNConfig, num_codes=num_codes, hidden=8, residual=8, layers=2)

    def priors() -> list[PixelCNN]:
        return [
            PixelCNN(prior(grid, condition_layers=int(bool(above)), condition_grid=above))
            for grid, above in zip(grids, [None, *grids[:-1]], strict=True)
        ]

    rows = 32 // grids[0][0] * 4  # pixels
    channels, stride = {"image": (3, rows), "codes": (6 * levels, 4 * 2 ** (levels - 1))}[
        discriminator_input
    ]
    codes = np.random.default_rng(0)
    return {
        "vqvae": vqvae,
        "discriminator": PatchGAN(
            PatchGANConfig(channels, hidden=4, layers=stride.bit_length() - 1)
        ),
        "discriminator_input": discriminator_input,
        "reward_scale": 0.05 * levels,
        "priors": priors(),
        "codes": [codes.integers(0, num_codes, (40, *grid)) for grid in grids],
        "splits": {"train": (0, 30), "validation": (30, 35), "test": (35, 40)},
        "dataset": "noise",
        "recipe": {"name": "tiny"},
        "metrics": {"nats_per_code": 2.77},
        "oracles": priors(),
        "features": FeatureNet(FeatureNetConfig(hidden=4, features=8)),
        **changes,
    }


def fixture(name: str, *arguments: Any):
    @pytest.fixture(scope="session", name=name)
    def make(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return bundle.save(tmp_path_factory.mktemp("bundles") / name, **tiny_parts(*arguments))

    return make


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """Wrong shapes and types reach the functions, as they do outside the suite."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture
def heeded_signals() -> Iterator[None]:
    """Signals act as in a terminal, though the suite may run under nohup, or in the background."""
    acts = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL,
            "SIGHUP": signal.SIG_DFL}  # fmt: skip
    before = {}
    for name, handler in acts.items():
        if hasattr(signal, name):
            number = getattr(signal, name)
            before[number] = signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Shared: do not write to them.
tiny = fixture("tiny")  # 8x8 codes; its discriminator sees images
tiny_codes = fixture("tiny_codes", "codes")  # its discriminator sees codebook vectors
tiny_two = fixture("tiny_two", "image", 2)  # 8x8 + 16x16 codes
tiny_two_codes = fixture("tiny_two_codes", "codes", 2)

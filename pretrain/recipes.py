"""What is trained on what, and how long: the paper's tables and the small recipes, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from agents.discriminator import DiscriminatorTraining
from agents.mle import MLETraining
from pretrain.vqvae import VQVAETraining
from ral_env.nets import FeatureNetConfig, PatchGANConfig, PixelCNNConfig, VQVAEConfig


@dataclass(frozen=True)
class Recipe:
    """All that makes a bundle, but for the images of those that need a folder.

    Args:
        name: of the bundle.
        source: ``faces``, ``digits``, or ``folder``: the images are given by ``--data``.
        count: procedural images to draw (faces only).
        vqvae, prior, discriminator, features: sizes of the nets. No features, no Fréchet distance.
        *_training: how they learn.
        discriminator_input: ``image`` or ``codes``.
        oracle: sizes of the oracle prior. If given, it learns the images' codes and the bundle's
            real codes are its samples (paper section 5.2).
        oracle_samples: how many, split 10 : 1 : 2 into train, validation and test.
        feature_steps: updates of the feature net.
    """

    name: str
    source: str
    vqvae: VQVAEConfig
    prior: PixelCNNConfig
    count: int = 0
    vqvae_training: VQVAETraining = field(default_factory=VQVAETraining)
    prior_training: MLETraining = field(default_factory=MLETraining)
    discriminator: PatchGANConfig = field(default_factory=PatchGANConfig)
    discriminator_input: str = "image"
    discriminator_training: DiscriminatorTraining = field(default_factory=DiscriminatorTraining)
    features: FeatureNetConfig | None = None
    feature_steps: int = 1500
    oracle: PixelCNNConfig | None = None
    oracle_training: MLETraining = field(default_factory=MLETraining)
    oracle_samples: int = 0


# What sees the difference at this size: codebook vectors, a density ratio, a little augmentation.
_SMALL_DISCRIMINATOR = {
    "discriminator": PatchGANConfig(16, hidden=32, layers=2, plain_layers=1, dropout=0.1,
                                    global_head=True),
    "discriminator_input": "codes",
    "discriminator_training": DiscriminatorTraining(
        loss="logistic", learning_rate=1e-3, r1=0.1, shift=1, drop=0.05
    ),
}  # fmt: skip
_SMALL_VQVAE = VQVAEConfig(32, hidden=48, residual=32, layers=2, num_codes=64, code_dim=16)


def _paper(
    name: str,
    image_size: int,
    grid: int,
    layers: int,
    hidden: int,
    prior_layers: int,
    attention: int,
    output: int,
    batch: int,
    steps: int,
    num_codes: int = 512,
    vqvae_steps: int = 156_250,
    oracle: PixelCNNConfig | None = None,
) -> Recipe:
    """A single-level row of the supplement's tables. Discriminator: 5 strided convolutions of the
    paper at 128 pixels, fewer for smaller images so that the map stays 4x4."""
    return Recipe(
        name=name,
        source="folder",
        vqvae=VQVAEConfig(image_size, 128, 64, layers, num_codes, 64),
        vqvae_training=VQVAETraining(steps=vqvae_steps, batch=128, beta=0.25),
        prior=PixelCNNConfig((grid, grid), num_codes, hidden, hidden, prior_layers,
                             attention, 5, 0.1, output),
        prior_training=MLETraining(steps=steps, batch=batch, learning_rate=3e-4),
        discriminator=PatchGANConfig(layers=(image_size // 4).bit_length() - 1),
        oracle=oracle,
        oracle_training=MLETraining(steps=90_039, batch=1024, learning_rate=3e-4),
        oracle_samples=200_000 if oracle else 0,
    )  # fmt: skip


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="digits",
            source="digits",
            vqvae=_SMALL_VQVAE,
            vqvae_training=VQVAETraining(steps=2000, batch=64, shift=2),
            # 1,200 images are few: more dropout than the paper's 0.1, weight decay, an average.
            prior=PixelCNNConfig((8, 8), 64, 32, 32, 3, 0, 5, 0.3, 1),
            prior_training=MLETraining(steps=3000, batch=64, weight_decay=1e-2, ema=0.99,
                                       validate_every=100, patience=8),
            features=FeatureNetConfig(hidden=12, outputs=10, name="digit classes, 32-d"),
            **_SMALL_DISCRIMINATOR,
        ),
        Recipe(
            name="faces32",
            source="faces",
            count=20_000,
            vqvae=_SMALL_VQVAE,
            vqvae_training=VQVAETraining(steps=2500, batch=96),
            prior=PixelCNNConfig((8, 8), 64, 32, 32, 3, 0, 5, 0.1, 1),
            prior_training=MLETraining(steps=6000, batch=128, ema=0.99, validate_every=300),
            features=FeatureNetConfig(hidden=12, outputs=0, name="face attributes, 32-d"),
            **_SMALL_DISCRIMINATOR,
        ),
        Recipe(
            name="oracle",
            source="faces",
            count=20_000,
            vqvae=_SMALL_VQVAE,
            vqvae_training=VQVAETraining(steps=2500, batch=96),
            # The oracle attends to the whole past; the prior sees three cells, so that there is
            # something to gain (reverse KL 1.6 times the forward KL before any RL).
            oracle=PixelCNNConfig((8, 8), 64, 32, 32, 4, 2, 5, 0.05, 1),
            oracle_training=MLETraining(steps=4000, batch=64, ema=0.99, validate_every=400),
            oracle_samples=15_600,
            prior=PixelCNNConfig((8, 8), 64, 12, 12, 1, 0, 5, 0.0, 1),
            prior_training=MLETraining(steps=10_000, batch=128, learning_rate=4e-3, ema=0.99,
                                       validate_every=500),
            features=FeatureNetConfig(hidden=12, outputs=0, name="face attributes, 32-d"),
            **_SMALL_DISCRIMINATOR,
        ),
        # Supplement Tables 4-7, one level. Learning rates of pretraining are ours: none is given.
        _paper("celeba64", 64, 8, 3, 128, 5, 0, 5, 1024, 19_531, num_codes=128),
        _paper("celeba64-oracle", 64, 8, 3, 128, 5, 0, 5, 1024, 19_531, num_codes=128,
               oracle=PixelCNNConfig((8, 8), 128, 256, 256, 5, 0, 5, 0.1, 5)),
        _paper("bedroom64", 64, 8, 3, 512, 20, 0, 5, 1536, 97_656, vqvae_steps=234_375),
        _paper("bedroom64fine", 64, 16, 2, 512, 20, 8, 20, 480, 31_250, vqvae_steps=234_375),
        _paper("celeba128top", 128, 16, 3, 512, 20, 8, 20, 480, 41_666),
        _paper("bedroom128top", 128, 16, 3, 512, 20, 8, 20, 480, 41_666),
    )
}  # fmt: skip

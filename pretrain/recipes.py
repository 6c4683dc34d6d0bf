"""The recipes, as data: the paper's tables and the small ones that ship.

Learning rates of pretraining are ours: the paper gives none.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from agents.training.discriminator import DiscriminatorTraining
from agents.training.fit import PriorTraining
from pretrain.configs import DiscriminatorStage, Recipe, SelfSupervision, VQVAETraining
from pretrain.data import TINTS
from ral_env.bundle import Bundle
from ral_env.nets import (
    FeatureNetConfig,
    MixtureConfig,
    PatchGANConfig,
    PixelCNNConfig,
    VQVAEConfig,
)


def _of_codes(channels: int = 16, grid: int = 8, steps: int = 2000) -> DiscriminatorStage:
    """A discriminator of the codebook vectors on a grid: one that estimates a density ratio and is
    augmented a little does tell real codes from fake ones."""
    return DiscriminatorStage(
        PatchGANConfig(
            channels, hidden=32, layers=2, plain_layers=1, dropout=0.1, global_head=True
        ),
        DiscriminatorTraining(loss="logistic", learning_rate=1e-3, r1=0.1, shift=1, drop=0.05),
        steps=steps,
        batch=max(16, min(128, 2048 // grid)),
    )


def _of_images(image_size: int) -> DiscriminatorStage:
    """A small discriminator of images, of less time the larger they are, which it sees decoded."""
    return DiscriminatorStage(
        _map_of_4(image_size, hidden=8),
        DiscriminatorTraining(loss="logistic", learning_rate=5e-4, r1=0.1, shift=image_size // 32),
        steps=max(100, 38_400 // image_size),
        batch=max(8, 4096 // image_size),
    )


_SPOILT = 0.15  # of the fakes: without any, random codes scored above real ones on two bundles


def _small_discriminators(channels: int = 16, image_size: int = 32) -> dict[str, Any]:
    """The discriminators' fields of a recipe: environments score with that of codes."""
    first = _of_codes(channels)
    return {
        "discriminator": first.net,
        "discriminator_input": "codes",
        "discriminator_training": first.training,
        "other_discriminator": _of_images(image_size),
        "spoilt": _SPOILT,
    }


# A step with images of 64 pixels, to which larger ones are averaged, takes four times as long.
_BRIEF = SelfSupervision(steps=500)

_SMALL_VQVAE = VQVAEConfig(32, hidden=48, residual=32, layers=2, num_codes=64, code_dim=16)


def _many_small(steps: int, batch: int = 16) -> VQVAETraining:
    """How VQ-VAEs of drawn images learn: at an equal cost, updates by 16 images leave a quarter
    less error than a third as many by 48 do (64 pixels, 150 s)."""
    return VQVAETraining(steps=steps, batch=batch, learning_rate=2e-3)


def _map_of_4(image_size: int, hidden: int = 64) -> PatchGANConfig:
    """A discriminator of images with a 4x4 score map.

    The paper's has 5 strided convolutions at 128 pixels; at other sizes, as many as keep the map.
    """
    return PatchGANConfig(hidden=hidden, layers=(image_size // 4).bit_length() - 1)


def _level(
    grid: int,
    hidden: int,
    layers: int,
    attention: int = 0,
    output: int = 0,
    *,
    num_codes: int = 512,
    dropout: float = 0.1,
    condition: int = 0,
) -> PixelCNNConfig:
    """The prior of a level, in the order of the supplement's tables.

    ``condition`` is the number of layers in the stack over the level above, which has half as many
    rows and columns; 0 is a prior without such a level.
    """
    above = (grid // 2, grid // 2) if condition else None
    return PixelCNNConfig((grid, grid), num_codes, hidden, hidden, layers, attention, 5, dropout,
                          output, condition, above)  # fmt: skip


def _mle(batch: int, steps: int) -> PriorTraining:
    """How the paper's priors learn: its batch and steps."""
    return PriorTraining(steps=steps, batch=batch, learning_rate=3e-4)


_SOURCES = {"celeba": "celeba", "celebahq": "folder", "bedroom": "lsun-bedroom"}


def _paper(
    name: str,
    image_size: int,
    layers: int,
    *levels: tuple[PixelCNNConfig, PriorTraining],
    vqvae_steps: int = 156_250,
    oracle: tuple[PixelCNNConfig, PriorTraining] | None = None,
) -> Recipe:
    """A row of the supplement's Tables 4-10."""
    num_codes = levels[0][0].num_codes
    return Recipe(
        name=name,
        source=_SOURCES[name.partition(str(image_size))[0]],
        vqvae=VQVAEConfig(image_size, 128, 64, layers, num_codes, 64, len(levels)),
        vqvae_training=VQVAETraining(steps=vqvae_steps, batch=128, beta=0.25),
        priors=tuple(config for config, _ in levels),
        prior_trainings=tuple(training for _, training in levels),
        discriminator=_map_of_4(image_size),
        other_discriminator=_of_codes(64 * len(levels), levels[-1][0].grid[0]),
        oracles=(oracle[0],) if oracle else (),
        oracle_trainings=(oracle[1],) if oracle else (),
        oracle_samples=200_000 if oracle else 0,
    )


def _stand_in(
    name: str,
    vqvae: VQVAEConfig,
    *levels: tuple[PixelCNNConfig, PriorTraining],
    count: int,
    vqvae_training: VQVAETraining,
    keep: tuple[int, int, int],
    fakes: int,
    batch: int,
    steps: int,
    steps_of_codes: int = 2000,
) -> Recipe:
    """Procedural faces in the shape of one of the paper's experiments.

    The experiment's id runs on this bundle until one of the named images is there. It is small,
    because it ships.
    """
    return Recipe(
        name=name,
        source="faces",
        count=count,
        vqvae=vqvae,
        vqvae_training=vqvae_training,
        priors=tuple(config for config, _ in levels),
        prior_trainings=tuple(training for _, training in levels),
        discriminator=_map_of_4(vqvae.image_size, hidden=8),
        discriminator_training=DiscriminatorTraining(
            loss="logistic", learning_rate=5e-4, r1=0.1, shift=vqvae.image_size // 32
        ),
        discriminator_steps=steps,
        discriminator_batch=batch,
        other_discriminator=_of_codes(
            vqvae.code_dim * vqvae.levels, vqvae.grids[-1][0], steps_of_codes
        ),
        fakes=fakes,
        spoilt=_SPOILT,
        features=FeatureNetConfig(hidden=12, outputs=0, name="face attributes, 32-d"),
        feature_steps=600,
        selfsupervised=_BRIEF,
        keep=keep,
        half=True,
    )


def _quick(batch: int, steps: int, learning_rate: float = 2e-3) -> PriorTraining:
    """How priors of shipped bundles learn: for minutes, and with an average of the weights."""
    return PriorTraining(steps=steps, batch=batch, learning_rate=learning_rate, ema=0.99)


def _averaged(batch: int, steps: int, validate_every: int) -> PriorTraining:
    """How priors of drawn images learn, which are so many that they cannot be learnt by heart."""
    return PriorTraining(steps=steps, batch=batch, ema=0.99, validate_every=validate_every,
                         patience=6)  # fmt: skip


def _fitted(batch: int, steps: int, validate_every: int) -> PriorTraining:
    """How priors of a folder of images learn: until validation no longer gains, as the images may
    be few."""
    return PriorTraining(steps=steps, batch=batch, weight_decay=1e-2, ema=0.99,
                         validate_every=validate_every, patience=6)  # fmt: skip


def _for_folder(
    vqvae: VQVAEConfig, vqvae_training: VQVAETraining, *levels: tuple[PixelCNNConfig, PriorTraining]
) -> Recipe:
    """Nets that a CPU can train, for a folder of any images; named after the images' size.

    Their grids and codebooks are those of RALFaces32-v0, RALCelebA64-v0 and RALCelebA128-v0.
    """
    return Recipe(
        name=f"small{vqvae.image_size}",
        source="folder",
        vqvae=vqvae,
        vqvae_training=vqvae_training,
        priors=tuple(config for config, _ in levels),
        prior_trainings=tuple(training for _, training in levels),
        selfsupervised=SelfSupervision() if vqvae.image_size == 32 else _BRIEF,
        **_small_discriminators(vqvae.code_dim * vqvae.levels, vqvae.image_size),
    )


def _enlarged(base: Recipe, name: str, times: int, training: VQVAETraining) -> Recipe:
    """The codes and priors of a stand-in, painted so many times larger by a decoder of its own."""
    vqvae = dataclasses.replace(
        base.vqvae,
        image_size=times * base.vqvae.image_size,
        enlarge=times * base.vqvae.enlarge,
    )
    return dataclasses.replace(
        base,
        name=name,
        base=base.name,
        vqvae=vqvae,
        vqvae_training=training,
        discriminator=_map_of_4(vqvae.image_size, hidden=8),
        discriminator_training=dataclasses.replace(
            base.discriminator_training, shift=vqvae.image_size // 32
        ),
        discriminator_batch=max(8, base.discriminator_batch // times),
    )


_FACES64FINE = _stand_in(
    "faces64fine",
    VQVAEConfig(64, 96, 48, 2, 512, 32, blocks=4, narrow=True),
    (_level(16, 64, 4, 1, 1), _averaged(32, 4500, 300)),
    count=60_000,
    vqvae_training=_many_small(9000),
    keep=(8000, 500, 1500),
    fakes=2048,
    batch=64,
    steps=600,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="digits",
            source="digits",
            vqvae=_SMALL_VQVAE,
            vqvae_training=VQVAETraining(steps=2000, batch=64, shift=2),
            # 1,200 images are few: more dropout than the paper's 0.1, weight decay, an average.
            priors=(PixelCNNConfig((8, 8), 64, 32, 32, 3, 0, 5, 0.3, 1),),
            prior_trainings=(PriorTraining(steps=3000, batch=64, weight_decay=1e-2, ema=0.99,
                                           validate_every=100, patience=8),),
            features=FeatureNetConfig(hidden=12, outputs=10, name="digit classes, 32-d"),
            **_small_discriminators(),
        ),
        Recipe(
            name="faces32",
            source="faces",
            count=100_000,
            vqvae=VQVAEConfig(32, 64, 32, 2, num_codes=64, code_dim=16, blocks=4),
            vqvae_training=_many_small(20_000),
            priors=(PixelCNNConfig((8, 8), 64, 64, 32, 4, 0, 5, 0.1, 1),),
            prior_trainings=(_averaged(64, 8000, 400),),
            features=FeatureNetConfig(hidden=12, outputs=0, name="face attributes, 32-d"),
            keep=(30_000, 1000, 3000),
            half=True,
            **_small_discriminators(),
        ),
        # 28 pixels and a border of 2: nothing is resampled.
        Recipe(
            name="mnist",
            source="mnist",
            vqvae=_SMALL_VQVAE,
            vqvae_training=VQVAETraining(steps=15_000, batch=24, shift=1),
            priors=(PixelCNNConfig((8, 8), 64, 64, 32, 4, 0, 5, 0.2, 1),),
            prior_trainings=(PriorTraining(steps=8000, batch=64, weight_decay=1e-2, ema=0.99,
                                           validate_every=250, patience=6, context_noise=0.2),),
            features=FeatureNetConfig(hidden=16, features=64, name="MNIST digit classes, 64-d"),
            half=True,
            **_small_discriminators(),
        ),
        # What a prior can gain is what it cannot hold: here each canvas's hidden tint. The experts
        # see no further than the prior does and are no larger, so that it models all else well; but
        # where the cells that it sees do not tell the tint, it may slip into another, and nothing
        # later tells it so. See benchmarks/README.md for how much that is.
        Recipe(
            name="oracle",
            source="tinted-faces",
            count=20_000,
            vqvae=_SMALL_VQVAE,
            vqvae_training=VQVAETraining(steps=2000, batch=96),
            oracles=(MixtureConfig((8, 8), 64, 12, 12, 1, 0, 3, 0.0, 1, styles=TINTS),),
            oracle_trainings=(_quick(64, 3000),),
            oracle_samples=15_600,
            priors=(PixelCNNConfig((8, 8), 64, 16, 16, 1, 0, 3, 0.0, 1),),
            prior_trainings=(_quick(128, 5000, 4e-3),),
            features=FeatureNetConfig(hidden=12, outputs=0, name="face attributes and tint, 32-d"),
            half=True,
            **_small_discriminators(),
        ),
        # These oracles attend to the whole past; the priors see three cells (and the level above).
        Recipe(
            name="oracle16",
            source="faces",
            count=12_000,
            vqvae=VQVAEConfig(64, hidden=32, residual=24, layers=2, num_codes=64, code_dim=16),
            vqvae_training=VQVAETraining(steps=1000, batch=48),
            oracles=(_level(16, 32, 4, 2, 1, num_codes=64, dropout=0.05),),
            oracle_trainings=(_quick(32, 2500, 2e-3),),
            oracle_samples=13_000,
            priors=(_level(16, 12, 1, 0, 1, num_codes=64, dropout=0.0),),
            prior_trainings=(_quick(64, 4000, 4e-3),),
            features=FeatureNetConfig(hidden=12, outputs=0, name="face attributes, 32-d"),
            feature_steps=600,
            selfsupervised=_BRIEF,
            discriminator_steps=1000,
            keep=(3000, 500, 1500),
            half=True,
            **_small_discriminators(16, 64),
        ),
        Recipe(
            name="oracle-two-level",
            source="faces",
            count=12_000,
            vqvae=VQVAEConfig(64, 32, 24, layers=2, num_codes=64, code_dim=16, levels=2),
            vqvae_training=VQVAETraining(steps=1000, batch=48),
            oracles=(_level(8, 32, 4, 2, 1, num_codes=64, dropout=0.05),
                     _level(16, 32, 4, 2, 1, num_codes=64, dropout=0.05, condition=2)),
            oracle_trainings=(_quick(64, 2500, 2e-3), _quick(32, 2000, 2e-3)),
            oracle_samples=13_000,
            priors=(_level(8, 12, 1, 0, 1, num_codes=64, dropout=0.0),
                    _level(16, 12, 1, 0, 1, num_codes=64, dropout=0.0, condition=1)),
            prior_trainings=(_quick(128, 4000, 4e-3), _quick(64, 3000, 4e-3)),
            features=FeatureNetConfig(hidden=12, outputs=0, name="face attributes, 32-d"),
            feature_steps=600,
            selfsupervised=_BRIEF,
            discriminator_steps=1000,
            keep=(2500, 500, 1500),
            half=True,
            **_small_discriminators(32, 64),
        ),
        _stand_in("faces64", VQVAEConfig(64, 128, 64, 3, 128, 32, blocks=4, narrow=True),
                  (PixelCNNConfig((8, 8), 128, 64, 32, 4, 0, 5, 0.1, 1), _averaged(64, 8000, 400)),
                  count=100_000, vqvae_training=_many_small(15_000),
                  keep=(30_000, 1000, 3000), fakes=4096, batch=64, steps=1000),
        _stand_in("faces64wide", VQVAEConfig(64, 128, 64, 3, 512, 32, blocks=4, narrow=True),
                  (PixelCNNConfig((8, 8), 512, 64, 32, 4, 0, 5, 0.1, 1), _averaged(64, 8000, 400)),
                  count=100_000, vqvae_training=_many_small(15_000),
                  keep=(30_000, 1000, 3000), fakes=4096, batch=64, steps=1000),
        _FACES64FINE,
        _enlarged(_FACES64FINE, "faces128top", 2, VQVAETraining(steps=2000, batch=16,
                                                                learning_rate=2e-3)),
        _stand_in("faces128", VQVAEConfig(128, 64, 32, 2, 512, 24, levels=2, narrow=True),
                  (_level(16, 64, 4, 1, 1), _averaged(32, 3500, 350)),
                  (_level(32, 48, 3, 0, 1, condition=3), _averaged(8, 5000, 500)),
                  count=30_000,
                  vqvae_training=VQVAETraining(steps=2400, batch=16, learning_rate=2e-3,
                                               revive_below=1, validate_every=600),
                  keep=(2000, 300, 700), fakes=1024, batch=32, steps=300),
        _stand_in("faces256", VQVAEConfig(256, 48, 32, 1, 512, 24, levels=2, narrow=True,
                                          enlarge=2),
                  (_level(32, 64, 4, 1, 1), _averaged(8, 4200, 700)),
                  (_level(64, 48, 3, 0, 1, condition=3), _averaged(4, 5000, 500)),
                  count=20_000,
                  vqvae_training=VQVAETraining(steps=1800, batch=8, learning_rate=2e-3,
                                               revive_below=1, validate_every=600),
                  keep=(400, 100, 250), fakes=512, batch=16, steps=200, steps_of_codes=400),
        _stand_in("faces512", VQVAEConfig(512, 24, 16, 3, 512, 16, levels=2),
                  (_level(32, 24, 3, 0, 1), _quick(8, 500)),
                  (_level(64, 24, 2, 0, 0, condition=2), _quick(4, 300)),
                  count=500, vqvae_training=VQVAETraining(steps=700, batch=6,
                                                            learning_rate=2e-3),
                  keep=(40, 12, 12), fakes=200, batch=8, steps=100),
        _for_folder(VQVAEConfig(32, 48, 32, 2, num_codes=64, code_dim=16),
                    VQVAETraining(steps=3500, batch=64, shift=1),
                    (_level(8, 48, 4, 0, 1, num_codes=64, dropout=0.2), _fitted(64, 4000, 250))),
        _for_folder(VQVAEConfig(64, 96, 48, 3, num_codes=128, code_dim=32),
                    VQVAETraining(steps=5000, batch=48, shift=2),
                    (_level(8, 96, 5, 1, 1, num_codes=128, dropout=0.2), _fitted(64, 4000, 200))),
        _for_folder(VQVAEConfig(128, 64, 32, 2, num_codes=512, code_dim=24, levels=2),
                    VQVAETraining(steps=2500, batch=16, shift=4),
                    (_level(16, 64, 5, 1, 1, dropout=0.2), _fitted(32, 3000, 150)),
                    (_level(32, 64, 3, 0, 1, dropout=0.2, condition=3), _fitted(16, 2000, 100))),
        # The paper's own, supplement Tables 4-10.
        _paper("celeba64", 64, 3, (_level(8, 128, 5, 0, 5, num_codes=128), _mle(1024, 19_531))),
        _paper("celeba64-oracle", 64, 3,
               (_level(8, 128, 5, 0, 5, num_codes=128), _mle(1024, 19_531)),
               oracle=(_level(8, 256, 5, 0, 5, num_codes=128), _mle(1024, 90_039))),
        _paper("bedroom64", 64, 3, (_level(8, 512, 20, 0, 5), _mle(1536, 97_656)),
               vqvae_steps=234_375),
        _paper("bedroom64fine", 64, 2, (_level(16, 512, 20, 8, 20), _mle(480, 31_250)),
               vqvae_steps=234_375),
        *(_paper(f"{images}128top", 128, 3, (_level(16, 512, 20, 8, 20), _mle(480, 41_666)))
          for images in ("celeba", "bedroom")),
        *(_paper(f"{images}128", 128, 2,
                 (_level(16, 512, 20, 8, 20), _mle(480, 166_664)),
                 (_level(32, 512, 20, condition=20), _mle(128, 156_250)))
          for images in ("celeba", "bedroom")),
        _paper("celeba256", 256, 2,
               (_level(32, 512, 20, 0, 20), _mle(128, 187_500)),
               (_level(64, 128, 16, condition=20), _mle(128, 125_000))),
        _paper("celebahq512", 512, 3,
               (_level(32, 512, 20, 0, 20), _mle(128, 20_625)),
               (_level(64, 128, 16, condition=20), _mle(128, 42_187)),
               vqvae_steps=23_437),
    )
}  # fmt: skip


def recipe_of(bundle: Bundle) -> Recipe:
    """The recipe of the name that a bundle was made by, as it is today.

    Raises:
        ValueError: If there is none of that name.
    """
    name = bundle.recipe["name"]
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]

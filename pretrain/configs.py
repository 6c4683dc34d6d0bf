"""What a recipe says: the sizes of all nets, and how each of them learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agents.training.discriminator import DiscriminatorTraining
from agents.training.fit import PriorTraining
from agents.training.optimise import Training
from ral_env.nets import FeatureNetConfig, PatchGANConfig, PixelCNNConfig, VQVAEConfig
from ral_env.ranges import check_ranges


@dataclass(frozen=True)
class VQVAETraining(Training):
    """How a VQ-VAE learns, beside what every training has.

    Args:
        beta: Weight of the commitment loss. The paper's is 0.25.
        codebook_decay: Decay of the moving averages that make up the codebook.
        revive_below: Count below which a code is replaced by an input vector: the moving average of
            how many vectors an update gives the code. 0 never replaces a code.
        shift: Largest number of pixels by which augmentation moves an image, its edges repeated.
    """

    steps: int = 3000
    final_rate: float = 0.0
    beta: float = 0.25
    codebook_decay: float = 0.99
    revive_below: int = 2
    shift: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            beta="[0, inf)",
            codebook_decay="[0, 1)",
            revive_below="[0, inf)",
            shift="[0, inf)",
        )


@dataclass(frozen=True)
class SelfSupervision:
    """A feature net that needs no labels, and how it learns: VICReg.

    A. Bardes, J. Ponce, Y. LeCun, 2022, arXiv 2105.04906. Two views of an image are to have the
    same features, while each feature varies over the images and no two go together. What a view
    changes, the features ignore: keep it to what does not matter in the images.

    Args:
        net: Sizes of the feature net; it has no outputs.
        steps: Number of updates.
        batch: Number of images per update, of each of which two views are taken.
        learning_rate: Learning rate of AdamW, which falls to zero along a cosine.
        expander: Width of the two layers that follow the features while they learn.
        invariance: Weight of the squared distance of two views.
        variance: Weight of what a standard deviation falls short of 1.
        covariance: Weight of the squared covariances of two outputs.
        shift: Largest shift of a view, as a share of the image's side.
        scale: Largest share by which every second view is enlarged or reduced.
        contrast: Largest share by which differences of a view's pixels grow or shrink.
        brightness: Largest change of all pixels of a view, which are in [-1, 1].
        colour: Largest further change of each of its three channels.
    """

    net: FeatureNetConfig = field(
        default_factory=lambda: FeatureNetConfig(hidden=12, outputs=0, name="self-supervised, 32-d")
    )
    steps: int = 1000
    batch: int = 128
    learning_rate: float = 2e-3
    expander: int = 128
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    shift: float = 0.06
    scale: float = 0.1
    contrast: float = 0.2
    brightness: float = 0.2
    colour: float = 0.1

    def __post_init__(self) -> None:
        check_ranges(
            self,
            steps="[1, inf)",
            batch="[2, inf)",  # covariances need two images
            learning_rate="(0, inf)",
            expander="[1, inf)",
            invariance="[0, inf)",
            variance="[0, inf)",
            covariance="[0, inf)",
            shift="[0, 1)",
            scale="[0, 1)",
            contrast="[0, 1)",
            brightness="[0, 2]",
            colour="[0, 2]",
        )
        if self.net.outputs:
            raise ValueError(
                f"net.outputs={self.net.outputs}, expected 0: nothing is told of the images"
            )


@dataclass(frozen=True)
class DiscriminatorStage:
    """A discriminator, and how it learns to tell real codes from samples of the priors.

    Args:
        net: Sizes of the discriminator.
        training: How it learns.
        steps: Largest number of updates. It stops earlier when its AUC on held-out codes no longer
            rises.
        batch: Number of real canvases, and of fake ones, per update.
    """

    net: PatchGANConfig = field(default_factory=PatchGANConfig)
    training: DiscriminatorTraining = field(default_factory=DiscriminatorTraining)
    steps: int = 2000
    batch: int = 128

    def __post_init__(self) -> None:
        check_ranges(self, steps="[1, inf)", batch="[1, inf)")


@dataclass(frozen=True)
class Recipe:
    """All that makes a bundle, except the images of recipes that need a folder.

    Args:
        name: Name of the recipe and of its bundle.
        source: Where images come from: ``faces``, ``tinted-faces`` or ``digits``, which need no
            files, or ``mnist``, ``celeba``, ``lsun-bedroom`` or ``folder``, whose files
            ``--data`` gives.
        vqvae: Sizes of the VQ-VAE.
        priors: Sizes of the priors, one per level, coarsest first.
        prior_trainings: How the priors learn, one per level.
        count: Number of procedural faces to draw, 0 for 24,000. Of a folder or a published data
            set, the largest number of (training) images to use, 0 for all.
        vqvae_training: How the VQ-VAE learns.
        discriminator: Sizes of the discriminator that environments score with.
        discriminator_input: What the discriminator is given: decoded images (``image``) or the
            codebook vectors of the codes (``codes``).
        discriminator_training: How the discriminator learns.
        discriminator_steps: Largest number of updates of the discriminator. It stops earlier when
            its AUC on held-out codes no longer rises.
        discriminator_batch: Number of real canvases, and of fake ones, per discriminator update.
        other_discriminator: The discriminator that is given the other of images and codes, which
            environments score with when they are told to. None leaves it out.
        fakes: Number of canvases to sample from the priors, which the discriminators learn to tell
            from real ones; an eighth of them is held out.
        spoilt: Share of the others of which some codes, from hardly any to all, are replaced by
            random ones, so that the discriminators know noise for what it is: where no prior
            writes, their scores would mean nothing.
        features: Sizes of the feature net that learns the images' classes or attributes, in which
            Fréchet distances are taken. None leaves it out, and so do images of which nothing is
            known.
        feature_steps: Number of updates of that feature net.
        selfsupervised: The feature net that needs no classes or attributes. None leaves it out.
        oracles: Sizes of the oracle's nets, one per level. If there are any, they learn the codes
            of the images, and their samples are the real codes of the bundle (paper section 5.2).
            A mixture needs images whose styles are known: those of ``tinted-faces``.
        oracle_trainings: How the oracle's nets learn, one per level.
        oracle_samples: Number of canvases to sample from the oracle, split 10 : 1 : 2 into train,
            validation and test; half of the validation canvases are for tuning.
        keep: Largest numbers of train, validation and test codes that the bundle holds; of codes
            for tuning, as many as of validation codes. None means all.
        half: Whether weights are rounded to 16 bits as soon as they are trained, and stored so.
        base: Name or path of a smaller bundle whose codes and priors are kept: its encoder,
            codebooks and priors are copied and learn no more, and a decoder learns that has
            log2(``vqvae.enlarge``) stages more. All sizes have to be the base's but
            ``vqvae.image_size`` and ``vqvae.enlarge``. None trains everything.
    """

    name: str
    source: str
    vqvae: VQVAEConfig
    priors: tuple[PixelCNNConfig, ...]
    prior_trainings: tuple[PriorTraining, ...]
    count: int = 0
    vqvae_training: VQVAETraining = field(default_factory=VQVAETraining)
    discriminator: PatchGANConfig = field(default_factory=PatchGANConfig)
    discriminator_input: Literal["image", "codes"] = "image"
    discriminator_training: DiscriminatorTraining = field(default_factory=DiscriminatorTraining)
    discriminator_steps: int = 2000
    discriminator_batch: int = 128
    other_discriminator: DiscriminatorStage | None = None
    fakes: int = 4096
    spoilt: float = 0.0
    features: FeatureNetConfig | None = None
    feature_steps: int = 1500
    selfsupervised: SelfSupervision | None = SelfSupervision()
    oracles: tuple[PixelCNNConfig, ...] = ()
    oracle_trainings: tuple[PriorTraining, ...] = ()
    oracle_samples: int = 0
    keep: tuple[int, int, int] | None = None
    half: bool = False
    base: str | None = None

    def __post_init__(self) -> None:
        check_ranges(
            self,
            count="[0, inf)",
            discriminator_steps="[1, inf)",
            discriminator_batch="[1, inf)",
            fakes="[8, inf)",  # an eighth is held out
            spoilt="[0, 1]",
            feature_steps="[1, inf)",
            oracle_samples="[13, inf)" if self.oracles else "[0, inf)",  # split 10 : 1 : 2
            keep="[1, inf)",
        )
        for nets, trainings in (("priors", "prior_trainings"), ("oracles", "oracle_trainings")):
            found, expected = len(getattr(self, trainings)), len(getattr(self, nets))
            if found != expected:
                raise ValueError(
                    f"{found} {trainings}, expected {expected}: one for each of {nets}"
                )
        if self.base is not None and self.oracles:
            raise ValueError(
                f"base={self.base!r}, expected None in a recipe with oracles: their samples would "
                "be the real codes, of which the base's priors know nothing"
            )

    @property
    def discriminators(self) -> dict[Literal["image", "codes"], DiscriminatorStage]:
        """The discriminators by what they are given, first that which environments score with."""
        found: dict[Literal["image", "codes"], DiscriminatorStage] = {
            self.discriminator_input: DiscriminatorStage(
                self.discriminator,
                self.discriminator_training,
                self.discriminator_steps,
                self.discriminator_batch,
            )
        }
        if self.other_discriminator is not None:
            other = "codes" if self.discriminator_input == "image" else "image"
            found[other] = self.other_discriminator
        return found

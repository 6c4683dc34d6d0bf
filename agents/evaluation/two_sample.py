"""Classifier two-sample test: can fresh classifiers tell real canvases from samples?

Several small convolutional nets, the judges, learn to tell training reals from as many samples. The
mean of their AUCs on held-out reals and on samples that none of them was trained on is the figure
``judge_auc``: 0.5 where they cannot tell, 1 where they always can. No feature net, no labels and no
discriminator that a generator was trained against has a part in it.

An AUC says little by itself, so two rows stand beside it: the floor, reals against other reals,
which must be near 0.5; and the power, reals against others with 2 % of the codes replaced,
which must be above it: who does not see that would not see a generator's faults either.

Source: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests"; AUC in place of their
accuracy, as it needs no threshold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.training.discriminator import auc, augment, scores
from agents.training.files import Row
from agents.training.optimise import Training, optimise
from agents.training.processes import Processes
from ral_env.bundle import Bundle
from ral_env.nets import Codec, PatchGAN, PatchGANConfig, represent
from ral_env.ranges import check_ranges

REPLACED = 0.02  # share of codes that the power row replaces
# AdamW with a running average of the weights; the best of it in validation is kept.
TRAINING = Training(
    steps=1000, batch=128, learning_rate=2e-3, schedule="constant", weight_decay=1e-2, ema=0.99,
    validate_every=100, patience=8,
)  # fmt: skip


@dataclass(frozen=True)
class ClassifierTraining:
    """How the classifiers of the test are trained.

    Args:
        classifiers: Number of classifiers.
        training: Settings of each one's optimiser.
        seconds: Longest training of one classifier, in seconds; None sets no limit.
        validation: Share of both training sets that is set aside for early stopping.
        shift: Augmentation: inputs are moved by up to this many cells, and zeros come in.
        drop: Augmentation: this share of an input's cells is set to zero.
        hidden: Number of channels of the first convolution.
        dropout: Share of channels that is dropped after each convolution.
    """

    classifiers: int = 5
    training: Training = field(default=TRAINING)
    seconds: float | None = None
    validation: float = 0.2
    shift: int = 1
    drop: float = 0.05
    hidden: int = 48
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_ranges(
            self,
            classifiers="[2, inf)",
            seconds="(0, inf)",
            validation="(0, 1)",
            shift="[0, inf)",
            drop="[0, 1)",
            hidden="[1, inf)",
            dropout="[0, 1)",
        )


@dataclass(frozen=True)
class Sample:
    """What classifiers are shown of one side.

    Args:
        train: Inputs that they learn from, float32 (N, C, H, W).
        held_out: Inputs that they are measured on, float32 (M, C, H, W).
    """

    train: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class Separation:
    """How well fresh classifiers tell two samples apart.

    Attributes:
        auc: Mean of their AUCs; 0.5 is indistinguishable, 1 is told apart without error.
        deviation: Standard deviation of their AUCs. It tells how much the classifiers differ, not
            what other held-out samples would give.
    """

    auc: float
    deviation: float

    @property
    def figures(self) -> Row:
        """The figures ``judge_auc`` and ``judge_auc_deviation`` of a table's row."""
        return {"judge_auc": self.auc, "judge_auc_deviation": self.deviation}


def separate(
    real: Sample,
    fake: Sample,
    settings: ClassifierTraining | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Separation:
    """Train fresh classifiers to tell real from fake, and measure them on what is held out.

    As many of each side are used as the smaller one has, in training and in the measurement.

    Args:
        real, fake: The two sides; inputs are of one shape (C, H, W).
        settings: How the classifiers are trained.
        seed: Seed of their weights, of the parts set aside for early stopping and of augmentation.
        clock: What the settings' seconds are counted by.

    Raises:
        ValueError: If inputs differ in shape, or there are fewer than 10 to train on or 2 to
            measure on.
    """
    settings = settings or ClassifierTraining()
    shapes = {tuple(x.shape[1:]) for s in (real, fake) for x in (s.train, s.held_out)}
    if len(shapes) > 1:
        raise ValueError(f"inputs are {shapes}, expected one shape (C, H, W) for all")
    count = min(len(real.train), len(fake.train))
    held_out = min(len(real.held_out), len(fake.held_out))
    if count < 10 or held_out < 2:
        raise ValueError(
            f"{count} reals and as many fakes to learn from and {held_out} to measure on, expected "
            "10 or more and 2 or more"
        )
    pair = real.held_out[:held_out], fake.held_out[:held_out]
    aucs = []
    with torch.random.fork_rng(devices=[]):
        for i in range(settings.classifiers):
            seed_i = seed * 1000 + i
            net = _train(real.train[:count], fake.train[:count], settings, seed_i, clock)
            aucs.append(_auc(net, *pair))
    found = torch.tensor(aucs, dtype=torch.float64)
    return Separation(found.mean().item(), found.std().item())


def _train(
    real: Tensor,
    fake: Tensor,
    settings: ClassifierTraining,
    seed: int,
    clock: Callable[[], float],
) -> PatchGAN:
    """One classifier, stopped early by its AUC on a part of each side's inputs (N, C, H, W)."""
    torch.manual_seed(seed)
    order = torch.randperm(len(real))  # of both sides: a real and its copy stay together
    aside = max(2, round(settings.validation * len(real)))
    validation = real[order[:aside]], fake[order[:aside]]
    inputs = torch.cat([real[order[aside:]], fake[order[aside:]]])
    is_real = (torch.arange(len(inputs)) < len(inputs) // 2).float()
    net, processes = _new_classifier(inputs, settings), Processes()

    def losses(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        shown, target = batch
        logits = scores(net, augment(shown, settings.shift, settings.drop, processes))
        return {"cross_entropy": F.binary_cross_entropy_with_logits(logits, target)}

    optimise(
        net,
        losses,
        lambda index: (inputs[index], is_real[index]),
        len(inputs),
        lambda candidate: {"error": 1 - _auc(candidate, *validation)},
        settings.training,
        seed=seed,
        seconds=settings.seconds,
        clock=clock,
    )
    return net


def _new_classifier(inputs: Tensor, settings: ClassifierTraining) -> PatchGAN:
    """A PatchGAN with a head of the whole input, whose map of scores is 4x4 or less."""
    channels, side = inputs.shape[1], min(inputs.shape[2:])
    layers = max(0, int(math.log2(side / 4))) if side >= 4 else 0
    return PatchGAN(
        PatchGANConfig(
            channels,
            hidden=settings.hidden,
            layers=layers,
            plain_layers=2 if side <= 16 else 0,  # of codes; of an image each would cost too much
            dropout=settings.dropout,
            global_head=True,
        )
    )


@torch.no_grad()
def _auc(net: Any, real: Tensor, fake: Tensor) -> float:
    return auc(*(torch.cat([scores(net, x) for x in side.split(250)]) for side in (real, fake)))


def replace_codes(
    grids: Sequence[Tensor], num_codes: int, share: float = REPLACED, seed: int = 0
) -> list[Tensor]:
    """Canvases of which each code is replaced with this chance by any other, all as likely.

    Args:
        grids: Codes, int64 (N, h, w), a grid a level.
        num_codes: Number of codes of the codebook, 2 or more.
        share: Chance of each code to be replaced, 0 to 1.
        seed: Seed of the codes that are replaced, and of the new ones.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for grid in grids:
        replaced = torch.rand(grid.shape, generator=generator) < share
        moved = grid + torch.randint(1, num_codes, grid.shape, generator=generator)
        made.append(torch.where(replaced, moved % num_codes, grid))
    return made


@torch.no_grad()
def classifier_inputs(codec: Codec, grids: Sequence[Tensor], batch: int = 50) -> Tensor:
    """What classifiers are shown of codes: their vectors, or images of a codec without vectors.

    Args:
        codec: Looks up the codes' vectors, or decodes them.
        grids: Codes, int64 (N, h, w), a grid a level.
        batch: Number of canvases that are looked up or decoded together.

    Returns:
        Float32 (N, C, H, W).
    """
    kind = "codes" if hasattr(codec, "lookup") else "image"
    parts = zip(*(grid.split(batch) for grid in grids), strict=True)
    return torch.cat([represent(codec, part, kind) for part in parts])


class CodeTest:
    """The test on a bundle's real codes.

    Args:
        bundle: Its train split is what classifiers learn from, its test split is held out.
        count: Largest number of training reals.
        settings: How the classifiers are trained.
    """

    def __init__(
        self, bundle: Bundle, count: int = 1000, settings: ClassifierTraining | None = None
    ):
        self.bundle = bundle
        self.settings = settings or ClassifierTraining()
        train, self.held_out = (bundle.layout.as_grids(bundle.split(s)) for s in ("train", "test"))
        self.train = [grid[:count] for grid in train]
        # Reals against reals: each side is to have as many as there are above, if there are.
        self._halves = [
            _Codes([g[i : 2 * count : 2] for g in train], [g[i::2] for g in self.held_out])
            for i in (0, 1)
        ]

    def of_samples(
        self, train: Sequence[Tensor], held_out: Sequence[Tensor], seed: int = 0
    ) -> Separation:
        """How well samples are told from reals.

        Args:
            train: Codes that classifiers learn from, int64 (N, h, w), a grid a level: as many as
                :attr:`train` has.
            held_out: Codes that they are measured on, as many as :attr:`held_out` has.
            seed: Seed of the classifiers.
        """
        return self._separate(_Codes(self.train, self.held_out), _Codes(train, held_out), seed)

    def floor(self, seed: int = 0) -> Separation:
        """How well reals are told from other reals: not at all, 0.5 up to chance.

        Both splits are halved for it, so where the train split is small, classifiers learn from
        fewer reals than they do of samples.
        """
        one, other = self._halves
        return self._separate(one, other, seed)

    def power(self, seed: int = 0) -> Separation:
        """How well reals are told from other reals of which :data:`REPLACED` of the codes are
        replaced: what :meth:`floor` measures, but for those codes."""
        real, other = self._halves
        num_codes = self.bundle.layout.num_codes
        train, held_out = (
            replace_codes(grids, num_codes, seed=2 * seed + i) for i, grids in enumerate(other)
        )
        return self._separate(real, _Codes(train, held_out), seed)

    def _separate(self, real: _Codes, fake: _Codes, seed: int) -> Separation:
        codec = self.bundle.vqvae
        real_inputs, fake_inputs = (
            Sample(classifier_inputs(codec, side.train), classifier_inputs(codec, side.held_out))
            for side in (real, fake)
        )
        return separate(real_inputs, fake_inputs, self.settings, seed)


class _Codes(NamedTuple):
    """One side of the test: codes (N, h, w), a grid a level, to learn from and to measure on."""

    train: Sequence[Tensor]
    held_out: Sequence[Tensor]

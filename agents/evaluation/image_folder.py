"""Images that anyone's model wrote, in a folder, against the reals of a bundle.

A decoder leaves traces of its own: a classifier tells any raw image from any reconstruction, and
the AUC of that is 1 whatever the model was worth. So every row says which its reals are. Where the
reals are a bundle's codes, decoded, images are measured twice: as they are, and after the bundle's
VQ-VAE has encoded and decoded them, which leaves the same traces in both but hides what it cannot
draw. Where raw real images are given, images are measured as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from agents.evaluation import published
from agents.evaluation.evaluator import Evaluator, feature_figures
from agents.evaluation.published import PublishedNets
from agents.evaluation.two_sample import ClassifierTraining, Sample, separate
from agents.training.files import Row
from ral_env import images
from ral_env.picture import to_bytes

HELD_OUT = 4  # of so many images one is held out from the classifiers


def is_image_folder(name: str) -> bool:
    """Whether this is a folder of images and no bundle."""
    folder = Path(name).expanduser()
    return folder.is_dir() and not (folder / "manifest.json").is_file() and bool(files(folder))


def files(folder: str | Path) -> list[Path]:
    """The image files at any depth of a folder, by their endings, in the order of their names."""
    endings = {ending for of_format in images.ENDINGS.values() for ending in of_format}
    found = Path(folder).expanduser().rglob("*")
    return sorted(file for file in found if file.suffix.lower() in endings)


def read(folder: str | Path, size: int, count: int) -> Tensor:
    """The first images of a folder, uint8 (N, 3, size, size), cropped to their middle square.

    Args:
        folder: See :func:`files`.
        size: Pixels a side that they are scaled to.
        count: Largest number of images.

    Raises:
        ValueError: If there are fewer than 20 images, or one cannot be read.
    """
    chosen = files(folder)[:count]
    if len(chosen) < 20:
        raise ValueError(f"{folder} has {len(chosen)} images, expected 20 or more")
    return torch.stack([torch.from_numpy(images.read(file, size)) for file in chosen])


class RealImages:
    """Real images, and what others are measured against them by.

    Args:
        train: uint8 (N, 3, S, S), which classifiers learn from.
        held_out: uint8 (M, 3, S, S), which all figures are taken against.
        kind: ``"raw"`` or ``"reconstructed"``.
        evaluator: Its feature nets are used.
        nets: Published networks.
        classifiers: How classifiers are trained; None leaves ``judge_auc`` out.
    """

    def __init__(
        self,
        train: Tensor,
        held_out: Tensor,
        kind: str,
        evaluator: Evaluator,
        nets: PublishedNets,
        classifiers: ClassifierTraining | None,
    ):
        self.train, self.held_out, self.kind = train, held_out, kind
        self.evaluator, self.nets, self.classifiers = evaluator, nets, classifiers
        self._features = self._features_of(held_out)
        self._published = nets.features(held_out)

    def figures(self, made: Tensor, seed: int = 0) -> Row:
        """The figures of images, uint8 (N, 3, S, S), whoever has made them."""
        row = feature_figures(self._features, self._features_of(made))
        row |= published.figures(self._published, self.nets.features(made))
        if self.classifiers:
            aside = torch.arange(len(made)) % HELD_OUT == 0
            fake = Sample(to_float(made[~aside]), to_float(made[aside]))
            row |= self._separate(fake, seed)
        return row

    def floor(self, seed: int = 0) -> Row:
        """Figures of the training reals; their judges tell reals from reals."""
        row = feature_figures(self._features, self._features_of(self.train))
        row |= published.figures(self._published, self.nets.features(self.train))
        if self.classifiers:
            one, other = (
                Sample(to_float(self.train[i::2]), to_float(self.held_out[i::2])) for i in (0, 1)
            )
            row |= separate(one, other, self.classifiers, seed).figures
        return row

    def _separate(self, fake: Sample, seed: int) -> Row:
        assert self.classifiers
        real = Sample(to_float(self.train), to_float(self.held_out))
        return separate(real, fake, self.classifiers, seed).figures

    def _features_of(self, made: Tensor) -> dict[str, Tensor]:
        size = self.evaluator.batches.features
        return self.evaluator.image_features(to_float(part) for part in made.split(size))


def raw_reals(
    folder: str,
    evaluator: Evaluator,
    count: int,
    nets: PublishedNets,
    classifiers: ClassifierTraining | None,
) -> RealImages:
    """Real images of a folder, every second one held out; up to ``count`` of either."""
    found = read(folder, evaluator.bundle.image_size, 2 * count)
    return RealImages(found[::2], found[1::2], "raw", evaluator, nets, classifiers)


def reconstructed_reals(
    train: Sequence[Tensor],
    evaluator: Evaluator,
    nets: PublishedNets,
    classifiers: ClassifierTraining | None,
) -> RealImages:
    """The bundle's real codes, decoded: training codes (N, h, w), a grid a level, and held-out."""
    learnt, held_out = (
        torch.from_numpy(to_bytes(evaluator.images(grids))) for grids in (train, evaluator.held_out)
    )
    return RealImages(learnt, held_out, "reconstructed", evaluator, nets, classifiers)


@torch.no_grad()
def encode(evaluator: Evaluator, made: Tensor) -> list[Tensor]:
    """Codes, int64 (N, h, w) a level, of uint8 images (N, 3, S, S); the codec must encode."""
    size = evaluator.batches.decode
    parts = [evaluator.bundle.vqvae.encode(to_float(part)) for part in made.split(size)]
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def to_float(made: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]."""
    return made.float() / 127.5 - 1

"""What feature nets learn from: images and their reconstructions, in memory and not too large."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data import Pixels
from pretrain.pixels import chunks, to_bytes, to_float
from ral_env.nets import VQVAE

LARGEST = 64  # pixels; larger images are averaged over squares until fewer than twice as many
PIXELS = 20_000 * LARGEST**2  # of the images that a feature net learns from: a minute's decoding
FEWEST = 2_000  # images that it learns from, however large, where there are as many


@dataclass(frozen=True)
class Pictures:
    """Images and their reconstructions, both uint8 (N, 3, s, s)."""

    images: Tensor
    reconstructions: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, vqvae: VQVAE, images: Pixels, pool: int) -> Pictures:
        """The first of some images, about :data:`PIXELS` of them, averaged over squares.

        Args:
            vqvae: Makes the reconstructions, of the images as they are.
            images: uint8 images (N, 3, S, S).
            pool: Side of the squares in pixels.
        """
        most = max(PIXELS // images[:1].shape[-1] ** 2, FEWEST)
        pairs, count = [], 0
        for part in chunks(images):
            x = to_float(part)
            pair = x, vqvae.decode(vqvae.encode(x))
            pairs.append([to_bytes(F.avg_pool2d(some, pool)) for some in pair])
            count += len(part)
            if count >= most:
                break
        pictures, reconstructions = (torch.cat(some) for some in zip(*pairs, strict=True))
        return cls(pictures, reconstructions)

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, step: int, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``batch`` images at even steps and reconstructions at odd ones.

        A net that compares decoded codes must not be surprised by what a decoder does to an image.

        Returns:
            uint8 (batch, 3, s, s), and their int64 places (batch,).
        """
        index = torch.randint(len(self), (batch,), generator=generator)
        return (self.reconstructions if step % 2 else self.images)[index], index


def pool_for(size: int) -> int:
    """Side of the squares over which images of ``size`` pixels are averaged for a feature net."""
    return max(1, size // LARGEST)

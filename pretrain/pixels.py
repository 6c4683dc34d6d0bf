"""Pixels as nets take them: floats in [-1, 1], a chunk of a data set at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data import Pixels


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to the nearest uint8 pixels."""
    return ((images + 1) * 127.5).round().byte()


def shifted(images: Tensor, shift: int, generator: torch.Generator | None = None) -> Tensor:
    """Move each image (n, 3, S, S) by up to ``shift`` pixels in both directions.

    The pixels at the edges are repeated. The result is of floats, except where ``shift`` is 0.
    """
    if not shift:
        return images
    size = images.shape[-1]
    padded = F.pad(images.float(), (shift,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, offsets, strict=True)]
    )


def chunk_size(images: Pixels) -> int:
    """Number of images that a pass without gradient takes at a time: 512 of 32 pixels, fewer of
    larger ones in proportion, at least 8."""
    return max(8, 2**19 // images[:1].shape[-1] ** 2)


def chunks(images: Pixels) -> Iterator[Tensor]:
    """All images in order, uint8 (n, 3, S, S), :func:`chunk_size` of them at a time."""
    size = chunk_size(images)
    for first in range(0, len(images), size):
        yield images[first : first + size]

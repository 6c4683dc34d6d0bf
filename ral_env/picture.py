"""What a canvas looks like while it is being written: frames for people, not for discriminators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ral_env.nets import VQVAE, Codec

BLANK = (112, 144)  # greys of the checker of unwritten cells
ABSENT = 24  # grey of cells that the episode does not have
REAL = (40, 110, 255)  # tint of given cells
HIGH, LOW = (20, 190, 90), (230, 40, 40)  # tints of scores: real, fake


@torch.no_grad()
def mean_child_vectors(vqvae: VQVAE, real: Sequence[Tensor]) -> list[Tensor]:
    """The mean codebook vector that stands beneath a code of the coarsest grid in real codes.

    Args:
        real: real codes, int64 (N, h, w) a level.

    Returns:
        For each level (num_codes, a, b, code_dim): the mean over real codes of the vector in row a
        and column b beneath each coarsest code; where no real image has that code, the mean of all.
    """
    top = real[0]
    tables = []
    for vectors in vqvae.lookup(real):  # (N, D, H, W)
        a, b = vectors.shape[2] // top.shape[1], vectors.shape[3] // top.shape[2]
        beneath = vectors.unflatten(3, (-1, b)).unflatten(2, (-1, a))  # (N, D, h, a, w, b)
        beneath = beneath.permute(0, 2, 4, 3, 5, 1).flatten(0, 2)  # (N*h*w, a, b, D)
        count = torch.bincount(top.flatten(), minlength=vqvae.config.num_codes)
        total = beneath.new_zeros(len(count), *beneath.shape[1:])
        total.index_add_(0, top.flatten(), beneath)
        mean = total / count.clamp(min=1)[:, None, None, None]
        mean[count == 0] = beneath.mean(0)
        tables.append(mean)
    return tables


@torch.no_grad()
def paint(
    codec: Codec, grids: Sequence[Tensor], num_codes: int, means: Sequence[Tensor] | None = None
) -> np.ndarray:
    """Decode codes as far as they are written: uint8 (B, H, W, 3).

    Where a code is EMPTY there is a grey checker. With ``means`` that holds of the coarsest grid
    alone: where only finer codes are EMPTY, the mean vectors beneath the coarsest code are decoded.

    Args:
        codec: decodes; a :class:`VQVAE` if ``means`` are given.
        grids: one int64 tensor (B, h, w) for each level, coarsest first.
        num_codes: the value of EMPTY.
        means: what :func:`mean_child_vectors` returned.
    """
    empty = [grid >= num_codes for grid in grids]
    known = [grid.masked_fill(blank, 0) for grid, blank in zip(grids, empty, strict=True)]
    if means is None:
        decoded = codec.decode(known)
    else:
        assert isinstance(codec, VQVAE)
        decoded, empty = codec.decode_vectors(_fill(codec, known, empty, means)), empty[:1]
    images = to_bytes(decoded).transpose(0, 2, 3, 1)
    width = images.shape[2]
    blank = np.zeros(images.shape[:3], bool)
    for grid in empty:
        cell = width // grid.shape[2]
        blank |= grid.cpu().numpy().repeat(cell, 1).repeat(cell, 2)
    square = width // grids[0].shape[2]
    checker = np.add.outer(*(np.arange(side) // square for side in blank.shape[1:])) % 2
    return np.where(blank[..., None], np.take(BLANK, checker)[..., None], images).astype(np.uint8)


def _fill(
    vqvae: VQVAE, known: Sequence[Tensor], empty: Sequence[Tensor], means: Sequence[Tensor]
) -> list[Tensor]:
    """The vectors (B, D, h, w) of each level, where its codes are EMPTY the mean ones."""
    vectors = []
    for vector, blank, table in zip(vqvae.lookup(known), empty, means, strict=True):
        beneath = table[known[0]]  # (B, h, w, a, b, D)
        beneath = beneath.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (B, D, H, W)
        vectors.append(torch.where(blank[:, None], beneath, vector))
    return vectors


def to_bytes(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] (values beyond are clamped) to uint8 of the same shape."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()


def contact_sheet(images: np.ndarray) -> np.ndarray:
    """One picture uint8 (H', W', 3) of images uint8 (N, 3, H, W), in about as many rows as columns.

    Small images are enlarged without smoothing, every pixel to a square.
    """
    tiles = tiled(images, math.ceil(len(images) ** 0.5))
    times = max(1, 96 // images.shape[-1])
    return tiles.repeat(times, 0).repeat(times, 1)


def tiled(images: np.ndarray, columns: int, gap: int = 2, fill: int = 0) -> np.ndarray:
    """Images side by side, line by line, as one picture uint8 (H', W', 3).

    Args:
        images: uint8 (N, 3, H, W).
        columns: images to a line; the rest of the last line is filled.
        gap: pixels around and between images.
        fill: grey of the gaps.
    """
    height, width = images.shape[2:]
    lines = -(-len(images) // columns)
    shape = (gap + lines * (height + gap), gap + columns * (width + gap), 3)
    picture = np.full(shape, fill, np.uint8)
    for i, image in enumerate(images):
        line, column = divmod(i, columns)
        top, left = gap + line * (height + gap), gap + column * (width + gap)
        picture[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return picture


def tint(frame: np.ndarray, colour: Sequence[int], share: float | np.ndarray = 0.3) -> None:
    """Mix a colour into a frame (H, W, 3), in place; ``share`` may be (H, W)."""
    share = np.asarray(share)[..., None]
    frame[:] = np.round((1 - share) * frame + share * np.asarray(colour))


def tint_scores(frame: np.ndarray, scores: np.ndarray) -> None:
    """Tint each pixel by its score (H, W) in [-1, 1]: green where real, red where fake."""
    for colour, side in ((HIGH, scores), (LOW, -scores)):
        tint(frame, colour, 0.5 * side.clip(0, 1))

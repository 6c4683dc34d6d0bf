"""What a canvas looks like while it is being written: frames for people, not for discriminators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ral_env.nets import VQVAE

BLANK = (112, 144)  # greys of the checker of unwritten cells
ABSENT = 24  # grey of cells that the episode does not have
REAL = (40, 110, 255)  # tint of given cells
HIGH, LOW = (20, 190, 90), (230, 40, 40)  # tints of scores: real, fake


@torch.no_grad()
def usual(vqvae: VQVAE, real: Sequence[Tensor]) -> list[Tensor]:
    """What usually stands beneath a code of the coarsest grid: a mean codebook vector.

    Args:
        real: real codes, int64 (N, h, w) a level.

    Returns:
        For each level (num_codes, a, b, code_dim): the mean over real codes of the vector in row a
        and column b beneath each coarsest code; the mean of all where that code was never seen.
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
def paint(vqvae: VQVAE, grids: Sequence[Tensor], usually: Sequence[Tensor]) -> np.ndarray:
    """Decode codes as far as they are written: uint8 (B, H, W, 3).

    A finer level that is still EMPTY is decoded as what usually stands beneath the coarsest code;
    where that is EMPTY too there is a checker.

    Args:
        grids: int64 (B, h, w) a level; ``num_codes`` is EMPTY.
        usually: what :func:`usual` returned.
    """
    missing = vqvae.config.num_codes
    empty = [grid >= missing for grid in grids]
    known = [grid.masked_fill(blank, 0) for grid, blank in zip(grids, empty, strict=True)]
    vectors = []
    for vector, blank, table in zip(vqvae.lookup(known), empty, usually, strict=True):
        beneath = table[known[0]]  # (B, h, w, a, b, D)
        beneath = beneath.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (B, D, H, W)
        vectors.append(torch.where(blank[:, None], beneath, vector))
    images = to_bytes(vqvae.decode_vectors(vectors)).transpose(0, 2, 3, 1)
    cell = images.shape[2] // grids[0].shape[2]
    blank = empty[0].cpu().numpy().repeat(cell, 1).repeat(cell, 2)
    checker = np.add.outer(*(np.arange(side) // cell for side in blank.shape[1:])) % 2
    return np.where(blank[..., None], np.take(BLANK, checker)[..., None], images).astype(np.uint8)


def to_bytes(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] (values beyond are clamped) to uint8 of the same shape."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()


def tint(frame: np.ndarray, colour: Sequence[int], share: float | np.ndarray = 0.3) -> None:
    """Mix a colour into a frame (H, W, 3), in place; ``share`` may be (H, W)."""
    share = np.asarray(share)[..., None]
    frame[:] = np.round((1 - share) * frame + share * np.asarray(colour))


def tint_scores(frame: np.ndarray, scores: np.ndarray) -> None:
    """Tint each pixel by its score (H, W) in [-1, 1]: green where real, red where fake."""
    for colour, side in ((HIGH, scores), (LOW, -scores)):
        tint(frame, colour, 0.5 * side.clip(0, 1))

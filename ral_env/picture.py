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
def paint(vqvae: VQVAE, grids: Sequence[Tensor]) -> np.ndarray:
    """Decode codes as far as they are written: uint8 (B, H, W, 3).

    A finer level that is still EMPTY is decoded as its codebook's mean vector, which says nothing;
    where the coarsest is EMPTY there is a checker.

    Args:
        grids: int64 (B, h, w) a level; ``num_codes`` is EMPTY.
    """
    missing = vqvae.config.num_codes
    empty = [grid >= missing for grid in grids]
    known = [grid.masked_fill(blank, 0) for grid, blank in zip(grids, empty, strict=True)]
    vectors = [
        torch.where(blank[:, None], book.mean(0)[:, None, None], vector)
        for vector, blank, book in zip(vqvae.lookup(known), empty, vqvae.codebooks, strict=True)
    ]
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

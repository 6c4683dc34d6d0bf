"""What the page shows, computed: canvases, their frames, what priors expect, what pays.

A canvas is int16 (length,), codes and EMPTY; canvases are (n, length). What is shown of a canvas is
decoded by itself, not in a batch: the same codes are then the same pixels wherever they are shown.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from ral_env.layout import CodeLayout
from ral_env.nets import joint
from ral_env.viewer.sources import Nets, Source

COLDEST = 1e-6  # stands in for temperature 0, at which all probability is the likeliest code's


def sample(
    source: Source, nets: Nets, canvas: np.ndarray, count: int, seed: int, temperature: float
) -> np.ndarray:
    """``count`` canvases (count, length) whose EMPTY cells the priors have written.

    The noise is the seed's, whatever the priors are.
    """
    codes = np.broadcast_to(canvas.astype(np.int64), (count, source.layout.length))
    grids = source.layout.as_grids(codes)
    written = joint.sample(nets, grids, temperature, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    return source.layout.flatten(written).numpy().astype(np.int16)


def real(source: Source, number: int) -> np.ndarray:
    """The canvas of a real picture of the test split, counted around."""
    test = source.bundle.split("test")
    return np.asarray(test[number % len(test)]).astype(np.int16)


@torch.no_grad()
def log_probabilities(
    source: Source, nets: Nets, canvas: np.ndarray, temperature: float, level: int
) -> torch.Tensor:
    """What a level's prior expects in each cell, given the cells before it: (h, w, num_codes).

    EMPTY cells may follow; the levels above must be whole.
    """
    grids = source.layout.as_grids(canvas[None])
    grid = grids[level].masked_fill(grids[level] == source.layout.empty, 0)
    net: Any = nets[level]
    logits = net.logits(grid, grids[level - 1] if level else None)[0]
    return (logits / max(temperature, COLDEST)).log_softmax(-1)


def surprise(
    source: Source, nets: Nets, canvas: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of every cell of a finished canvas, in nats (length,): entropy before it, -log prob of it."""
    entropies, nats = [], []
    for level, grid in enumerate(source.layout.as_grids(canvas[None])):
        log_probs = log_probabilities(source, nets, canvas, temperature, level)
        entropies.append(torch.special.entr(log_probs.exp()).sum(-1).flatten())
        nats.append(-log_probs.gather(-1, grid[0, ..., None]).flatten())
    return torch.cat(entropies).numpy(), torch.cat(nats).numpy()


def expected(
    source: Source, nets: Nets, canvas: np.ndarray, cell: int, temperature: float
) -> np.ndarray:
    """The probability of each code in a cell, given the cells before it: (num_codes,)."""
    level, row, column = place(source.layout, cell)
    log_probs = log_probabilities(source, nets, canvas, temperature, level)
    return log_probs[row, column].exp().numpy()


def place(layout: CodeLayout, cell: int) -> tuple[int, int, int]:
    """Level, row and column of a cell."""
    level = next(i for i, cells in enumerate(layout.slices) if cell < cells.stop)
    return level, *divmod(cell - layout.slices[level].start, layout.levels[level][1])


def upto(layout: CodeLayout, canvas: np.ndarray, step: int) -> np.ndarray:
    """A canvas when only its first ``step`` cells have been written."""
    return np.where(np.arange(layout.length) < step, canvas, layout.empty).astype(np.int16)


def frame(source: Source, canvas: np.ndarray) -> np.ndarray:
    """A canvas as far as it is written, uint8 (S, S, 3)."""
    return source.painter.images(canvas[None], source.layout.rows)[0]


def patches(source: Source, canvas: np.ndarray, cell: int, codes: np.ndarray) -> list[np.ndarray]:
    """What each code would look like in a cell, with its neighbours: uint8 (H, W, 3) each.

    What follows the cell is not written. Of the picture the cell and one more to each side is cut
    out, less at its edges.
    """
    level, row, column = place(source.layout, cell)
    side = source.bundle.image_size // source.layout.levels[level][0]
    cut = []
    for code in codes:
        tried = upto(source.layout, canvas, cell)
        tried[cell] = code
        top, left = (max(0, at - 1) * side for at in (row, column))
        cut.append(frame(source, tried)[top : (row + 2) * side, left : (column + 2) * side])
    return cut


def palette(source: Source, level: int, above: int) -> np.ndarray:
    """Every code of a level by itself: uint8 (num_codes, H, W, 3), the size of a cell.

    A patch is the middle of a picture that holds nothing else; where there is a level above, that
    holds the code ``above`` everywhere, and unwritten finer cells are their mean beneath it.
    """
    layout = source.layout
    rows = min(3, layout.rows)
    side = source.bundle.image_size // layout.levels[level][0]
    canvases = np.full((layout.num_codes, layout.length), layout.outside, np.int16)
    for i, cells in enumerate(layout.slices):
        codes = np.arange(layout.num_codes) if i == level else above if i < level else layout.empty
        grid = np.broadcast_to(np.reshape(codes, (-1, 1)), canvases[:, cells].shape)
        canvases[:, cells] = np.where(layout.head(rows)[cells], grid, layout.outside)
    parts = np.array_split(canvases, -(-len(canvases) // 64))
    images = np.concatenate([source.painter.images(part, rows) for part in parts])
    top, left = (length // 2 // side * side for length in images.shape[1:3])
    return images[:, top : top + side, left : left + side]


def scores(source: Source, canvas: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The score map (h', w') of the first ``rows`` coarsest rows, and of each cell: (length,).

    Both are normalised, in [-1, 1], real is high; below those rows cells have 0. A finished
    canvas's reward is the mean of its map (Eq. 6), a cell's share of the intermediate reward is the
    cell's score (section 4.2).
    """
    layout, scorer = source.layout, source.scorer
    head = layout.head(rows)
    score_map = scorer.score(np.where(head, canvas, layout.outside)[None])
    cells = np.zeros(layout.length, np.float32)
    cells[head] = scorer.cell_scores(score_map, rows)[0].numpy()
    return score_map[0, 0].numpy(), cells


def rewards(source: Source, canvases: np.ndarray) -> np.ndarray:
    """What an agent is paid for finished canvases: float32 (n,), the mean of each score map."""
    return source.scorer.score(canvases).mean((1, 2, 3)).numpy()


def png(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 (H, W, 3)."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=1)
    return data.getvalue()


def npy(canvases: np.ndarray) -> bytes:
    """An npy file of canvases."""
    data = io.BytesIO()
    np.save(data, canvases)
    return data.getvalue()

"""Pictures as PNG files. Images are uint8 (N, 3, H, W), RGB.

Image grids are put together pixel by pixel (nearest neighbour, whole scales), so that nothing is
smoothed over. Bad shapes and dtypes are a ``ValueError``; missing folders are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # without pyplot: Agg, no display, no global state
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from ral_env.files import write_stream

FONT, TITLE = 15, 26  # pixels: text, and the strip above a grid that holds it
GAP = 16  # pixels between grids


def image_grid(
    images: ArrayLike, path: str | Path, columns: int = 8, scale: int = 4, pad: int = 2
) -> None:
    """Images in rows of ``columns``, enlarged ``scale`` times, ``pad`` white pixels apart."""
    _save(Image.fromarray(_grid(images, columns, scale, pad)), path)


def labelled_grids(
    grids: Mapping[str, ArrayLike],
    path: str | Path,
    columns: int = 4,
    scale: int = 3,
    pad: int = 2,
) -> None:
    """Several grids side by side, {title: images}, each as by ``image_grid``."""
    if not grids:
        raise ValueError("no grids, expected {title: images} with at least one title")
    font = ImageFont.load_default(FONT)
    drawn = {title: _grid(images, columns, scale, pad) for title, images in grids.items()}
    widths = [
        max(grid.shape[1], math.ceil(font.getlength(title)) + 2 * pad)
        for title, grid in drawn.items()
    ]
    height = TITLE + max(len(grid) for grid in drawn.values())
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(drawn) - 1), height), "white")
    pen, left = ImageDraw.Draw(sheet), 0
    for (title, grid), width in zip(drawn.items(), widths, strict=True):
        pen.text((left + pad, TITLE / 2), title, "black", font, anchor="lm")
        sheet.paste(Image.fromarray(grid), (left, TITLE))
        left += width + GAP
    _save(sheet, path)


def completions(
    originals: ArrayLike,
    masked: ArrayLike,
    completions: Sequence[ArrayLike],
    path: str | Path,
    scale: int = 4,
) -> None:
    """One example a line: the original, the rows of it that were given, and its completions.

    originals and masked (N, 3, H, W); each of ``completions`` too: one draw for all N examples.
    """
    drawn = {f"completion {i}": images for i, images in enumerate(completions, start=1)}
    grids = {"original": originals, "kept": masked, **drawn}
    shapes = {title: np.shape(images) for title, images in grids.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"shapes differ, expected one for all: {shapes}")
    labelled_grids(grids, path, columns=1, scale=scale)


def learning_curves(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: str | Path
) -> None:
    """Save :func:`curves_figure` as a PNG file."""
    write_stream(Path(path), curves_figure(rows, columns).savefig)


def curves_figure(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Figure:
    """One small panel per column, one line per ``row["label"]``, in the order given.

    Across: "seconds" if all rows have it, else "iteration". Rows may lack a column, or hold None
    or NaN there: the line joins those that have it. A column that no row has is an empty panel.
    """
    if not rows or not columns:
        raise ValueError(f"{len(rows)} rows and {len(columns)} columns, expected some of both")
    across = "seconds" if all("seconds" in row for row in rows) else "iteration"
    if not all(across in row for row in rows):
        raise ValueError("some rows lack 'seconds' and some 'iteration', expected one in all")
    labels = list(dict.fromkeys(row.get("label", "") for row in rows))
    wide = min(len(columns), 4)
    high = math.ceil(len(columns) / wide)
    figure = Figure(figsize=(max(3.2 * wide, 5), 2.4 * high + 0.5), dpi=120, layout="constrained")
    panels = figure.subplots(high, wide, squeeze=False).flat
    for column, panel in zip(columns, panels, strict=False):
        for i, label in enumerate(labels):
            labelled = [row for row in rows if row.get("label", "") == label]
            points = [(r[across], r[column]) for r in labelled if _is_number(r.get(column))]
            panel.plot(*zip(*points, strict=True) if points else ((), ()), color=f"C{i}", lw=1.2)
        panel.set_title(column, fontsize=10)
        panel.set_xlabel(across, fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(figure.axes)[len(columns) :]:
        panel.remove()
    if any(labels):
        figure.legend(
            figure.axes[0].lines, labels, loc="outside lower center", ncols=4, fontsize=8
        ).set_frame_on(False)
    return figure


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _grid(images: ArrayLike, columns: int, scale: int, pad: int) -> NDArray[np.uint8]:
    """(N, 3, H, W) -> (height, width, 3)."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != 3 or not images.size or images.dtype != np.uint8:
        raise ValueError(
            f"images are {images.dtype} {images.shape}, expected uint8 (N, 3, H, W), N >= 1"
        )
    if columns < 1 or scale < 1 or pad < 0:
        raise ValueError(
            f"columns={columns}, scale={scale}, pad={pad}, expected at least 1, 1 and 0"
        )
    large = images.repeat(scale, 2).repeat(scale, 3)
    count, _, height, width = large.shape
    columns = min(columns, count)
    lines = math.ceil(count / columns)
    sheet = np.full((pad + lines * (height + pad), pad + columns * (width + pad), 3), 255, np.uint8)
    for i, image in enumerate(large):
        line, column = divmod(i, columns)
        top, left = pad + line * (height + pad), pad + column * (width + pad)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet


def _save(image: Image.Image, path: str | Path) -> None:
    write_stream(Path(path), lambda stream: image.save(stream, "PNG"))

"""Pictures and tables of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  the backend comes first


def image_grid(images: np.ndarray, columns: int = 8, scale: int = 2, pad: int = 2) -> np.ndarray:
    """uint8 images (N, 3, H, W) side by side as one picture, uint8 (height, width, 3)."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    height, width = height * scale + pad, width * scale + pad
    picture = np.full((rows * height + pad, columns * width + pad, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height + pad, i % columns * width + pad
        large = image.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
        picture[top : top + height - pad, left : left + width - pad] = large
    return picture


def save_grid(images: np.ndarray, path: Path | str, columns: int = 8, scale: int = 3) -> None:
    """Write :func:`image_grid` as a PNG."""
    Image.fromarray(image_grid(images, columns, scale)).save(path)


def labelled_grids(grids: Mapping[str, np.ndarray], path: Path | str, columns: int = 8) -> None:
    """Several grids of uint8 images (N, 3, H, W), each under its title, as one PNG."""
    pictures = {title: image_grid(images, columns) for title, images in grids.items()}
    height, width = next(iter(pictures.values())).shape[:2]
    figure, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(4 * len(pictures), 4 * height / width + 0.3),
        layout="constrained",
        squeeze=False,
    )
    for axis, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def completions(
    originals: np.ndarray, masked: np.ndarray, completed: Sequence[np.ndarray], path: Path | str
) -> None:
    """A row an image: original, what was kept of it, completions. All uint8 (N, 3, H, W)."""
    table = np.stack([originals, masked, *completed], 1)  # (N, columns, 3, H, W)
    picture = image_grid(table.reshape(-1, *originals.shape[1:]), columns=table.shape[1], scale=3)
    titles = ["original", "kept", *[f"completion {i + 1}" for i in range(len(completed))]]
    height, width = picture.shape[:2]
    figure, axis = plt.subplots(figsize=(8, 8 * height / width + 0.4), layout="constrained")
    axis.imshow(picture, interpolation="nearest")
    step = width / len(titles)
    axis.set_xticks([step * (i + 0.5) for i in range(len(titles))], titles, fontsize=9)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def learning_curves(
    rows: Sequence[Mapping], columns: Sequence[str], path: Path | str, x: str = "seconds"
) -> None:
    """One panel a column, one line for each ``label`` of the rows. Missing figures are left out."""
    figure, axes = plt.subplots(
        1, len(columns), figsize=(3.4 * len(columns), 2.8), layout="constrained", squeeze=False
    )
    labels = list(dict.fromkeys(row["label"] for row in rows))
    for axis, column in zip(axes[0], columns, strict=True):
        for number, label in enumerate(labels):
            points = [(r[x], r[column]) for r in rows if r["label"] == label and column in r]
            if points:
                axis.plot(*zip(*points, strict=True), color=f"C{number}", label=label, lw=1.2)
        axis.set_title(column, fontsize=10)
        axis.set_xlabel(x, fontsize=9)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    handles = [plt.Line2D([], [], color=f"C{n}", label=label) for n, label in enumerate(labels)]
    axes[0][0].legend(handles=handles, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def markdown_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    """Rows of text as a Markdown table whose columns line up. Missing cells are empty."""
    cells = [list(columns), *[[str(row.get(c, "")) for c in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    left, *numbers = widths
    rule = ["-" * left, *["-" * (w - 1) + ":" for w in numbers]]
    lines = [
        "| " + " | ".join([line[0].ljust(left), *map(str.rjust, line[1:], numbers)]) + " |"
        for line in (cells[0], rule, *cells[1:])
    ]
    return "\n".join(lines)

"""How every drawn picture of the docs looks: colours, fonts, and a canvas of codes.

The colours are Okabe and Ito's, which stay apart for colour-blind readers; what lines and bars mean
is told by markers, dashes and hatches too, so that a print in grey can be read. Codes are coloured
by one scale that only grows lighter, and carry their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ral_env.bundle import Bundle
from ral_env.nets import represent

matplotlib.use("Agg")

INK, GREY, PALE = "#1a1a1a", "#7a7a7a", "#ededed"
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
# As docs.mplstyle has them, for calls that take a look.
LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
    {"color": INK, "linestyle": ":", "marker": "^"},
    {"color": GREEN, "linestyle": "-.", "marker": "D"},
)
LOOK = str(Path(__file__).with_name("docs.mplstyle"))
WIDTH = 8.0  # inches of every picture


def figure(
    height: float, columns: int = 1, rows: int = 1, **grid: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of the docs' width, and its axes (rows, columns)."""
    matplotlib.style.use(LOOK)
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False, gridspec_kw=grid or None)
    return made, axes


def save(made: Figure | Image.Image, file: Path) -> None:
    """Write a PNG that depends on what was drawn alone."""
    if isinstance(made, Image.Image):
        made.save(file, optimize=True)
    else:
        made.savefig(file, metadata={"Software": None})


Pictures = Mapping[str, Callable[[], Figure | Image.Image]]  # what draws each, by its name


def write(pictures: Pictures, folder: Path, names: Sequence[str] = ()) -> None:
    """Draw the named pictures, or all of them, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or pictures:
        save(pictures[name](), folder / f"{name}.png")
        print(folder / f"{name}.png")


def write_asked(pictures: Pictures, folder: Path, words: Sequence[str]) -> None:
    """The same as a command's words ask for: names, and a folder in the given one's place."""
    others = [word for word in words if word not in pictures]
    names = [word for word in words if word in pictures]
    write(pictures, Path(others[0]) if others else folder, names)


def lightness(bundle: Bundle) -> np.ndarray:
    """Of every code (num_codes,), 0 to 1: how light its decoded cell is beside the others' ranks.

    A canvas that is filled with one code alone is decoded for each, and the coarsest level counts.
    """
    layout = bundle.layout
    codes = torch.arange(layout.num_codes)
    grids = [codes[:, None, None].expand(-1, h, w).contiguous() for h, w in layout.levels]
    with torch.no_grad():
        images = represent(bundle.vqvae, grids, "image")
    light = images.mean((1, 2, 3)).numpy()
    ranks = np.empty(len(light))
    ranks[light.argsort()] = np.linspace(0, 1, len(light))
    return ranks


def draw_canvas(
    axes: Axes,
    codes: np.ndarray,
    bundle: Bundle,
    light: np.ndarray,
    *,
    real: np.ndarray | None = None,
    last: tuple[int, int] | None = None,
    numbers: bool = True,
    size: float = 6,
) -> None:
    """Draw a grid of codes (h, w): numbers on shades; EMPTY is blank, OUTSIDE is crossed out.

    Args:
        light: that of :func:`lightness`.
        real: bool (h, w), cells that were given: they get a blue bar at their left.
        last: (row, column) of a cell to frame.
        numbers: whether codes are written into their cells.
        size: of those numbers, in points.
    """
    layout, (height, width) = bundle.layout, codes.shape
    scale = matplotlib.colormaps["cividis"]
    axes.set(
        xlim=(-0.06, width + 0.06),
        ylim=(height + 0.06, -0.06),
        aspect="equal",
        xticks=[],
        yticks=[],
    )
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (row, column), code in np.ndenumerate(codes):
        look: dict[str, Any] = {"facecolor": "white", "edgecolor": "#c4c4c4", "linewidth": 0.5}
        if code == layout.outside:
            look |= {"facecolor": PALE, "hatch": "xxxx", "edgecolor": "#b4b4b4"}
        elif code != layout.empty:
            look["facecolor"] = scale(light[code])
        axes.add_patch(Rectangle((column, row), 1, 1, **look))
        if code < layout.num_codes:
            if numbers:
                ink = "white" if light[code] < 0.5 else INK
                place = (column + 0.5, row + 0.54)
                axes.text(*place, str(code), ha="center", va="center", fontsize=size, color=ink)
            if real is not None and real[row, column]:
                axes.add_patch(Rectangle((column, row), 0.16, 1, facecolor=BLUE, linewidth=0))
    if last is not None:
        frame = {"fill": False, "edgecolor": RED, "linewidth": 2, "zorder": 5}
        axes.add_patch(Rectangle((last[1], last[0]), 1, 1, **frame))


def draw_picture(axes: Axes, image: np.ndarray, title: str = "", **style: Any) -> None:
    """Show an image (H, W, 3) without axes; uint8, or one that ``style`` maps to colours."""
    axes.imshow(image, interpolation="nearest", **style)
    axes.set(xticks=[], yticks=[], title=title)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_bars(
    axes: Axes, values: Sequence[float], color: str = BLUE, hatch: str | None = None
) -> None:
    """Bars from 0, one a step of an episode, counted from 1."""
    axes.bar(
        np.arange(1, len(values) + 1), values, width=1.0, color=color, hatch=hatch,
        edgecolor="white", linewidth=0.2,
    )  # fmt: skip
    axes.axhline(0, color=GREY, linewidth=0.8)

"""Draw the pictures that result pages open with: ``python docs/claims.py [FOLDER] [NAME ...]``.

Nothing is measured here. Numbers are those of the page's own tables, of docs/curves, or of
``ral_env/reference_scores.json``, so a picture cannot say anything else than its page. An id's
picture has the id's name.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
from matplotlib.axes import Axes

sys.path.insert(0, str(Path(__file__).parent))

import style
from style import BLUE, GREEN, GREY, INK, LINES, ORANGE

from benchmarks import hacking
from ral_env import reference

DOCS = Path(__file__).parent
FOLDER = DOCS / "claims"
# Colour and shape of each reference row.
LOOKS: dict[str, dict[str, Any]] = {
    reference.TRAIN: {"color": INK, "marker": "D"},
    "RAL": {"color": GREEN, "marker": "^"},
    reference.PRIOR: {"color": BLUE, "marker": "o"},
    "random codes": {"color": ORANGE, "marker": "s"},
}


class Value(NamedTuple):
    """A number of a table with the ends of its interval, which are the number where it has none."""

    value: float
    low: float
    high: float


def value(cell: str) -> Value:
    """What a cell says: ``-1.9 ± 1.3``, ``-2.1 [-3.2, -0.8]`` or ``9.3``; more may follow.

    Raises:
        ValueError: If it begins with no number.
    """
    found = re.match(r"\s*([-+]?\d*\.?\d+)(?: ± ([\d.]+)| \[(\S+), (\S+)\])?", cell)
    if found is None:
        raise ValueError(f"{cell!r} begins with no number: expected one, as in '-1.9 ± 1.3'")
    number, half, low, high = found.groups()
    middle = float(number)
    if half:
        return Value(middle, middle - float(half), middle + float(half))
    return Value(middle, float(low or middle), float(high or middle))


def tables(page: str) -> list[list[dict[str, str]]]:
    """The tables of a page of the docs, in its order: a dict a row, by the head's words.

    Words are without their marks of code. The first column, where it has no head, is "".
    """
    found, block = [], []
    for line in [*(DOCS / page).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip(" `") for cell in line.strip().strip("|").split("|")])
        elif block:
            head, *rows = block
            if rows:  # else a line of text that begins with a bar
                found.append([dict(zip(head, row, strict=True)) for row in rows[1:]])
            block = []
    return found


def draw_differences(axes: Axes, rows: Mapping[str, Value], label: str, title: str) -> None:
    """Dots with intervals, a row each, and a line at 0."""
    axes.axvline(0, color=GREY, linewidth=0.8)
    for place, (name, one) in enumerate(rows.items()):
        rewarded = name.startswith("RAL") and "no reward" not in name
        ends = [[one.value - one.low], [one.high - one.value]]
        color, marker = (BLUE, "o") if rewarded else (INK, "s")
        axes.errorbar(one.value, place, xerr=ends, capsize=3, color=color, fmt=marker)
    axes.set(yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.4, -0.6),
             xlabel=label, title=title)  # fmt: skip
    axes.grid(axis="y", visible=False)


def results() -> Any:
    """What RAL differs by from as much more likelihood at equal entropy, on three sets."""
    digits, mnist, _, oracle = tables("results.md")  # the third shows samples
    kept = ("MLE prior", "RAL loop, no reward", "RAL")
    made, axes = style.figure(2.1, 3)
    for axis, rows, title in ((axes[0, 0], digits, "digits: nearer"),
                              (axes[0, 1], mnist, "MNIST: no clear gain")):  # fmt: skip
        named = {row["row"]: value(row["FD - control"]) for row in rows if row["row"] in kept}
        draw_differences(axis, named, "Fréchet distance", title)
    short = {row[""].partition(" (")[0]: value(row["reverse KL, nats"]) for row in oracle}
    short = {name.replace(" with an entropy bonus", ", entropy bonus"): found
             for name, found in reversed(short.items())}  # fmt: skip
    draw_differences(axes[0, 2], short, "reverse KL, nats", "truth known: nearer")
    axes[0, 1].set_yticklabels([])
    return made


def measures() -> Any:
    """Real digits and the prior's by each figure: recall alone would prefer the prior."""
    rows = reference.scores()["RALDigits-v0"]["rows"]
    figures = ("precision", "recall", "density", "coverage")
    made, axes = style.figure(1.9)
    axis = axes[0, 0]
    for place, figure in enumerate(figures):
        ends = [rows[name][figure] for name in (reference.PRIOR, reference.TRAIN)]
        axis.plot(ends, [place, place], color=GREY, linewidth=1, linestyle="-", marker="", zorder=1)
        for name in (reference.PRIOR, reference.TRAIN):
            axis.plot(rows[name][figure], place, linestyle="", **LOOKS[name],
                      label=name if not place else None)  # fmt: skip
    axis.set(yticks=range(len(figures)), yticklabels=figures, ylim=(3.5, -0.5),
             xlim=(0, None), title="digits: recall alone prefers the prior")  # fmt: skip
    axis.grid(axis="y", visible=False)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return made


def rounds() -> Any:
    """How near rounds come, and what the discriminator sees from round to round."""
    arms, course, *_ = (t for t in tables("rounds.md") if "precision" in t[0] or "ess" in t[0])
    made, axes = style.figure(2.3, 2, width_ratios=(1.4, 1))
    left, right = axes[0]
    column = "Fréchet distance, test / validation"
    for place, row in enumerate(arms):
        both = [value(part).value for part in row[column].split("/")]
        for i, (found, split) in enumerate(zip(both, ("test", "validation"), strict=True)):
            look = {**LINES[i], "linestyle": ""}
            left.plot(found, place, label=None if place else split, **look)
    names = [row[""].replace(" by the bundle's discriminator", "")
             .replace(" by their discriminator", "") for row in arms]  # fmt: skip
    left.set(yticks=range(len(arms)), yticklabels=names, ylim=(len(arms) - 0.5, -0.5),
             xlim=(0, None), xlabel="Fréchet distance", title="nearer to reals...")  # fmt: skip
    left.grid(axis="y", visible=False)
    left.legend()
    learnt = course[1:]  # row 0 is the prior
    at = [int(row["round"]) for row in learnt]
    for name, look, label in (("auc", LINES[0], "AUC"), ("ess", LINES[1], "effective samples")):
        right.plot(at, [float(row[name]) for row in learnt], label=label, **look)
    right.set(xticks=at, xlabel="round", ylim=(0, 1), title="...as less is left to see")
    right.legend(loc="lower right")
    return made


def agents() -> Any:
    """Learning curves of all seeds, against a discriminator that learns and one that does not."""
    with (DOCS / "curves" / "hacking.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row | {"iteration": int(row["iteration"]),
                       **{name: float(row[name]) for name in hacking.PANELS if name in row}}
                for row in csv.DictReader(stream)]  # fmt: skip
    matplotlib.style.use(style.LOOK)
    return hacking.figure(rows, "RALDigits-v0")


def scores(env: str) -> Any:
    """What an id's reference rows reach: FD on a scale of ratios, and coverage."""
    rows = {name: row for name, row in reference.scores()[env]["rows"].items() if "fd" in row}
    order = [name for name in LOOKS if name in rows]
    made, axes = style.figure(0.75 + 0.24 * len(order), 2)
    for axis, figure, label in zip(
        axes[0], ("fd", "coverage"),
        ("Fréchet distance: left is better", "coverage: right is better"), strict=True,
    ):  # fmt: skip
        for place, name in enumerate(order):
            axis.plot(rows[name][figure], place, linestyle="", markersize=6, **LOOKS[name])
            axis.annotate(f"{rows[name][figure]:.3g}", (rows[name][figure], place), fontsize=8,
                          xytext=(7, -3), textcoords="offset points")  # fmt: skip
        axis.set(yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.5, -0.5),
                 xlabel=label)  # fmt: skip
        axis.grid(axis="y", visible=False)
    axes[0, 1].set_yticklabels([])
    axes[0, 0].set_xscale("log")
    axes[0, 0].margins(x=0.2)
    axes[0, 1].set_xlim(0, 1.15)
    return made


def measured() -> list[str]:
    """The ids whose reference scores have distances."""
    found = reference.scores()
    return [env for env, one in found.items() if "fd" in one["rows"][reference.PRIOR]]


PICTURES: dict[str, Callable[[], Any]] = {
    "results": results, "measures": measures, "rounds": rounds, "agents": agents,
    **{env: partial(scores, env) for env in measured()},
}  # fmt: skip


if __name__ == "__main__":
    style.write_asked(PICTURES, FOLDER, sys.argv[1:])

"""The picture of frontiers: precision by coverage, and Fréchet distance by forward NLL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure  # without pyplot: no display, no global state

from agents.evaluation.frontier import Frontier
from agents.training.files import Row
from ral_env.files import write_stream

# Each panel's figures across and up, and where better is.
PANELS = (
    ("coverage", "precision", "upper right is better"),
    ("forward_nll", "fd", "lower left is better"),
)
LABELS = {
    "forward_nll": "forward NLL, nats per canvas",
    "fd": "Fréchet distance",
}


def save(
    frontiers: Mapping[str, Frontier],
    path: str | Path,
    real: Row | None = None,
    bound: float = float("inf"),
) -> None:
    """Save :func:`figure` as a PNG file; missing folders are made."""
    write_stream(Path(path), figure(frontiers, real, bound).savefig)


def figure(
    frontiers: Mapping[str, Frontier], real: Row | None = None, bound: float = float("inf")
) -> Figure:
    """A line for each frontier, through its temperatures in the order of its sweep.

    Args:
        frontiers: By label, one or more.
        real: Figures of real canvases, which are drawn as a star, or a line where they have no NLL.
        bound: The chosen temperature is ringed; see :meth:`Frontier.chosen`.
    """
    made = Figure(figsize=(9, 4.2), dpi=120, layout="constrained")
    for panel, (across, up, better) in zip(made.subplots(1, 2), PANELS, strict=True):
        for i, frontier in enumerate(frontiers.values()):
            points = [(p.figures[across], p.figures[up]) for p in frontier.points]
            panel.plot(*zip(*points, strict=True), "o-", color=f"C{i}", ms=4, lw=1.2)
            for index in {0, len(points) - 1}:
                panel.annotate(
                    f"{frontier.points[index].temperature:g}", points[index], fontsize=7,
                    xytext=(4, 4), textcoords="offset points", color=f"C{i}",
                )  # fmt: skip
            chosen = frontier.chosen(bound).figures
            panel.plot(chosen[across], chosen[up], "o", ms=10, mfc="none", mec=f"C{i}", mew=1.2)
        if real and across in real:
            panel.plot(real[across], real[up], "*", color="black", ms=10)
            panel.annotate("real", (real[across], real[up]), fontsize=8, xytext=(-26, -3),
                           textcoords="offset points")  # fmt: skip
        elif real:
            panel.axhline(real[up], color="black", lw=0.8, ls=":")
        panel.set_xlabel(LABELS.get(across, across), fontsize=9)
        panel.set_ylabel(LABELS.get(up, up), fontsize=9)
        panel.set_title(better, fontsize=8, loc="left")
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    lines = list(made.axes[0].lines)[: 2 * len(frontiers) : 2]
    made.legend(
        lines, list(frontiers), loc="outside lower center", ncols=3, fontsize=8
    ).set_frame_on(False)
    return made

"""The leaderboard's tables, text and figure, made of results alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # without pyplot: no display, no global state

from agents.evaluation.evaluator import headings
from agents.evaluation.metrics import interval
from benchmarks.leaderboard.entries import ENTRIES
from benchmarks.leaderboard.results import Record
from ral_env.files import write_stream
from ral_env.tables import markdown_table

BLUE, INK = "#0072B2", "#1a1a1a"  # of all pictures of the docs
# Figures and their decimals; those that no run of an environment has are left out.
COLUMNS = {
    "score": 3, "judge_auc": 3, "fd": 2, "fd_selfsupervised": 2, "precision": 3, "recall": 3,
    "density": 3, "coverage": 3, "area": 3, "entropy": 1, "forward_nll": 1, "reverse_kl": 2,
    "forward_kl": 2, "temperature": 2, "canvases": 0, "seconds": 0,
}  # fmt: skip


def table(records: Sequence[Record]) -> str:
    """A line for each entry, nearest to real canvases first: means over seeds, ± half of the 95 %
    Student-t interval where there are two seeds or more."""
    by_entry = grouped(records)
    columns = [name for name in COLUMNS if any(name in record for record in records)]
    lines = []
    for entry, runs in by_entry.items():
        cells = {name: _cell([run.get(name) for run in runs], COLUMNS[name]) for name in columns}
        lines.append({"entry": entry, "seeds": str(len(runs))} | cells)
    return markdown_table(lines, ["entry", "seeds", *columns], headings(columns))


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Runs by entry, that of the least mean FD first."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["entry"], []).append(record)
    return dict(sorted(found.items(), key=lambda item: _mean_fd(item[1])))


def _mean_fd(runs: Sequence[Record]) -> float:
    return float(np.mean([run.get("fd", np.inf) for run in runs]))


def _cell(values: Sequence[Any], digits: int) -> str:
    if any(value is None for value in values):
        return ""
    if len(values) == 1 or np.ptp(values) == 0:
        return f"{values[0]:,.{digits}f}"
    mean, half = interval(list(values))
    return f"{mean:,.{digits}f} ± {half:,.{digits}f}"


def text(env: str, records: Sequence[Record]) -> str:
    """An environment's part of the page; its figure opens the page."""
    editions = sorted({record["bundle"] for record in records})
    commits = sorted({record["commit"] for record in records if record.get("commit")})
    budgets = sorted({record["budget"] for record in records if record["budget"]})
    seeds = max(len(runs) for runs in grouped(records).values())
    counts = sorted({int(record["samples"]) for record in records})
    versions = json.loads(records[0]["versions"])
    facts = (
        f"Bundle {', '.join(editions)}; {' and '.join(f'{b:g}' for b in budgets)} processor "
        f"seconds of training a run, {seeds} {'seed' if seeds == 1 else 'seeds'}, "
        f"{' and '.join(f'{c:,}' for c in counts)} samples against the test split; torch "
        f"{versions['torch']}, commit {', '.join(commits) or 'unknown'}."
    )
    return "\n\n".join([f"## {env}", facts, table(records)])


def entries_text() -> str:
    """What each entry is, as a list."""
    return "\n".join(f"- **{entry.name}**: {entry.about}." for entry in ENTRIES.values())


def figure(records: Sequence[Record], env: str) -> Figure:
    """FD and coverage of each entry, a dot a seed, nearest to real canvases on top."""
    groups = {entry: runs for entry, runs in grouped(records).items() if "fd" in runs[0]}
    made = Figure(figsize=(8.5, 1.1 + 0.26 * len(groups)), dpi=110, layout="constrained")
    panels = made.subplots(1, 2, sharey=True)
    for panel, name, better in zip(panels, ("fd", "coverage"), ("left", "right"), strict=True):
        for place, runs in enumerate(groups.values()):
            values = [run[name] for run in runs]
            learns = ENTRIES[runs[0]["entry"]].learns if runs[0]["entry"] in ENTRIES else True
            style = {"color": BLUE if learns else INK, "ms": 5, "alpha": 0.8}
            panel.plot(values, [place] * len(values), "o" if learns else "D", **style)
        panel.set_yticks(range(len(groups)), list(groups), fontsize=8)
        label = "Fréchet distance" if name == "fd" else name
        panel.set_xlabel(f"{label}; {better} is better", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    panels[0].set_xscale("log")
    made.suptitle(env, fontsize=10)
    return made


def save_figure(records: Sequence[Record], env: str, file: Path) -> None:
    """Write :func:`figure` as a PNG file."""
    made = figure(records, env)
    write_stream(
        file, lambda stream: made.savefig(stream, format="png", metadata={"Software": None})
    )

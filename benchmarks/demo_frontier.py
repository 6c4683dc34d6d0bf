"""The demo's frontier: what every arm reaches at all temperatures, chosen and reported apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.evaluation import frontier, frontier_picture
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.evaluation.frontier import Frontier
from agents.training.files import Row

SAMPLES = 1000  # at each temperature
COLUMNS = (
    "temperature", "fd", "precision", "coverage", "forward_nll", "area", "area_minus_control",
)  # fmt: skip


def sweep(
    evaluator: Evaluator, priors: Mapping[str, TemperedPrior], seed: int
) -> dict[str, Frontier]:
    """Each prior at all temperatures, by its label; whatever temperature it comes with."""
    tuning = Evaluator(evaluator.bundle, evaluator.batches, evaluator.bundle.tuning_split)
    return {
        label: frontier.sweep(prior.priors, evaluator, tuning, count=SAMPLES, seed=seed + 2000)
        for label, prior in priors.items()
    }


def rows(frontiers: Mapping[str, Frontier], control: str) -> list[dict[str, Any]]:
    """A row for each frontier, at the temperature chosen on the tuning split.

    All have the same bound on the forward NLL there, of the first one's.

    Args:
        frontiers: By label; the first is the MLE prior's.
        control: Label of the frontier that areas are compared with.

    Returns:
        ``row``, the label; figures; and as (value, low, high) ``area`` and, of all but the control,
        ``area_minus_control``.
    """
    bound = _bound(frontiers)
    made = []
    for label, row in frontier.rows(frontiers, bound).items():
        area = (row["area"], row["area_low"], row["area_high"])
        made.append({"row": label, **row, "area": area})
        if label != control:
            found = frontiers[label].area_minus(frontiers[control])
            made[-1]["area_minus_control"] = dataclasses.astuple(found)
    return made


def picture(frontiers: Mapping[str, Frontier], real: Row, path: Path) -> None:
    """Save the frontiers' curves as a PNG file, with the figures of real canvases."""
    frontier_picture.save(frontiers, path, real, _bound(frontiers))


def _bound(frontiers: Mapping[str, Frontier]) -> float:
    """Largest forward NLL on the tuning split that a chosen temperature may have, nats."""
    return frontier.NLL_BOUND * next(iter(frontiers.values())).least_nll

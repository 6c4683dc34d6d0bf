"""Reference scores of every environment id, which `ral bench scores` measures. Loads nothing else.

The file beside this one holds them: for each id, the bundle that it ran on, the command, and rows
of figures by label. :mod:`agents.evaluation.evaluator` says what the figures are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("reference_scores.json")
REAL = "real, test split"  # the row whose return is the threshold
TRAIN = "real, training split"  # what a perfect sampler would score against the test split
PRIOR = "MLE prior"


def scores() -> dict[str, dict[str, Any]]:
    """What was measured, by id; ids that have not been measured are not there."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def reward_threshold(measured: dict[str, Any] | None) -> float | None:
    """The mean return of real canvases that no net was trained on, rounded to three decimals.

    Gymnasium calls an environment solved at ``env.spec.reward_threshold``. It is of the default
    reward ("single"), full starts and the bundle that was measured. A policy that writes what real
    canvases are gets it; one that exploits the discriminator gets more, as in some ids random codes
    do, which no discriminator was trained on.

    Args:
        measured: what :func:`scores` has of an id; None if it has nothing.
    """
    return None if measured is None else round(measured["rows"][REAL]["return"], 3)

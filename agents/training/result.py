"""What the training of a policy gives back to who called it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from torch import nn

from agents.training.files import Row


@dataclass
class Result:
    """What a run leaves.

    Args:
        policies: one a level, top first; their running averages, where there are such.
        discriminator: as it is at the end.
        history: the rows of progress.csv.
        seconds: that it took, those before it was cut included.
        interrupted: the signal that stopped it before its end, or None.
    """

    policies: list[Any]
    discriminator: nn.Module
    history: list[Row]
    seconds: float
    interrupted: signal.Signals | None = None

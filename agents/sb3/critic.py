"""The critic: a small head on the actor's features, with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def value_head(features: int, hidden: int) -> nn.Sequential:
    """Maps the actor's features (N, features) to values (N, 1), which are 0 at first."""
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    # The features' scale is the actor's affair: the critic sees them normalised.
    return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, hidden), nn.Tanh(), last)


def multiply_learning_rate(optimizer: torch.optim.Optimizer, group: int, factor: float) -> None:
    """Let one group of parameters learn ``factor`` times as fast as the learning rate it is given.

    SB3 sets one learning rate for all groups before each update: the group's own holds while a
    step is taken. Copies of an optimiser leave this behind.
    """

    def multiply(by: float) -> Callable[..., None]:
        def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            optimizer.param_groups[group]["lr"] *= by

        return hook

    optimizer.register_step_pre_hook(multiply(factor))
    optimizer.register_step_post_hook(multiply(1 / factor))

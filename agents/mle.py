"""Maximum likelihood for a prior: the stage before RL, and the control arm beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ral_env.layout import CodeLayout
from ral_env.nets import PixelCNN


@dataclass(frozen=True)
class MLETraining:
    """How a prior learns by maximum likelihood.

    Args:
        steps: updates at most.
        batch: canvases an update.
        learning_rate: of Adam; constant, or cosine to a tenth if ``decay``.
        decay: whether the learning rate falls.
        weight_decay: of AdamW.
        ema: decay of the running average of the weights that is validated and kept; 0 is none.
        validate_every: updates between validations.
        patience: validations without a new best before it stops; 0 never stops early.
    """

    steps: int = 10_000
    batch: int = 128
    learning_rate: float = 1e-3
    decay: bool = True
    weight_decay: float = 0.0
    ema: float = 0.0
    validate_every: int = 200
    patience: int = 0


def as_grids(layout: CodeLayout, flat: np.ndarray) -> list[Tensor]:
    """Stored codes (N, length) of any integer dtype to int64 grids (N, h, w), one a level."""
    return layout.unflatten(torch.from_numpy(np.array(flat, dtype=np.int64)))


@torch.no_grad()
def mean_nll(
    prior: PixelCNN, codes: Tensor, condition: Tensor | None = None, batch: int | None = None
) -> float:
    """Nats per canvas of codes (N, h, w) under a level's prior."""
    prior.eval()
    size = batch or max(8, 2**15 // codes[0].numel())
    total = 0.0
    for first in range(0, len(codes), size):
        part = slice(first, first + size)
        above = None if condition is None else condition[part]
        total -= prior.log_prob(codes[part], above).sum().item()
    return total / len(codes)


def average_into(average: torch.nn.Module, net: torch.nn.Module, decay: float) -> None:
    """Move every tensor of ``average`` towards that of ``net`` by 1 - decay."""
    with torch.no_grad():
        for mine, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            mine.lerp_(new, 1 - decay) if mine.is_floating_point() else mine.copy_(new)


def fit(
    prior: PixelCNN,
    train: Tensor,
    validation: Tensor,
    training: MLETraining,
    seed: int = 0,
    seconds: float | None = None,
    log: Callable[[dict[str, float]], None] | None = None,
    conditions: tuple[Tensor, Tensor] | None = None,
) -> list[dict[str, float]]:
    """Train in place and leave the weights that were best on the validation codes.

    Args:
        prior: the net, changed in place, in eval mode afterwards.
        train, validation: int64 codes (N, h, w).
        conditions: for a finer level, the train and validation codes of the level above.
        seconds: stop after this much time, validation included, if it comes before ``steps``.
        log: called with each row of the history as it is made.

    Returns:
        Rows of ``step``, ``seconds``, ``train_nats_per_code`` (mean since the last row) and
        ``validation_nats_per_code``. The first row is the prior as it came.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        prior.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            0.55 + 0.45 * np.cos(np.pi * min(step / training.steps, 1)) if training.decay else 1.0
        ),
    )
    cells = train[0].numel()
    above = conditions or (None, None)
    averaged = PixelCNN(prior.config)
    averaged.load_state_dict(prior.state_dict())
    history: list[dict[str, float]] = []
    best, best_state = np.inf, {}
    start, losses, since_best, step = time.perf_counter(), [], 0, 0
    while True:
        elapsed = time.perf_counter() - start
        finished = step >= training.steps or (seconds is not None and elapsed >= seconds)
        if step % training.validate_every == 0 or finished:
            candidate = averaged if training.ema else prior
            row = {
                "step": step,
                "seconds": elapsed,
                "train_nats_per_code": float(np.mean(losses)) if losses else float("nan"),
                "validation_nats_per_code": mean_nll(candidate, validation, above[1]) / cells,
            }
            losses.clear()
            history.append(row)
            if log:
                log(row)
            since_best += 1
            if row["validation_nats_per_code"] < best:
                best, since_best = row["validation_nats_per_code"], 0
                best_state = {k: v.clone() for k, v in candidate.state_dict().items()}
            finished |= bool(training.patience) and since_best >= training.patience
        if finished:
            break
        prior.train()
        index = torch.randint(len(train), (training.batch,), generator=generator)
        condition = None if above[0] is None else above[0][index]
        loss = prior.compute_loss(train[index], condition)["nats_per_code"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        step += 1
        if training.ema:
            # A short memory at first, so that the average does not carry the random start.
            average_into(averaged, prior, min(training.ema, step / (step + 10)))
    prior.load_state_dict(best_state)
    prior.eval()
    return history

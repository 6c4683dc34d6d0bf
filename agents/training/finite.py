"""Training that has diverged stops: no loss, gradient or weight may be infinite or NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


class NotFiniteError(ValueError):
    """A loss, gradient or weight is infinite or NaN. Nothing that was saved before is touched."""


def check_losses(losses: Mapping[str, Tensor], what: str, remedy: str) -> None:
    """Refuse named losses whose sum is not finite.

    Args:
        what: what they are of, for the message: ``the discriminator's``.
        remedy: what to do about it, for the message.

    Raises:
        NotFiniteError: names each of them.
    """
    if not torch.isfinite(torch.stack([loss.sum() for loss in losses.values()]).sum()):
        found = {name: loss.sum().item() for name, loss in losses.items()}
        raise NotFiniteError(f"{what} loss is not finite: {found}; {remedy}")


def step(net: nn.Module, optimizer: torch.optim.Optimizer, what: str, remedy: str) -> None:
    """An optimiser's step along finite gradients (all processes' mean), to finite weights.

    Args:
        net: what learns; its gradients are there.
        what, remedy: as of :func:`check_losses`.

    Raises:
        NotFiniteError: if a gradient is not finite; the weights are as before. Or if the weights
            are not finite after the step.
    """
    weights = list(net.parameters())
    gradients = [p.grad for p in weights if p.grad is not None]
    if not torch.isfinite(get_total_norm(gradients)):
        raise NotFiniteError(f"{what} gradient is not finite; {remedy}")
    optimizer.step()
    check_weights(net, what, remedy)


def check_weights(net: nn.Module, what: str, remedy: str) -> None:
    """Refuse a net whose weights are not finite; arguments as of :func:`check_losses`.

    Raises:
        NotFiniteError: if they are not.
    """
    if not torch.isfinite(get_total_norm([p.detach() for p in net.parameters()])):
        raise NotFiniteError(f"{what} weights are not finite after a step; {remedy}")


@contextmanager
def naming_last_good(file: Path | None) -> Iterator[None]:
    """Let the error of training that diverges within say where its last good state is.

    Args:
        file: the checkpoint, if there is one.
    """
    try:
        yield
    except NotFiniteError as error:
        if file is None or not file.exists():
            raise
        raise NotFiniteError(f"{error}. The last good state is kept: {file}") from error

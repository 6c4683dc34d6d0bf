"""One discriminator update, used by everybody who trains one. Real is high, always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.training.processes import Processes


@dataclass(frozen=True)
class DiscriminatorTraining:
    """How a discriminator learns. The defaults are the paper's (section 4.4).

    Args:
        loss: ``wgan-gp`` is Eq. 5; with ``logistic`` the score estimates a log density ratio;
            ``hinge`` stops at a margin (Lim & Ye 2017, arXiv 1705.02894).
        learning_rate: of Adam.
        betas: of Adam.
        gradient_penalty: weight of Eq. 5's last term (wgan-gp only).
        r1: weight of the squared gradient norm on real inputs (logistic and hinge; Mescheder et
            al. 2018, arXiv 1801.04406).
        shift: augmentation: move inputs by up to this many cells, zeros come in.
        drop: augmentation: zero this share of the cells.
    """

    loss: Literal["wgan-gp", "logistic", "hinge"] = "wgan-gp"
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    gradient_penalty: float = 10.0
    r1: float = 0.0
    shift: int = 0
    drop: float = 0.0


def scores(net: nn.Module, inputs: Tensor) -> Tensor:
    """D(x), the mean of the score map (Eq. 6): (B,)."""
    return net(inputs).mean((1, 2, 3))


def auc(real: Tensor, fake: Tensor) -> float:
    """Chance that a real input scores above a fake one; ties count half. 0.5 is blind.

    Args:
        real, fake: scores, (N,) and (M,).
    """
    both = torch.cat([real, fake]).double()
    _, inverse, counts = both.unique(return_inverse=True, return_counts=True)
    # Mean rank of each group of ties, from 1; the Mann-Whitney U of the real ones follows.
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse]
    u = ranks[: len(real)].sum() - len(real) * (len(real) + 1) / 2
    return (u / (len(real) * len(fake))).item()


def wgan_gp_loss(
    net: nn.Module, real: Tensor, fake: Tensor, share: Tensor, weight: float
) -> dict[str, Tensor]:
    """Eq. 5. ``real`` and ``fake`` are inputs of the same shape (B, C, H, W); ``share`` in [0, 1],
    (B, 1, 1, 1), is where between the two the gradient's norm is looked at."""
    wasserstein = scores(net, fake).mean() - scores(net, real).mean()
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(scores(net, between).sum(), between, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return {"wasserstein": wasserstein, "gradient_penalty": weight * penalty}


def logistic_loss(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of real against fake scores (B,); at its minimum a score is
    log p(real) / p(fake)."""
    return {"cross_entropy": F.softplus(-real).mean() + F.softplus(fake).mean()}


def hinge_loss(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Scores (B,) are pushed apart until the real ones are above 1 and the fake ones below -1."""
    return {"hinge": F.relu(1 - real).mean() + F.relu(1 + fake).mean()}


def with_r1(
    loss: Callable[[Tensor, Tensor], dict[str, Tensor]],
    net: nn.Module,
    real: Tensor,
    fake: Tensor,
    r1: float,
) -> dict[str, Tensor]:
    """A loss of scores, and the penalty on the gradient at real inputs."""
    real = real.detach().requires_grad_(r1 > 0)
    real_scores = scores(net, real)
    losses = loss(real_scores, scores(net, fake))
    if r1 > 0:
        (gradient,) = torch.autograd.grad(real_scores.sum(), real, create_graph=True)
        losses["r1"] = r1 / 2 * gradient.square().flatten(1).sum(1).mean()
    return losses


LOSSES = {"logistic": logistic_loss, "hinge": hinge_loss}


def augment(inputs: Tensor, shift: int, drop: float, processes: Processes) -> Tensor:
    """Shift each input by up to ``shift`` cells and zero a share ``drop`` of its cells.

    Both sides of the discriminator's training see it, the rewards do not.
    """
    batch, _, height, width = inputs.shape
    if shift:
        padded = F.pad(inputs, (shift,) * 4)
        moves = processes.rand(batch, 2, device=inputs.device)
        top, left = (moves * (2 * shift + 1)).long().unbind(1)
        rows = top[:, None] + torch.arange(height, device=inputs.device)  # (B, H)
        columns = left[:, None] + torch.arange(width, device=inputs.device)  # (B, W)
        index = torch.arange(batch, device=inputs.device)
        inputs = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        inputs = inputs.permute(0, 3, 1, 2)
    if drop:
        inputs = inputs * (processes.rand(batch, 1, height, width, device=inputs.device) >= drop)
    return inputs


class DiscriminatorTrainer:
    """A discriminator with its optimiser. ``update`` is one step of its side of the game.

    Of several processes each gives its own part of the batch; they make the update of the whole.
    """

    def __init__(
        self, net: nn.Module, training: DiscriminatorTraining, processes: Processes | None = None
    ):
        self.net = net
        self.training = training
        self.processes = processes or Processes(next(net.parameters()).device)
        self.optimizer = torch.optim.Adam(
            net.parameters(), lr=training.learning_rate, betas=training.betas
        )

    def update(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """One step on inputs of the same shape (B, C, H, W); returns the named losses.

        Raises:
            ValueError: if a loss is not finite; the parameters are left as they were.
        """
        t = self.training
        real, fake = (augment(x, t.shift, t.drop, self.processes) for x in (real, fake))
        self.net.train()
        if t.loss == "wgan-gp":
            share = self.processes.rand(len(real), 1, 1, 1, device=real.device)
            losses = wgan_gp_loss(self.net, real, fake, share, t.gradient_penalty)
        else:
            losses = with_r1(LOSSES[t.loss], self.net, real, fake, t.r1)
        total = torch.stack(list(losses.values())).sum()
        named = {name: value.item() for name, value in losses.items()}
        if not torch.isfinite(total):
            raise ValueError(
                f"the discriminator's loss is not finite: {named}; lower its learning rate "
                f"({t.learning_rate}) or look for non-finite inputs"
            )
        self.optimizer.zero_grad()
        total.backward()
        self.processes.average_gradients(self.net)
        self.optimizer.step()
        self.net.eval()
        return named

    @torch.no_grad()
    def held_out_auc(self, real: Tensor, fake: Tensor) -> float:
        """AUC on inputs that this discriminator has not been trained on."""
        return auc(scores(self.net, real), scores(self.net, fake))

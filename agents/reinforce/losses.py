"""From rewards to what the policy minimises: pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.reinforce.config import Config


def returns(step_rewards: Tensor, gamma: float) -> Tensor:
    """Q(s_t, a_t) = sum over k > t of gamma^(k-t-1) r_k (Eq. 3): (B, T) to (B, T).

    ``step_rewards[:, t]`` is the paper's r_t+1, what the code written at step t has earned.
    """
    tail = torch.zeros_like(step_rewards[:, 0])
    q = []
    for reward in reversed(step_rewards.unbind(1)):
        tail = reward + gamma * tail
        q.append(tail)
    return torch.stack(q[::-1], 1)


def advantages(
    q: Tensor, baseline: str, standardise: bool, group: int = 1, before: float = 0.0
) -> Tensor:
    """Returns (B, T) less their baseline, scaled if asked for.

    Args:
        group: canvases that started alike; they stand side by side.
        before: mean return of the batches before this one.
    """
    if baseline == "group":
        groups = q.unflatten(0, (-1, group))  # (B / group, group, T)
        groups = groups - groups.mean(1, keepdim=True)
        if standardise:
            groups = groups / groups.std((1, 2), keepdim=True).clamp(min=1e-6)
        return groups.flatten(0, 1)
    if baseline == "leave-one-out":
        # Q_i - mean of the others = (Q_i - mean of all) * B / (B - 1); unbiased: the others'
        # returns do not depend on canvas i's codes.
        q = (q - q.mean(0)) * (len(q) / (len(q) - 1))
    elif baseline == "running-mean":
        q = q - before
    if standardise:
        # A reward that does not vary (the constant arm) has no advantage, not an infinite one.
        q = q / q.std().clamp(min=1e-6)
    return q


def policy_losses(
    log_prob: Tensor,
    old: Tensor,
    advantage: Tensor,
    cells: Tensor,
    reference: Tensor | None,
    config: Config,
) -> dict[str, Tensor]:
    """What the policy minimises, by name: means over the cells that it has written.

    Args:
        log_prob: of the codes, (B, cells), with gradient.
        old: the same when they were sampled.
        advantage: (B, cells).
        cells: bool (B, cells), which of them count.
        reference: log-probs of the MLE prior, for the KL.
    """
    count = cells.sum()
    ratio = (log_prob - old).exp()
    gain = advantage * ratio  # at ratio 1 its gradient is REINFORCE's, Eq. 2
    if config.epochs > 1:
        gain = torch.minimum(gain, advantage * ratio.clamp(1 - config.clip, 1 + config.clip))
    losses = {"policy_loss": -(gain * cells).sum() / count}
    if reference is not None:
        gap = (log_prob - reference) * cells
        losses["kl_loss"] = config.kl_loss_coef * gap.square().sum() / (2 * count)
    if config.ent_coef:
        # The gradient of the entropy is -E[log G grad log G]; a mean over canvases as its baseline.
        own = log_prob.detach() - log_prob.detach().mean(0)
        losses["entropy_loss"] = config.ent_coef * (own * log_prob * cells).sum() / count
    return losses

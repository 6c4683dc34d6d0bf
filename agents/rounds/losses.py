"""From scores to weights, and from weights to what the policy minimises: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def importance_weights(scores: Tensor, clip_quantile: float = 1.0) -> Tensor:
    """w = exp(score), cut at a quantile and scaled to a mean of 1: (N,), float64, to (N,).

    Where a score is log p(real) / p(drawn) plus a constant, w is p(real) / p(drawn): what turns
    means over the canvases that were drawn into means over real ones. The cut bounds the variance
    that few large weights bring; it is a bias towards the policy that drew.
    """
    scores = scores.double()
    weights = (scores - scores.max()).exp()  # the largest is 1: nothing overflows
    weights = weights.clamp(max=torch.quantile(weights, clip_quantile).item())
    return weights / weights.mean()


def elite_weights(scores: Tensor, share: float) -> Tensor:
    """N / n for the n canvases of the highest scores, 0 for the others: (N,), float64, to (N,).

    n is at least 1. Learning from them by likelihood is a step of the cross-entropy method
    (Rubinstein 1999); what it converges to has no mean of real canvases in it.
    """
    count = max(1, round(share * len(scores)))
    weights = torch.zeros(len(scores), dtype=torch.float64)
    weights[scores.argsort(descending=True, stable=True)[:count]] = len(scores) / count
    return weights


def effective_sample_size(weights: Tensor) -> float:
    """(sum w)^2 / (N sum w^2) of weights (N,): 1 where all are alike, 1/N where one has all.

    Source: Kong 1992. Given as a share of N.
    """
    return (weights.sum().square() / (len(weights) * weights.square().sum())).item()


def proposal(weights: Tensor, floor: float) -> Tensor:
    """Chance that a canvas is drawn for an update, (N,): in proportion to abs(w - 1) + floor.

    Canvases of weight 1 say nothing of where the policy should go, so they are drawn less often,
    and count for more where they are: by 1 / (N q), see :func:`policy_losses`.
    """
    chance = (weights - 1).abs() + floor
    return chance / chance.sum()


def policy_losses(
    log_probs: Sequence[Tensor],
    old: Sequence[Tensor],
    grids: Sequence[Tensor],
    coefficients: Tensor,
    importance: Tensor,
    kl_coef: float,
) -> dict[str, Tensor]:
    """What the policy minimises on canvases that its predecessor drew, by name: nats per cell.

    Args:
        log_probs: of *all* codes of every cell, (B, h, w, num_codes) a level, with gradient.
        old: the same by the policy that drew the canvases.
        grids: their codes, int64 (B, h, w) a level.
        coefficients: what multiplies each canvas's log-prob, (B,): w or w - 1.
        importance: 1 / (N q) of each canvas, (B,), where q is its chance to be among the batch.
        kl_coef: weight of the KL.

    Returns:
        ``policy_loss``: the mean of - importance * coefficient * log policy(canvas).
        ``kl_loss``: KL(old || policy), exact over the codes of each cell, its mean over the
        contexts that the predecessor wrote.
    """
    cells = sum(grid.numel() for grid in grids)
    codes = [grid.unsqueeze(-1) for grid in grids]
    chosen = _by_canvas([p.gather(-1, c) for p, c in zip(log_probs, codes, strict=True)])
    apart = exact_kl(old, log_probs)
    return {
        "policy_loss": -(importance * coefficients * chosen).sum() / cells,
        "kl_loss": kl_coef * (importance * apart).sum() / cells,
    }


def exact_kl(old: Sequence[Tensor], new: Sequence[Tensor]) -> Tensor:
    """Sum over a canvas's cells of KL(old || new) given the codes before: (B,), nats.

    Its mean over canvases that ``old`` drew is KL(old || new) of whole canvases, by the chain rule.

    Args:
        old, new: log-probs of all codes of every cell, (B, h, w, num_codes) a level.
    """
    return _by_canvas([p.exp() * (p - q) for p, q in zip(old, new, strict=True)])


def _by_canvas(levels: Sequence[Tensor]) -> Tensor:
    """Sums over all but the first dimension, all levels together: (B,)."""
    return torch.stack([level.flatten(1).sum(1) for level in levels]).sum(0)

"""Maximum likelihood for a prior: the stage before RL, and the control arm beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from agents.training.files import Row
from agents.training.optimise import Training, optimise
from ral_env.nets import Mixture, MixtureConfig, PixelCNN, PixelCNNConfig
from ral_env.nets.noise import gumbel
from ral_env.ranges import check_ranges


@dataclass(frozen=True)
class PriorTraining(Training):
    """How a prior learns, beside what every training has.

    Args:
        context_noise: Largest share of a canvas's codes that are replaced, in what the prior is
            conditioned on, by samples of its own conditionals; each canvas draws its share between
            0 and this. What the prior is to predict stays real. 0 is plain maximum likelihood.
    """

    context_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, context_noise="[0, 1)")


class CodeGrid(Protocol):
    """Int64 codes (N, h, w) that need not be in memory: a tensor is one, so is
    ``pretrain.codes.StoredGrid``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Tensor: ...


@torch.no_grad()
def mean_nll(
    prior: PixelCNN | Mixture,
    codes: Tensor,
    condition: Tensor | None = None,
    batch: int | None = None,
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


@torch.no_grad()
def noisy_context(
    prior: PixelCNN | Mixture, codes: Tensor, condition: Tensor | None, context_noise: float
) -> Tensor:
    """Codes (B, h, w), a share of them replaced by what the prior would have written there.

    One pass over the real codes gives all conditionals, so each replacement is a sample given the
    *real* codes before it: parallel scheduled sampling in one pass (Bengio et al. 2015,
    arXiv 1506.03099; Duckworth et al. 2019, arXiv 1906.04331). Each canvas draws its rate uniformly
    from 0 to ``context_noise``, and each of its cells is replaced with that probability. A sample
    may be the real code again. Random numbers are torch's global ones.

    Args:
        prior: The net, in the mode (dropout) in which it learns.
        codes: Real codes, int64 (B, h, w).
        condition: The level above, or the styles of a mixture; it stays real.
        context_noise: See :class:`PriorTraining`.
    """
    logits = prior.logits(codes, condition).float()
    samples = (logits + gumbel(tuple(logits.shape), logits)).argmax(-1)
    rate = context_noise * torch.rand(len(codes), 1, 1, device=codes.device)
    replaced = torch.rand(codes.shape, device=codes.device) < rate
    return torch.where(replaced, samples, codes)


def prior_loss(
    prior: PixelCNN | Mixture,
    codes: Tensor,
    condition: Tensor | None = None,
    context_noise: float = 0.0,
) -> dict[str, Tensor]:
    """``nats_per_code``: the mean over cells of -log p(real code | codes before it), those before
    it being real, or replaced in part (:func:`noisy_context`)."""
    if context_noise == 0:
        return prior.compute_loss(codes, condition)
    context = noisy_context(prior, codes, condition, context_noise)
    log_probs = prior.logits(context, condition).log_softmax(-1)
    return {"nats_per_code": -log_probs.gather(-1, codes.unsqueeze(-1)).mean()}


def fit_prior(
    prior: PixelCNN | Mixture,
    train: CodeGrid,
    validation: Tensor,
    training: PriorTraining,
    conditions: tuple[CodeGrid, Tensor] | None = None,
    **options: Any,
) -> list[dict[str, float]]:
    """Train in place and leave the weights that were best on the validation codes.

    Args:
        prior: the net, changed in place, in eval mode afterwards.
        train, validation: int64 codes (N, h, w); the first are only indexed, a batch at a time.
        conditions: for a finer level, the train and validation codes of the level above; for a
            mixture, the styles of the canvases, int64 (N, 1, 1).
        training: the settings.
        options: ``seed``, ``seconds``, ``log``, ``label``, ``checkpoint``, ``device``: see
            :func:`agents.training.optimise.optimise`.

    Returns:
        Rows of ``step``, ``seconds``, ``train_nats_per_code`` and ``validation_nats_per_code``.
    """
    above = conditions or (None, None)
    cells = train[0].numel()

    def validate(net: Any) -> dict[str, float]:
        device = next(net.parameters()).device
        condition = None if above[1] is None else above[1].to(device)
        nats = mean_nll(net, validation.to(device), condition)
        return {"validation_nats_per_code": nats / cells}

    return optimise(
        prior,
        lambda batch: prior_loss(prior, batch[0], batch[1], training.context_noise),
        lambda index: (train[index], None if above[0] is None else above[0][index]),
        len(train),
        validate,
        training,
        **options,
    )


def fit_priors(
    priors: Sequence[PixelCNNConfig | PixelCNN | Mixture],
    train: Sequence[CodeGrid],
    validation: Sequence[Tensor],
    trainings: Sequence[PriorTraining],
    *,
    seed: int = 0,
    styles: tuple[CodeGrid, Tensor] | None = None,
    seconds: float | None = None,
    finish: Callable[[Any], Any] = nn.Module.cpu,
    options: Callable[[int, list[Any]], dict[str, Any]] = lambda level, fitted: {},
) -> tuple[list[Any], list[list[Row]]]:
    """Train a prior a level, the top first, each given the real codes of the level above.

    Args:
        priors: nets, which are changed in place, or the sizes of new ones.
        train, validation: int64 codes (N, h, w), a grid a level.
        trainings: how each learns.
        seed: of new nets, of the order of examples and of dropout.
        styles: for a mixture, the styles of the train and validation canvases, int64 (N, 1, 1).
        seconds: for all levels together; each has the share of its codes.
        finish: what becomes of a net when it is trained, before the next level begins.
        options: further arguments of :func:`fit_prior`, of the level and the nets before it.

    Returns:
        The nets, and the rows of each one's learning curve; see :func:`fit_prior`.
    """
    cells = [grid[0].numel() for grid in validation]
    fitted: list[Any] = []
    curves = []
    for level, (prior, training) in enumerate(zip(priors, trainings, strict=True)):
        net = new_prior(prior, seed) if isinstance(prior, PixelCNNConfig) else prior
        above = (train[level - 1], validation[level - 1]) if level else None
        curves.append(
            fit_prior(
                net,
                train[level],
                validation[level],
                training,
                styles if isinstance(net, Mixture) else above,
                seed=seed,
                seconds=None if seconds is None else seconds * cells[level] / sum(cells),
                **options(level, fitted),
            )
        )
        fitted.append(finish(net))
    return fitted, curves


def new_prior(config: PixelCNNConfig, seed: int) -> PixelCNN | Mixture:
    """A net of these sizes, its weights drawn from the seed (which torch's generator is set to)."""
    torch.manual_seed(seed)
    return Mixture(config) if isinstance(config, MixtureConfig) else PixelCNN(config)

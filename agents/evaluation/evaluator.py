"""The evaluator: a prior, or canvases that anyone has written, measured against held-out codes.

The last row of a run, ``ral evaluate``, the demo and the benchmarks all take their figures here.
A measure of quality never stands alone: precision rises and the reverse KL falls as modes are
lost, which coverage, recall, diversity, entropy, the forward NLL and the Fréchet distance show.
What a perfect sampler would score only a row of real canvases tells: even theirs is below 1.

=============== ===================================================================================
figure          what it is (nats are per canvas)
=============== ===================================================================================
``score``       Mean normalised score by the bundle's discriminator; real is high. That was trained
                against the MLE prior, and may like what is nothing like it.
``diversity``   Share of pairs of canvases that differ in a cell, the mean over cells, 0 to 1.
``fd``          Fréchet distance to held-out real codes, both decoded, in the feature net's space.
``precision``   Share of canvases that are as near to real ones as those are to each other.
``recall``      Share of real ones that are as near to canvases as those are to each other.
``density``     How crowded canvases are where real ones are dense; 1 for real against real.
``coverage``    Share of real ones that have a canvas as near as real ones are to each other.
``nll_oracle``  Mean of -log oracle(canvas), nats (paper Eq. 7).
``forward_nll`` Mean of -log G(held-out codes), nats.
``entropy``     Mean of -log G(its own samples), nats.
``reverse_kl``  KL(G || oracle) = nll_oracle - entropy, nats.
``forward_kl``  KL(oracle || G) = forward_nll - the oracle's entropy, nats.
=============== ===================================================================================

The first eight are told of any canvases, the last four of a prior G alone; ``fd`` to ``coverage``
where the bundle has a feature net, ``nll_oracle`` and both KLs where it has an oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.evaluation import metrics
from agents.training.files import Row
from ral_env import bundle as bundles
from ral_env.nets import joint, represent
from ral_env.nets.protocol import Prior
from ral_env.ranges import check_ranges
from ral_env.reward import normalise, single

# What stands above a figure's column in a printed table.
HEADINGS = {
    "fd": "FD",
    "fd_minus_control": "FD - control",
    "forward_nll": "forward NLL",
    "nll_oracle": "NLL_oracle",
    "reverse_kl": "reverse KL",
    "forward_kl": "forward KL",
    "oracle_entropy": "oracle entropy",
}


@dataclass(frozen=True)
class TemperedPrior:
    """Priors, one a level and the coarsest first, with the temperature that they are sampled at."""

    priors: Sequence[Prior]
    temperature: float = 1.0

    def log_prob(self, grids: Sequence[Tensor]) -> Tensor:
        """log G of whole canvases, int64 (N, h, w) a level, at this temperature: nats (N,)."""
        return joint.total_log_prob(self.priors, grids, self.temperature)


@dataclass(frozen=True)
class BatchSizes:
    """Canvases that pass a net together. Sums of float32 depend on it in their last digits.

    Args:
        sample: Number of canvases that are sampled together; the noise of each depends on it.
        decode: Number of canvases that are decoded, and scored, together.
        features: Number of images that the feature net sees together.
    """

    sample: int = 250
    decode: int = 50
    features: int = 50

    def __post_init__(self) -> None:
        check_ranges(self, sample="[1, inf)", decode="[1, inf)", features="[1, inf)")


@dataclass(frozen=True)
class Evaluation:
    """The figures of some canvases, and the features (N, F) of their images where there are any."""

    figures: Row
    features: Tensor | None


class Evaluator:
    """Holds a bundle's held-out codes, and measures priors and canvases against them.

    Args:
        bundle: Its test codes, discriminator, feature net and oracle are used, where it has them.
        batches: Canvases that pass a net together.
    """

    def __init__(self, bundle: bundles.Bundle, batches: BatchSizes | None = None):
        self.bundle = bundle
        self.batches = batches or BatchSizes()
        self.held_out = bundle.layout.as_grids(bundle.split("test"))

    @cached_property
    def held_out_features(self) -> Tensor | None:
        """Features of held-out real codes, decoded, (N, F); None without a feature net.

        Those that the bundle has stored, where they are of more canvases than it has codes.
        """
        stored = self._stored_features
        return self.features(self.held_out) if stored is None else stored

    @property
    def held_out_count(self) -> int:
        """Number of held-out canvases that features are compared with."""
        stored = self._stored_features
        return len(self.held_out[0] if stored is None else stored)

    @cached_property
    def _stored_features(self) -> Tensor | None:
        """The bundle's stored features (N, F), None unless they are of more than its codes."""
        net = self.bundle.features
        for name, stored in self.bundle.test_features.items():
            if self.bundle.feature_nets[name] is net and len(stored.values) > len(self.held_out[0]):
                return torch.from_numpy(np.array(stored.values, np.float32))
        return None

    @cached_property
    def oracle_entropy(self) -> float:
        """Mean of -log oracle(held-out codes), nats per canvas; the bundle must have an oracle."""
        return _mean_nll(TemperedPrior(self.bundle.oracles), self.held_out)

    def evaluate_prior(self, prior: TemperedPrior, count: int = 1000, seed: int = 0) -> Evaluation:
        """All figures of a prior, from ``count`` samples that depend on ``seed`` alone."""
        grids = self.sample(prior, count, seed)
        row = {
            "forward_nll": _mean_nll(prior, self.held_out),
            "entropy": _mean_nll(prior, grids),
        }
        found = self.evaluate_canvases(grids)
        row |= found.figures
        if self.bundle.oracles:
            row["reverse_kl"] = row["nll_oracle"] - row["entropy"]
            row["forward_kl"] = row["forward_nll"] - self.oracle_entropy
        return Evaluation(row, found.features)

    @torch.no_grad()
    def evaluate_canvases(self, grids: Sequence[Tensor]) -> Evaluation:
        """The figures of codes, int64 (N, h, w) a level, whoever has written them."""
        bundle = self.bundle
        scores = [
            single(
                normalise(
                    bundle.discriminator(represent(bundle.vqvae, part, bundle.discriminator_input)),
                    bundle.reward_scale,
                )
            )
            for part in _split(grids, self.batches.decode)
        ]
        row = {
            "score": torch.cat(scores).mean().item(),
            "diversity": metrics.diversity(bundle.layout.flatten(grids)),
        }
        features, real = self.features(grids), self.held_out_features
        if features is not None and real is not None:
            row["fd"] = metrics.frechet_distance(real, features)
            if min(len(real), len(features)) > 5:  # neighbours that they are counted by
                row["precision"], row["recall"] = metrics.precision_recall(real, features)
                row["density"], row["coverage"] = metrics.density_coverage(real, features)
        if bundle.oracles:
            row["nll_oracle"] = _mean_nll(TemperedPrior(bundle.oracles), grids)
        return Evaluation(row, features)

    def sample(self, prior: TemperedPrior, count: int, seed: int) -> list[Tensor]:
        """Whole canvases, int64 (count, h, w) a level."""
        layout = self.bundle.layout
        empty = [torch.full((count, *level), layout.empty) for level in layout.levels]
        generator = torch.Generator().manual_seed(seed)
        size = self.batches.sample
        return joint.sample(prior.priors, empty, prior.temperature, generator, size)

    def entropy(self, prior: TemperedPrior, count: int, seed: int) -> float:
        """Mean of -log G of a prior's own samples, nats per canvas."""
        return _mean_nll(prior, self.sample(prior, count, seed))

    @torch.no_grad()
    def images(self, grids: Sequence[Tensor]) -> Tensor:
        """Decoded codes, float32 (N, 3, H, W) in [-1, 1]."""
        parts = _split(grids, self.batches.decode)
        return torch.cat([self.bundle.vqvae.decode(part) for part in parts])

    @torch.no_grad()
    def features(self, grids: Sequence[Tensor]) -> Tensor | None:
        """Features of decoded codes, (N, F); None without a feature net."""
        net = self.bundle.features
        if net is None:
            return None
        parts = _split(grids, self.batches.features)
        return torch.cat([net.features(self.images(part)) for part in parts])

    def fd_difference(self, a: Evaluation, b: Evaluation) -> tuple[float, float, float]:
        """``fd`` of a less that of b, and its 95 % interval (low, high). Negative: a is nearer.

        See :func:`agents.evaluation.metrics.paired_bootstrap`.

        Raises:
            ValueError: if the bundle has no feature net.
        """
        real = self.held_out_features
        if real is None or a.features is None or b.features is None:
            raise ValueError(
                f"{self.bundle!r} has no feature net, which the Fréchet distance needs: choose a "
                "bundle that has one"
            )
        return metrics.paired_bootstrap(real, a.features, b.features)


def results(
    bundle: bundles.Bundle,
    policies: Sequence[Any],
    seed: int = 0,
    count: int = 1000,
    grids: Sequence[Tensor] | None = None,
) -> Row:
    """The figures that a run ends in: its policy's, and as ``prior_...`` those of the MLE prior.

    Args:
        policies: One a level, the coarsest first; none where the policy is no prior.
        count: Number of canvases to sample.
        grids: What the policy has written, as many canvases, where there is nothing to sample from.

    Returns:
        See the top of this file for what each figure is.
    """
    evaluator, row = Evaluator(bundle), Row()
    if policies:
        row |= evaluator.evaluate_prior(TemperedPrior(policies), count, seed).figures
    elif grids is not None:
        row |= evaluator.evaluate_canvases(grids).figures
    if bundle.priors:
        prior = evaluator.evaluate_prior(TemperedPrior(bundle.priors), count, seed).figures
        row |= {f"prior_{name}": value for name, value in prior.items()}
    return row


def _mean_nll(prior: TemperedPrior, grids: Sequence[Tensor]) -> float:
    return -prior.log_prob(grids).mean().item()


def _split(grids: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, ...]]:
    """Parts of up to ``size`` canvases, each a grid a level."""
    return zip(*(grid.split(size) for grid in grids), strict=True)

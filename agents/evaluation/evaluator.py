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
``own_reward``  Mean of what a reward function of one's own gives a canvas (of a map, its mean).
``diversity``   Share of pairs of canvases that differ in a cell, the mean over cells, 0 to 1.
``fd``          Fréchet distance to held-out real codes, both decoded, in the first feature net's
                space.
``fd_NAME``     The same in the space of the feature net of that name, for each further one.
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

The last four are told of a prior G alone, the others of any canvases; ``fd`` to ``coverage`` where
the bundle has a feature net, ``nll_oracle`` and both KLs where it has an oracle, ``own_reward``
where a reward function is given. Precision, recall, density and coverage are those of the first
feature net's space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.evaluation import metrics
from agents.training.files import Row
from ral_env import bundle as bundles
from ral_env.envs.reward_fn import RewardFunction
from ral_env.nets import joint, represent
from ral_env.nets.protocol import Prior
from ral_env.ranges import check_ranges
from ral_env.reward import normalise, single

# What stands above a figure's column in a printed table.
HEADINGS = {
    "fd": "FD",
    "fd_minus_control": "FD - control",
    "area_minus_control": "area - control",
    "forward_nll": "forward NLL",
    "nll_oracle": "NLL_oracle",
    "reverse_kl": "reverse KL",
    "forward_kl": "forward KL",
    "oracle_entropy": "oracle entropy",
    "fid": "FID",
    "kid": "KID",
    "cmmd": "CMMD",
    "judge_auc": "judge AUC",
    "judge_auc_deviation": "its deviation",
    "nearest": "nearest train",
}


def headings(columns: Iterable[str]) -> dict[str, str]:
    """What stands above these columns: :data:`HEADINGS`, and those of further feature spaces."""
    found = dict(HEADINGS)
    for column in columns:
        if column.startswith("fd_") and column not in HEADINGS:
            name, minus, _ = column.removeprefix("fd_").partition("_minus_control")
            found[column] = f"FD ({name}){' - control' if minus else ''}"
    return found


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
    """What was found of some canvases.

    Attributes:
        grids: The canvases, int64 codes (N, h, w), a grid a level.
        figures: Their figures, by name.
        features: By name of each feature net, features (N, F) of their images.
    """

    grids: Sequence[Tensor]
    figures: Row
    features: Mapping[str, Tensor]


@dataclass(frozen=True)
class Difference:
    """A figure of one less that of another, and its 95 % interval.

    Of a distance, negative means that the first is nearer.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class Evaluator:
    """Holds a bundle's held-out codes, and measures priors and canvases against them.

    Args:
        bundle: Its held-out codes, discriminator, feature nets and oracle are used, where it has
            them.
        batches: Canvases that pass a net together.
        split: Which real codes are the held-out ones: ``"test"`` for what is reported,
            ``bundle.tuning_split`` for what is chosen.
        reward_fn: Name of a reward function of one's own, see :mod:`ral_env.envs.reward_fn`.
    """

    def __init__(
        self,
        bundle: bundles.Bundle,
        batches: BatchSizes | None = None,
        split: str = "test",
        reward_fn: str | None = None,
    ):
        self.bundle = bundle
        self.reward_fn = None if reward_fn is None else RewardFunction(reward_fn)
        self.batches = batches or BatchSizes()
        self.split = split
        self.held_out = bundle.layout.as_grids(bundle.split(split))

    @cached_property
    def held_out_features(self) -> dict[str, Tensor]:
        """Features (N, F) of held-out real codes, decoded, by name of the feature net.

        Those that the bundle has stored, where they are of more canvases than it has codes.
        """
        stored = self._stored_features
        nets = self.bundle.feature_nets
        found = {} if len(stored) == len(nets) else self.features(self.held_out)
        return {name: stored[name] if name in stored else found[name] for name in nets}

    @property
    def held_out_count(self) -> int:
        """Number of held-out canvases that features are compared with, by the first net."""
        first, stored = next(iter(self.bundle.feature_nets), ""), self._stored_features
        return len(stored[first] if first in stored else self.held_out[0])

    @cached_property
    def _stored_features(self) -> dict[str, Tensor]:
        """By net, the bundle's stored features (N, F) that are of more than its test codes."""
        if self.split != "test":
            return {}
        return {
            name: torch.from_numpy(np.array(stored.values, np.float32))
            for name, stored in self.bundle.test_features.items()
            if len(stored.values) > len(self.held_out[0])
        }

    @cached_property
    def oracle_entropy(self) -> float:
        """Mean of -log oracle(held-out codes), nats per canvas; the bundle must have an oracle."""
        return _mean_nll(TemperedPrior(self.bundle.oracles), self.held_out)

    def evaluate_prior(self, prior: TemperedPrior, count: int = 1000, seed: int = 0) -> Evaluation:
        """All figures of a prior, from ``count`` samples that depend on ``seed`` alone."""
        grids = self.sample(prior, count, seed)
        row = {
            "forward_nll": self.forward_nll(prior),
            "entropy": _mean_nll(prior, grids),
        }
        found = self.evaluate_canvases(grids)
        row |= found.figures
        if self.bundle.oracles:
            row["reverse_kl"] = row["nll_oracle"] - row["entropy"]
            row["forward_kl"] = row["forward_nll"] - self.oracle_entropy
        return Evaluation(grids, row, found.features)

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
        if self.reward_fn is not None:
            parts = _split(grids, self.batches.decode)
            paid = [single(self.reward_fn(bundle.vqvae, part)) for part in parts]
            row["own_reward"] = torch.cat(paid).mean().item()
        features = self.features(grids)
        row |= feature_figures(self.held_out_features, features)
        if bundle.oracles:
            row["nll_oracle"] = _mean_nll(TemperedPrior(bundle.oracles), grids)
        return Evaluation(grids, row, features)

    def sample(self, prior: TemperedPrior, count: int, seed: int) -> list[Tensor]:
        """Whole canvases, int64 (count, h, w) a level."""
        empty = self.bundle.layout.empty_grids(count)
        generator = torch.Generator().manual_seed(seed)
        size = self.batches.sample
        return joint.sample(prior.priors, empty, prior.temperature, generator, size)

    def forward_nll(self, prior: TemperedPrior) -> float:
        """Mean of -log G of the held-out codes, nats per canvas."""
        return _mean_nll(prior, self.held_out)

    def entropy(self, prior: TemperedPrior, count: int, seed: int) -> float:
        """Mean of -log G of a prior's own samples, nats per canvas."""
        return _mean_nll(prior, self.sample(prior, count, seed))

    @torch.no_grad()
    def images(self, grids: Sequence[Tensor]) -> Tensor:
        """Decoded codes, float32 (N, 3, H, W) in [-1, 1]."""
        parts = _split(grids, self.batches.decode)
        return torch.cat([self.bundle.vqvae.decode(part) for part in parts])

    def features(self, grids: Sequence[Tensor]) -> dict[str, Tensor]:
        """Features (N, F) of decoded codes, by name of the feature net."""
        parts = _split(grids, self.batches.features)
        return self.image_features(self.images(part) for part in parts)

    @torch.no_grad()
    def image_features(self, parts: Iterable[Tensor]) -> dict[str, Tensor]:
        """Features (N, F) of images, by name of the feature net; none without a feature net.

        Args:
            parts: Images, float32 (B, 3, H, W) in [-1, 1], those that pass the nets together.
        """
        nets = self.bundle.feature_nets
        if not nets:
            return {}
        found = [[net.features(images) for net in nets.values()] for images in parts]
        return dict(zip(nets, map(torch.cat, zip(*found, strict=True)), strict=True))

    def fd_differences(self, a: Evaluation, b: Evaluation) -> dict[str, Difference]:
        """``fd`` of a less that of b in each feature net's space, by the figure's name.

        What one of the spaces says alone is no claim: a net that was trained on labels does not see
        what the labels do not tell. See :func:`nearer_in_all` and
        :func:`agents.evaluation.metrics.paired_bootstrap`.

        Raises:
            ValueError: if the bundle has no feature net.
        """
        if not self.bundle.feature_nets:
            raise ValueError(
                f"{self.bundle!r} has no feature net, which the Fréchet distance needs: choose a "
                "bundle that has one"
            )
        return {
            figure: Difference(
                *metrics.paired_bootstrap(
                    self.held_out_features[name], a.features[name], b.features[name]
                )
            )
            for name, figure in fd_figures(self.bundle.feature_nets).items()
        }


def fd_figures(names: Iterable[str]) -> dict[str, str]:
    """What the Fréchet distance is called in the space of each feature net, by the net's name."""
    return {name: f"fd_{name}" if i else "fd" for i, name in enumerate(names)}


def feature_figures(real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> Row:
    """The figures that are taken in feature spaces; none where there are no features.

    Args:
        real, fake: Features (N, F) and (M, F) by name of the feature net, the first net first.
    """
    row = {
        figure: metrics.frechet_distance(real[name], fake[name])
        for name, figure in fd_figures(real).items()
    }
    first = next(iter(real), None)
    if first is not None and min(len(real[first]), len(fake[first])) > 5:  # nearest neighbours
        x, y = real[first], fake[first]
        row["precision"], row["recall"] = metrics.precision_recall(x, y)
        row["density"], row["coverage"] = metrics.density_coverage(x, y)
    return row


def nearer_in_all(differences: Mapping[str, Difference]) -> str:
    """Whether the first of two is nearer to real images, in words: only if all spaces say so.

    Args:
        differences: Those of :meth:`Evaluator.fd_differences`; none is an error.
    """
    assert differences
    nearer = [name for name, found in differences.items() if found.high < 0]
    spaces = (
        "the one feature space that there is" if len(differences) == 1 else "every feature space"
    )
    if len(nearer) == len(differences):
        return f"nearer to real images in {spaces}"
    if nearer:
        return f"no claim: nearer to real images by {' and '.join(nearer)} alone"
    return f"not nearer to real images in {spaces}"


def results(
    bundle: bundles.Bundle,
    policies: Sequence[Any],
    seed: int = 0,
    count: int = 1000,
    grids: Sequence[Tensor] | None = None,
    reward_fn: str | None = None,
) -> Row:
    """The figures that a run ends in: its policy's, and as ``prior_...`` those of the MLE prior.

    Args:
        policies: One a level, the coarsest first; none where the policy is no prior.
        count: Number of canvases to sample.
        grids: What the policy has written, as many canvases, where there is nothing to sample from.
        reward_fn: As of :class:`Evaluator`.

    Returns:
        See the top of this file for what each figure is.
    """
    evaluator, row = Evaluator(bundle, reward_fn=reward_fn), Row()
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

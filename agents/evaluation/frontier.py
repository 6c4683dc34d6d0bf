"""The frontier: what a prior reaches at all temperatures, not at one.

Cooling a prior buys precision with coverage and likelihood, so at one temperature nearly any two
priors can be put in either order. The sweep measures a prior at several temperatures; what it
reaches is the area of the (precision, coverage) plane that its points dominate, 0 to 1. The
temperature of a row is chosen on one split and its figures are those of another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.evaluation import metrics
from agents.evaluation.evaluator import Difference, Evaluator, TemperedPrior
from agents.training.files import Row
from ral_env.nets.protocol import Prior

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6)
NLL_BOUND = 1.05  # times the first prior's least forward NLL: what a temperature may cost


@dataclass(frozen=True)
class Point:
    """A prior at one temperature.

    Attributes:
        temperature: What the prior is sampled at.
        figures: Its figures against the test split; see :mod:`agents.evaluation.evaluator`.
        tuning: ``fd`` and ``forward_nll`` against the tuning split, by which one is chosen.
        precise: Of each sample, whether it lies among test reals.
        covered: Of each test real, whether samples lie near it.
    """

    temperature: float
    figures: Row
    tuning: Row
    precise: metrics.Membership
    covered: metrics.Membership


@dataclass(frozen=True)
class Frontier:
    """A prior at all temperatures of a sweep, at least one."""

    points: Sequence[Point]

    @property
    def area(self) -> float:
        """The area that the points dominate; see :func:`dominated_area`."""
        return dominated_area((p.figures["precision"], p.figures["coverage"]) for p in self.points)

    @property
    def least_nll(self) -> float:
        """Least forward NLL on the tuning split at any temperature, nats per canvas."""
        return min(p.tuning["forward_nll"] for p in self.points)

    def chosen(self, bound: float = math.inf) -> Point:
        """The point of least ``fd`` on the tuning split.

        Args:
            bound: Largest forward NLL on the tuning split, nats per canvas, that it may have. Where
                no point keeps to it, the point of least forward NLL is chosen.
        """
        within = [p for p in self.points if p.tuning["forward_nll"] <= bound]
        if not within:
            return min(self.points, key=lambda p: p.tuning["forward_nll"])
        return min(within, key=lambda p: p.tuning["fd"])

    @cached_property
    def resampled_areas(self) -> NDArray[np.float64]:
        """The area in 1000 bootstrap draws, the same draws for all frontiers of equal sizes.

        Each draw takes samples and test reals again, the same ones at all temperatures, whose
        noise is one. Neighbourhoods stay those of the whole sets. It tells what other samples and
        other test images would give, not how a retrained prior would vary.
        """
        rng = np.random.default_rng(0)
        samples, reals = (len(m.drawn) for m in (self.points[0].precise, self.points[0].covered))
        return np.array([
            self._area_of(rng.integers(samples, size=samples), rng.integers(reals, size=reals))
            for _ in range(1000)
        ])  # fmt: skip

    def _area_of(self, samples: NDArray, reals: NDArray) -> float:
        return dominated_area(
            (p.precise.resampled_share(samples), p.covered.resampled_share(reals))
            for p in self.points
        )

    @property
    def interval(self) -> tuple[float, float]:
        """95 % percentile interval of the area, see :attr:`resampled_areas`."""
        low, high = np.percentile(self.resampled_areas, [2.5, 97.5])
        return float(low), float(high)

    def area_minus(self, other: Frontier) -> Difference:
        """This area less that of another, with its 95 % interval by paired bootstrap draws.

        Positive: this one reaches more. Both must be of as many samples and the same test reals.
        """
        low, high = np.percentile(self.resampled_areas - other.resampled_areas, [2.5, 97.5])
        return Difference(self.area - other.area, float(low), float(high))

    def record(self) -> dict[str, Any]:
        """The points, the area and its interval, as JSON holds them."""
        points = [
            {"temperature": p.temperature, "figures": p.figures, "tuning": p.tuning}
            for p in self.points
        ]
        return {"points": points, "area": self.area, "interval": self.interval}


def dominated_area(points: Iterable[tuple[float, float]]) -> float:
    """The area of the plane that points (x, y), each coordinate 0 or more, dominate.

    A point dominates what is no better than itself in both coordinates: the area is that of the
    union of the rectangles from (0, 0) to the points. 0 without points. Source: the hypervolume
    indicator with reference point 0 (Zitzler and Thiele 1999).
    """
    area = height = 0.0
    for x, y in sorted(points, reverse=True):
        area += x * max(0.0, y - height)
        height = max(height, y)
    return area


def sweep(
    priors: Sequence[Prior],
    evaluator: Evaluator,
    tuning: Evaluator,
    temperatures: Sequence[float] = TEMPERATURES,
    count: int = 1000,
    seed: int = 0,
) -> Frontier:
    """Measure priors, one a level and the coarsest first, at several temperatures.

    Args:
        priors: What is sampled.
        evaluator: Measures against the test split.
        tuning: Measures against the split that a temperature is chosen on.
        temperatures: At least one, each above 0.
        count: Number of samples at each temperature.
        seed: Seed of the samples, the same at all temperatures.

    Raises:
        ValueError: If there is no temperature, one is not above 0, or the bundle has no feature
            net.
    """
    if not temperatures or min(temperatures) <= 0:
        raise ValueError(f"temperatures={list(temperatures)}, expected one or more above 0")
    if not evaluator.bundle.feature_nets:
        raise ValueError(
            f"{evaluator.bundle!r} has no feature net, in whose space precision and coverage are "
            "taken: choose a bundle that has one"
        )
    found = [_point(TemperedPrior(priors, t), evaluator, tuning, count, seed) for t in temperatures]
    return Frontier(found)


def _point(
    prior: TemperedPrior, evaluator: Evaluator, tuning: Evaluator, count: int, seed: int
) -> Point:
    evaluation = evaluator.evaluate_prior(prior, count, seed)
    first = next(iter(evaluation.features))
    real, fake = evaluator.held_out_features[first], evaluation.features[first]
    return Point(
        temperature=prior.temperature,
        figures=evaluation.figures,
        tuning={
            "fd": metrics.frechet_distance(tuning.held_out_features[first], fake),
            "forward_nll": tuning.forward_nll(prior),
        },
        precise=metrics.neighbours(real, fake, k=3).fakes_inside,
        covered=metrics.neighbours(real, fake, k=5).reals_covered,
    )


def rows(frontiers: Mapping[str, Frontier], bound: float = math.inf) -> dict[str, Row]:
    """A table's rows: each frontier's figures at its chosen temperature, and its area.

    Args:
        frontiers: By label.
        bound: See :meth:`Frontier.chosen`.

    Returns:
        By label, ``temperature``, the figures of the test split, ``area``, ``area_low`` and
        ``area_high``.
    """
    found = {}
    for label, frontier in frontiers.items():
        point = frontier.chosen(bound)
        low, high = frontier.interval
        area = {"area": frontier.area, "area_low": low, "area_high": high}
        found[label] = {"temperature": point.temperature} | point.figures | area
    return found

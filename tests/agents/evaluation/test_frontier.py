"""The frontier: areas against a count of cells, temperatures chosen on one split, figures of
another."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from agents.evaluation import frontier, frontier_picture, metrics
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.evaluation.frontier import Frontier, Point, dominated_area
from ral_env import bundle


def test_the_dominated_area_is_a_count_of_the_cells_below_any_point():
    points = np.random.default_rng(0).integers(0, 41, (6, 2))
    across, up = np.meshgrid(np.arange(40), np.arange(40))
    below = np.zeros((40, 40), bool)
    for x, y in points:
        below |= (across < x) & (up < y)
    assert dominated_area(map(tuple, points)) == below.sum()


def test_a_dominated_point_adds_nothing():
    assert dominated_area([]) == 0
    assert dominated_area([(0.5, 0.5)]) == 0.25
    assert dominated_area([(0.5, 0.5), (0.4, 0.5), (0.5, 0.1)]) == 0.25
    assert dominated_area([(0.5, 0.5), (1, 0.1)]) == pytest.approx(0.3)


def point(temperature: float, fd: float, nll: float, share: float = 0.5) -> Point:
    """A point of 400 samples and 400 reals, this share of which lie inside."""
    inside = (np.arange(400) < 400 * share).astype(float)
    member = metrics.Membership(inside, np.ones(400))
    figures = {"precision": share, "coverage": share, "fd": 0.0, "forward_nll": 0.0}
    return Point(temperature, figures, {"fd": fd, "forward_nll": nll}, member, member)


def test_the_temperature_is_the_best_on_the_tuning_split_within_the_bound():
    found = Frontier([point(1.0, 3, 100), point(0.9, 2, 102), point(0.8, 1, 110)])
    assert found.chosen().temperature == 0.8
    assert found.chosen(105).temperature == 0.9
    assert found.chosen(99).temperature == 1.0, "nothing keeps to it: the least likely to hurt"
    assert found.least_nll == 100


def test_the_areas_interval_is_as_wide_as_that_of_two_independent_shares():
    """One point: the area is precision times coverage, both shares of 400 rows."""
    found = Frontier([point(1.0, 0, 0, share=0.5)])
    low, high = found.interval
    deviation = math.sqrt(2) * 0.5 * math.sqrt(0.25 / 400)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert low < found.area == 0.25 < high


def test_a_frontier_does_not_differ_from_itself():
    found, other = Frontier([point(1.0, 0, 0, 0.5)]), Frontier([point(1.0, 0, 0, 0.7)])
    assert dataclasses.astuple(found.area_minus(found)) == (0, 0, 0)
    difference = other.area_minus(found)
    assert difference.value == pytest.approx(0.49 - 0.25)
    assert 0 < difference.low < difference.value < difference.high


def test_a_sweep_measures_against_both_splits(tmp_path):
    made = bundle.load("digits")
    evaluator, tuning = (Evaluator(made, split=s) for s in ("test", "validation"))
    found = frontier.sweep(made.priors, evaluator, tuning, [1.0, 0.5], count=60, seed=3)
    assert [p.temperature for p in found.points] == [1.0, 0.5]
    cold = found.points[1]
    prior = TemperedPrior(made.priors, 0.5)
    assert cold.figures == evaluator.evaluate_prior(prior, 60, 3).figures
    expected = tuning.evaluate_prior(prior, 60, 3).figures
    assert cold.tuning == {name: expected[name] for name in ("fd", "forward_nll")}
    assert cold.precise.share == cold.figures["precision"]
    assert cold.covered.share == cold.figures["coverage"]

    rows = frontier.rows({"digits": found})
    assert rows["digits"]["area_low"] < rows["digits"]["area_high"]
    assert rows["digits"]["fd"] == found.chosen().figures["fd"]
    path = tmp_path / "made" / "frontier.png"
    real = {"precision": 0.9, "coverage": 0.95, "fd": 2.0}
    frontier_picture.save({"prior": found, "again": found}, path, real)
    with Image.open(path) as picture:
        assert picture.size[0] > 800


def test_the_picture_has_a_line_for_each_frontier_in_both_panels():
    two = {"MLE": Frontier([point(1.0, 3, 100), point(0.9, 2, 102)]),
           "RAL": Frontier([point(1.0, 3, 100, 0.7)])}  # fmt: skip
    made = frontier_picture.figure(two)
    assert len(made.axes) == 2
    for panel in made.axes:
        assert len(panel.lines) == 4, "a curve and a ring for each"
    assert np.asarray(made.axes[0].lines[0].get_xdata()).tolist() == [0.5, 0.5]
    assert [text.get_text() for text in made.legends[0].get_texts()] == ["MLE", "RAL"]


def test_what_cannot_be_swept_is_refused():
    made = dataclasses.replace(bundle.load("digits"), feature_nets={}, test_features={})
    evaluator = Evaluator(made)
    with pytest.raises(ValueError, match="no feature net"):
        frontier.sweep(made.priors, evaluator, evaluator)
    with pytest.raises(ValueError, match="temperatures=.*above 0"):
        frontier.sweep(made.priors, evaluator, evaluator, [1.0, 0.0])

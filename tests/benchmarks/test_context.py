"""Noisy contexts against plain maximum likelihood: equal seeds are compared, on test codes."""

import dataclasses

import pytest

from agents.training.fit import PriorTraining
from benchmarks.context import Fit, rows
from benchmarks.context import test_nll as nll_of
from ral_env import bundle


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A bundle that says how its prior has learned."""
    training = dataclasses.asdict(PriorTraining(steps=4, batch=8))
    recipe = {"name": "tiny", "prior_trainings": [training]}
    out = tmp_path_factory.mktemp("context") / "bundle"
    parts = dataclasses.replace(bundle.load(tiny), recipe=recipe)
    return str(bundle.save(out, parts, metrics={}))


def test_each_seed_is_compared_with_the_same_seed_without_noise(made):
    plain, noisy = rows([made], [0.0, 0.9], seeds=2, jobs=1)
    values = {(rate, seed): nll_of(Fit(made, rate, seed)) for rate in (0.0, 0.9) for seed in (0, 1)}
    mean = sum(values[0.0, seed] for seed in (0, 1)) / 2
    assert plain["nll"].startswith(f"{mean:.2f} ±") and plain["difference"] == ""
    difference = sum(values[0.9, seed] - values[0.0, seed] for seed in (0, 1)) / 2
    assert difference != 0 and noisy["difference"].startswith(f"{difference:.2f} ±")


def test_a_fit_depends_on_its_seed_alone(made):
    first, again, other = (nll_of(Fit(made, 0.2, seed)) for seed in (0, 0, 1))
    assert first == again != other

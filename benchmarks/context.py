"""Maximum likelihood with noisy contexts against plain maximum likelihood, from nothing.

    ral bench context --bundles digits mnist

For each bundle, rate and seed a new prior of the recipe's sizes learns the bundle's training codes
until its validation no longer gains. The rate is the largest share of a canvas's codes that the
prior's own samples replace (:class:`agents.training.fit.PriorTraining`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch

from agents.evaluation.metrics import interval
from agents.training.fit import PriorTraining, fit_priors
from benchmarks.workers import workers
from ral_env import bundle as bundles
from ral_env.nets import joint
from ral_env.tables import markdown_table

HEADINGS = {"noise": "context noise", "nll": "test NLL", "difference": "against none"}


@dataclass(frozen=True)
class Fit:
    """One prior to train.

    Args:
        bundle: Name or path of a bundle.
        context_noise: See :class:`agents.training.fit.PriorTraining`.
        seed: Seed of the weights and of the order of examples.
    """

    bundle: str
    context_noise: float
    seed: int


def test_nll(fit: Fit) -> float:
    """Nats per canvas of the bundle's test codes under a prior that was trained as ``fit`` says.

    All else is as in the recipe that made the bundle.
    """
    torch.set_num_threads(1)
    made = bundles.load(fit.bundle)
    parts = {name: made.layout.as_grids(made.split(name)) for name in ("train", "validation")}
    trainings = [
        PriorTraining(**{**tuples_of(settings), "context_noise": fit.context_noise})
        for settings in made.recipe["prior_trainings"]
    ]
    priors, _ = fit_priors(
        [prior.config for prior in made.priors],
        parts["train"],
        parts["validation"],
        trainings,
        seed=fit.seed,
    )
    test = made.layout.as_grids(made.split("test"))
    return -joint.total_log_prob(priors, test).mean().item()


def tuples_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with tuples in place of JSON's lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def rows(names: list[str], rates: list[float], seeds: int, jobs: int) -> list[dict[str, str]]:
    """A row a bundle and rate: mean over seeds ± half of the 95 % Student-t interval.

    ``against none`` pairs each seed with the same seed's at the first rate.
    """
    fits = [Fit(*one) for one in itertools.product(names, rates, range(seeds))]
    with workers(jobs) as run:
        found = dict(zip(fits, run(test_nll, fits), strict=True))
    made = []
    for name, rate in itertools.product(names, rates):
        values = [found[Fit(name, rate, seed)] for seed in range(seeds)]
        against = [found[Fit(name, rates[0], seed)] for seed in range(seeds)]
        pairs = [value - other for value, other in zip(values, against, strict=True)]
        row = {"bundle": name, "noise": f"{rate:g}", "nll": _mean(values)}
        made.append(row | {"difference": _mean(pairs) if rate != rates[0] else ""})
    return made


def _mean(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    mean, half = interval(values)
    return f"{mean:.2f} ± {half:.2f}"


def command(
    bundles: tuple[str, ...] = ("digits",),
    rates: tuple[float, ...] = (0.0, 0.2),
    seeds: int = 3,
    jobs: int = 2,
) -> None:
    """Compare rates of context noise.

    Args:
        bundles: Names or paths of bundles.
        rates: Rates of context noise; each is compared with the first.
        seeds: Number of priors per bundle and rate.
        jobs: Number of priors that learn side by side, each on one thread.
    """
    table = rows(list(bundles), list(rates), seeds, jobs)
    print(f"Nats per canvas of test codes, {seeds} seeds, mean ± 95 % Student-t interval.\n")
    print(markdown_table(table, list(table[0]), HEADINGS))


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench context`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench context", as_positional=False)


if __name__ == "__main__":
    main()

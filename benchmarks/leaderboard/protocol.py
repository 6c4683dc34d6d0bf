"""What every entry goes through: the same seconds, the same choice of temperature, the same
measurement.

Entries learn from the train split, choose on ``tuning`` and are measured on ``test``. Priors are
sampled at the temperature of least FD on the tuning split, of those whose forward NLL there is at
most :data:`~agents.evaluation.frontier.NLL_BOUND` times the MLE prior's.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ral_env
from agents.evaluation import frontier
from agents.evaluation.evaluator import BatchSizes, Evaluator, TemperedPrior
from agents.evaluation.two_sample import ClassifierTraining, CodeTest
from benchmarks.demo import load_bundle
from benchmarks.leaderboard.entries import ENTRIES, Budget, Contender
from benchmarks.leaderboard.results import TRIAL, Record
from ral_env.bundle import Bundle
from ral_env.ranges import SEED, check_ranges

SAMPLES = 3000  # of each run
SWEPT = 1000  # at each temperature that may be chosen
BATCH_SIZES = BatchSizes(sample=500, decode=100, features=500)


@dataclass(frozen=True)
class Task:
    """One run: an entry on an environment.

    Args:
        env: Id of the environment.
        entry: Name of the entry.
        seed: Seed of the training and of the samples.
        seconds: Processor seconds of training.
        settings: Those of the entry's trials that it is run with; None takes its first.
        samples: Number of samples that are measured.
        judges: Number of judges, 2 or more; 0 leaves them out.
        bundle: Name or path of a bundle in place of the environment's own.
    """

    env: str
    entry: str
    seed: int = 0
    seconds: float = 140.0
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    samples: int = SAMPLES
    judges: int = 5
    bundle: str | None = None

    def __post_init__(self) -> None:
        if self.entry not in ENTRIES:
            raise ValueError(f"entry={self.entry!r}, expected one of {list(ENTRIES)}")
        check_ranges(self, seed=SEED, seconds="(0, inf)", samples="[20, inf)", judges="[0, inf)")

    @property
    def chosen(self) -> Mapping[str, Any]:
        """The settings of the run."""
        return ENTRIES[self.entry].trials[0] if self.settings is None else self.settings

    @property
    def key(self) -> Record:
        """What makes a run another run: columns of its line."""
        learns = ENTRIES[self.entry].learns
        return {
            "env": self.env,
            "entry": self.entry,
            "seed": self.seed,
            "budget": self.seconds if learns else 0.0,
            "samples": self.samples,
            "judges": self.judges,
            "settings": json.dumps(dict(self.chosen), sort_keys=True),
        }


def run(task: Task) -> Record:
    """Train and measure on one thread: the run's line.

    Returns:
        :attr:`Task.key`; ``bundle``, the edition; ``seconds`` and ``canvases`` of the training;
        ``temperature``; the figures of :mod:`agents.evaluation.evaluator` and of the judges;
        ``area``, see :mod:`agents.evaluation.frontier`, for priors; ``versions``, ``commit``,
        ``date``.
    """
    bundle, contender = _trained(task)
    figures = measure(contender, bundle, task.seed, task.samples, task.judges)
    return line(task.key, bundle, contender, figures)


def try_settings(task: Task) -> Record:
    """Train, and measure on the tuning split alone: a trial's line.

    Returns:
        What :func:`run` returns, but of all figures ``tuning_fd`` alone.
    """
    bundle, contender = _trained(task)
    figures = {TRIAL: tuning_figure(contender, bundle, task.seed, task.samples)}
    return line(task.key, bundle, contender, figures)


def _trained(task: Task) -> tuple[Bundle, Contender]:
    """The environment's bundle, and what the entry made of it, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(task.seed)
    bundle = load_bundle(task.env, task.bundle)
    budget = Budget(task.env, task.seconds, task.seed, task.bundle)
    return bundle, ENTRIES[task.entry].train(budget, bundle, task.chosen)


def line(
    key: Mapping[str, Any], bundle: Bundle, contender: Contender, figures: Mapping[str, Any]
) -> Record:
    """A line of the results: what was run, what it took, what was found, what that rests on."""
    spent = {"seconds": contender.seconds, "canvases": contender.canvases}
    return {**key, "bundle": bundle.edition, **spent, **figures, **provenance()}


def measure(
    contender: Contender, bundle: Bundle, seed: int, samples: int = SAMPLES, judges: int = 5
) -> Record:
    """The figures of a contender on the test split.

    Args:
        contender: What is measured.
        bundle: Its reals are what is measured against.
        seed: Seed of the samples, and of the judges.
        samples: Number of samples.
        judges: Number of judges; 0 leaves them out.
    """
    evaluator = Evaluator(bundle, BATCH_SIZES)
    found: Record = {}
    if contender.draw is not None:
        draw = contender.draw
        evaluation = evaluator.evaluate_canvases(draw(samples, seed + 1000))
    else:
        prior, found = _tempered(contender, bundle, evaluator, seed)
        draw = partial(evaluator.sample, prior)
        evaluation = evaluator.evaluate_prior(prior, samples, seed + 1000)
        found |= {"temperature": prior.temperature}
    found |= evaluation.figures
    if judges:
        test = CodeTest(bundle, settings=ClassifierTraining(judges))
        if contender.real:
            found |= test.floor(seed).figures
        else:
            found |= _judged(test, list(evaluation.grids), draw, seed)
    return found


def tuning_figure(contender: Contender, bundle: Bundle, seed: int, samples: int) -> float:
    """FD on the tuning split, by which trials are compared, at the temperature that is best there.

    It is in the first feature net's space.
    """
    tuning = Evaluator(bundle, BATCH_SIZES, bundle.tuning_split)
    if contender.draw is not None:
        return tuning.evaluate_canvases(contender.draw(samples, seed + 1000)).figures["fd"]
    prior, _ = _tempered(contender, bundle, Evaluator(bundle, BATCH_SIZES), seed)
    return tuning.evaluate_prior(prior, samples, seed + 1000).figures["fd"]


def _tempered(
    contender: Contender, bundle: Bundle, evaluator: Evaluator, seed: int
) -> tuple[TemperedPrior, Record]:
    """A contender's priors at their chosen temperature, and the area of their frontier."""
    if len(contender.temperatures) == 1 or not bundle.feature_nets:
        return TemperedPrior(contender.priors, contender.temperatures[0]), {}
    tuning = Evaluator(bundle, BATCH_SIZES, bundle.tuning_split)
    swept = frontier.sweep(
        contender.priors, evaluator, tuning, contender.temperatures, SWEPT, seed + 2000
    )
    bound = frontier.NLL_BOUND * tuning.forward_nll(TemperedPrior(bundle.priors))
    return (
        TemperedPrior(contender.priors, swept.chosen(bound).temperature),
        {"area": swept.area},
    )


def _judged(
    test: CodeTest, grids: list[Tensor], draw: Callable[[int, int], list[Tensor]], seed: int
) -> Record:
    """How well fresh classifiers tell samples from reals; more are drawn if there are too few."""
    learnt, unseen = len(test.train[0]), len(test.held_out[0])
    missing = learnt + unseen - len(grids[0])
    if missing > 0:
        more = draw(missing, seed + 3000)
        grids = [torch.cat(level) for level in zip(grids, more, strict=True)]
    train = [grid[:learnt] for grid in grids]
    held_out = [grid[learnt : learnt + unseen] for grid in grids]
    return test.of_samples(train, held_out, seed).figures


def provenance() -> Record:
    """What a result rests on: versions, commit and date."""
    versions = {
        "ral_env": ral_env.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    return {
        "versions": json.dumps(versions),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _commit() -> str:
    """Of the checkout that this is; with a + where files were changed. Empty without one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = "+" if git("status", "--short", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return ""

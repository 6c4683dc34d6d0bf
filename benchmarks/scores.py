"""Reference scores: what random codes, priors and real canvases reach in each environment.

    ral bench scores                             # every id, on the bundle that it runs on here
    ral bench scores RALMNIST-v0                 # one id; those of all others stay in the file
    ral bench scores RALMNIST-v0 --tuned runs/mine/bundle   # with a row of a trained policy

The return is that of the default reward, ``single``, from a full start: the mean of the normalised
score map of a finished canvas. Pages of ids are made from the file (``python docs/make_pages.py``),
and ``env.spec.reward_threshold`` is read from it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from agents.evaluation import metrics
from agents.evaluation.evaluator import Evaluator, TemperedPrior, headings
from agents.evaluation.two_sample import ClassifierTraining, CodeTest
from agents.training.files import Row
from benchmarks.leaderboard.entries import uniform
from ral_env import StandInWarning, __version__, reference
from ral_env import bundle as bundles
from ral_env.bundle import Bundle
from ral_env.files import check_writable, locked, write_bytes
from ral_env.ranges import COUNT, SEED, check_values
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS

PIXELS = 2**20  # of all canvases of a row: 1,000 of 32x32 pixels, 256 of 64x64, ...
FEWEST, MOST = 16, 1000  # canvases of a row, unless told otherwise
NEIGHBOURS = 250  # canvases below which distances between images say too little to be told
NEAREST = 0.05  # quantile of distances to training canvases: a share of copies above it shows
KEPT = (
    "return", "fd", "precision", "recall", "density", "coverage", "diversity", "nearest",
    "forward_nll", "entropy", "nll_oracle", "judge_auc", "judge_auc_deviation",
)  # fmt: skip
SPATIAL = ("precision", "recall", "density", "coverage")


def fd_columns(row: Mapping[str, Any]) -> list[str]:
    """The Fréchet distances of a row, the first feature space's first."""
    return [name for name in row if name == "fd" or name.startswith("fd_")]


def columns(row: Mapping[str, Any]) -> list[str]:
    """Those figures of a row that are kept, in the order of tables."""
    first, *others = KEPT
    kept = [first, *fd_columns(row), *(name for name in others if name != "fd")]
    return [name for name in kept if name in row]


def canvases(bundle: Bundle) -> int:
    """How many canvases a row has: fewer of large images."""
    return max(FEWEST, min(MOST, PIXELS // bundle.image_size**2))


class Scores:
    """Rows of figures of one bundle.

    Args:
        bundle: What is measured.
        count: Number of canvases of a row, where there are as many.
        seed: Seed of all that is sampled.
        judges: Number of fresh classifiers that tell a row from reals; 0 leaves "judge AUC" out.
    """

    def __init__(self, bundle: Bundle, count: int, seed: int = 0, judges: int = 0):
        self.bundle, self.count, self.seed = bundle, count, seed
        self.evaluator = Evaluator(bundle)
        self.held_out = [grid[:count] for grid in self.evaluator.held_out]
        self.train = bundle.split("train")
        self.test = CodeTest(bundle, count, ClassifierTraining(judges)) if judges else None

    def rows(self, tuned: Sequence[Any] = ()) -> dict[str, Row]:
        """All rows, by label; real canvases first.

        Args:
            tuned: fine-tuned policies, one a level; by default those of the bundle, if it has any.
        """
        train = self.bundle.layout.as_grids(self.train[: self.count])
        real = self._measure(self.held_out) | {"nearest": self.nearest(self.held_out)}
        found = {reference.REAL: {name: real[name] for name in ("return", "nearest")}}
        found[reference.TRAIN] = self._measure(train)
        if self.test:
            found[reference.TRAIN] |= self.test.floor(self.seed).figures
        codes = uniform(self.bundle, self.count, self.seed)
        found["random codes"] = self._measure(codes) | {"nearest": self.nearest(codes)}
        if self.test:
            held_out = uniform(self.bundle, len(self.test.held_out[0]), self.seed + 1)
            found["random codes"] |= self.test.of_samples(codes, held_out, self.seed).figures
        policies = {reference.PRIOR: self.bundle.priors, "RAL": tuned or self.bundle.policies}
        for label, priors in policies.items():
            if priors:
                found[label] = self._of_prior(TemperedPrior(priors))
        return found

    def _of_prior(self, prior: TemperedPrior) -> Row:
        grids = self.evaluator.sample(prior, self.count, self.seed)
        row = self._measure(grids) | {
            "nearest": self.nearest(grids),
            "forward_nll": -prior.log_prob(self.held_out).mean().item(),
            "entropy": -prior.log_prob(grids).mean().item(),
        }
        if self.test:
            unseen = self.evaluator.sample(prior, len(self.test.held_out[0]), self.seed + 1)
            row |= self.test.of_samples(grids, unseen, self.seed).figures
        return row

    def nearest(self, grids: Sequence[Tensor]) -> float:
        """Codes by which canvases differ from their nearest training canvas: a low quantile."""
        flat = self.bundle.layout.flatten(grids).numpy().astype(self.train.dtype)
        return metrics.nearest_distance(self.train, flat, NEAREST)

    def _measure(self, grids: Sequence[Tensor]) -> Row:
        """The figures of canvases; those of neighbours only where there are enough."""
        figures = dict(self.evaluator.evaluate_canvases(grids).figures)
        figures["return"] = figures.pop("score")
        few = min(len(grids[0]), self.evaluator.held_out_count) < NEIGHBOURS
        left_out = (*fd_columns(figures), *SPATIAL) if few else ()
        return {name: figures[name] for name in columns(figures) if name not in left_out}


def measure(
    env: str,
    count: int | None,
    seed: int,
    judges: int,
    tuned: str | None,
    known: dict[str, dict[str, Row]],
) -> dict[str, Any]:
    """What the file holds of one id.

    ``known`` has the rows that were measured so far, by the bundle's edition: ids may share one.
    """
    task = TASKS[env]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)  # the record says on what it ran
        bundle = bundles.for_task(task)
    count = count or canvases(bundle)
    policies = bundles.load(tuned).priors if tuned else ()
    if bundle.edition not in known:
        known[bundle.edition] = Scores(bundle, count, seed, judges).rows(policies)
    command = f"ral bench scores {env} --count {count} --seed {seed} --judges {judges}"
    return {
        "bundle": bundle.edition,
        "dataset": bundle.dataset,
        "command": command + (" --tuned BUNDLE" if tuned else ""),
        "ral-env": __version__,
        "count": count,
        "rows": known[bundle.edition],
    }


def earlier(before: Mapping[str, Any] | None, edition: str) -> dict[str, Any]:
    """``earlier``: what was measured on earlier editions of an id's bundle, the oldest first.

    Args:
        before: What the file has of the id.
        edition: Of the bundle that has been measured now.

    Returns:
        The key and its list of records, of the rows of real canvases and of the prior alone;
        nothing where there was no other edition.
    """
    if before is None:
        return {}
    records = list(before.get("earlier", ()))
    if before["bundle"] != edition:
        labels = (reference.REAL, reference.TRAIN, reference.PRIOR)
        rows = {label: before["rows"][label] for label in labels if label in before["rows"]}
        records.append({key: before[key] for key in ("bundle", "count")} | {"rows": rows})
    return {"earlier": records} if records else {}


def text(env: str, found: dict[str, Any]) -> str:
    """One id's rows as a table below its bundle."""
    rows = [{"row": label} | row for label, row in found["rows"].items()]
    told = columns({name: None for row in rows for name in row})
    table = markdown_table(rows, ["row", *told], {"row": "", **headings(told)})
    return (
        f"{env}, on {found['bundle']} ({found['dataset']}), {found['count']} canvases\n\n{table}\n"
    )


def command(
    envs: Sequence[str],
    count: int | None = None,
    seed: int = 0,
    judges: int = 0,
    tuned: str | None = None,
    out: str = str(reference.FILE),
) -> None:
    """Measure environments, and put what was found into a file.

    Args:
        envs: Ids of environments; what the file has of others stays.
        count: Number of canvases of each row; fewer of large images if not given.
        seed: Seed of all that is sampled.
        judges: Number of fresh classifiers that tell each row from real canvases; 0 for none.
        tuned: Path of a bundle that `ral train` left, for the row "RAL" of the one id in `envs`.
        out: JSON file.
    """
    check_values({"count": count, "seed": seed, "judges": judges}, count=COUNT, seed=SEED,
                 judges="[0, inf)")  # fmt: skip
    if unknown := [env for env in envs if env not in TASKS]:
        raise ValueError(f"envs={unknown}, expected ids of {list(TASKS)}")
    if tuned and len(envs) > 1:
        raise ValueError(f"--tuned is of one id, and envs are {len(envs)}: name one")
    file = Path(out)
    check_writable(file)
    known: dict[str, dict[str, Row]] = {}
    for env in envs:
        found = measure(env, count, seed, judges, tuned, known)
        with locked(file.parent):  # other processes may add to it, too
            there = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            there[env] = found | earlier(there.get(env), found["bundle"])
            ordered = {name: there[name] for name in TASKS if name in there}
            write_bytes(file, f"{json.dumps(ordered, indent=1)}\n".encode())
        print(text(env, found), flush=True)
    print(f"wrote {file}: `python docs/make_pages.py` shows it on the pages of the ids")


def main(argv: list[str] | None = None) -> None:
    """Measure what random codes, priors and real canvases reach in environments."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral bench scores", description=main.__doc__)
    parser.add_argument("envs", nargs="*", help="ids of environments; all of them if none is named")
    parser.add_function_arguments(command, as_group=False, skip={"envs"})
    given = vars(parser.parse_args(argv))
    command(given.pop("envs") or tuple(TASKS), **given)


if __name__ == "__main__":
    main()

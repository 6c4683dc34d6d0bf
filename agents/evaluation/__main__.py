"""``ral evaluate``: priors of bundles side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from agents.evaluation.evaluator import Evaluator, TemperedPrior, headings
from agents.evaluation.two_sample import (
    REPLACED,
    TRAINING,
    ClassifierTraining,
    CodeTest,
    replace_codes,
)
from agents.training.files import Row
from ral_env import bundle as bundles
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS


def evaluate(
    bundle: list[str],
    count: int = 1000,
    seed: int = 0,
    judges: int = 5,
    judge_steps: int = 1000,
    judge_seconds: float | None = None,
    out: str = "",
) -> None:
    """Evaluate the priors of bundles against the held-out codes of the first of them.

    It prints a row for each bundle, and before them one for as many real training codes, which is
    as near to the held-out ones as a prior can hope to come. Judges are fresh classifiers that
    learn to tell samples from real canvases; "judge AUC" is 0.5 where they cannot.

    Args:
        bundle: Names or paths of bundles, or environment ids; all must have the VQ-VAE of the
            first, as those that `ral train` leaves have.
        count: Number of samples of each bundle. Fréchet distances at different counts cannot be
            compared.
        seed: Seed of the samples.
        judges: Number of judges of each row, 2 or more; 0 leaves "judge AUC" out.
        judge_steps: Largest number of updates of each judge; it stops early when it learns no more.
        judge_seconds: Longest training of each judge, in seconds; no limit if not given.
        out: JSON file to write the figures to.
    """
    if count < 2:
        raise ValueError(f"count={count}, expected 2 or more")
    loaded = {name: _load(name) for name in bundle}
    first = loaded[bundle[0]]
    _check(list(loaded.values()))
    for name, one in loaded.items():
        if not one.priors:
            raise ValueError(f"{name!r} has no priors to sample from: leave it out")
    test = None
    if judges:
        training = replace(TRAINING, steps=judge_steps)
        settings = ClassifierTraining(judges, training, seconds=judge_seconds)
        test = CodeTest(first, count, settings)
    evaluator = Evaluator(first)
    rows = _real_rows(evaluator, count, test, seed)
    for name, one in loaded.items():
        prior = TemperedPrior(one.priors)
        found = evaluator.evaluate_prior(prior, count, seed)
        rows[name] = found.figures
        if test:
            unseen = evaluator.sample(prior, len(test.held_out[0]), seed + 1)
            rows[name] |= test.of_samples(found.grids, unseen, seed).figures
    editions = {name: one.edition for name, one in loaded.items()}
    bundles_used = "; ".join(f"{name}: bundle {edition}" for name, edition in editions.items())
    print(f"{count} samples, {_held_out(evaluator)} of {first.dataset}. {bundles_used}\n")
    print(table(rows))
    if test:
        print(f"\n{_power(*list(rows.values())[:2])}")
    if out:
        given = {"bundle": bundle, "editions": editions, "count": count, "seed": seed}
        given |= {"judges": judges, "judge_steps": judge_steps, "judge_seconds": judge_seconds}
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(given | {"dataset": first.dataset, "rows": rows}, indent=2))


def _real_rows(
    evaluator: Evaluator, count: int, test: CodeTest | None, seed: int
) -> dict[str, Row]:
    """Rows of real training canvases, and of those with codes replaced, which judges must see."""
    layout = evaluator.bundle.layout
    real = [grid[:count] for grid in layout.as_grids(evaluator.bundle.split("train"))]
    label = f"real, {len(real[0])} of the training set"
    rows = {label: evaluator.evaluate_canvases(real).figures}
    if test:
        rows[label] |= test.floor(seed).figures
        replaced = evaluator.evaluate_canvases(replace_codes(real, layout.num_codes, seed=seed))
        label = f"real, {REPLACED:.0%} of codes replaced"
        rows[label] = replaced.figures | test.power(seed).figures
    return rows


def _power(floor: Row, power: Row) -> str:
    """Whether the judges see that codes were replaced, in words."""
    deviation = max(floor["judge_auc_deviation"], power["judge_auc_deviation"])
    if power["judge_auc"] > floor["judge_auc"] + 2 * deviation:
        return f"Judges tell reals with {REPLACED:.0%} of their codes replaced from other reals."
    return (
        f"Judges do not tell reals with {REPLACED:.0%} of their codes replaced from other reals, "
        "so a judge AUC near 0.5 says nothing here: raise --judge_steps or --count."
    )


def _held_out(evaluator: Evaluator) -> str:
    """How many canvases samples are compared with."""
    codes, features = len(evaluator.held_out[0]), evaluator.held_out_count
    text = f"{codes} held-out canvases"
    return text if features == codes else f"{text} (by their features {features})"


def table(rows: dict[str, Row]) -> str:
    """A line for each row, four significant digits."""
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [
        {"bundle": name} | {key: f"{value:.4g}" for key, value in row.items()}
        for name, row in rows.items()
    ]
    return markdown_table(lines, ["bundle", *columns], headings(columns))


def _load(name: str) -> bundles.Bundle:
    task = TASKS.get(name.rpartition(":")[2])
    return bundles.load(name) if task is None else bundles.for_task(task)


def _check(loaded: Sequence[bundles.Bundle]) -> None:
    """Refuse bundles whose codes mean other images than those of the first."""
    first, *others = loaded
    for other in others:
        if other.layout != first.layout or not _same_weights(other.vqvae, first.vqvae):
            raise ValueError(
                f"{other!r} has another VQ-VAE than {first!r}, so their codes mean other images: "
                "evaluate them one by one"
            )


def _same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )


def main(argv: list[str] | None = None) -> None:
    """Evaluate the priors of bundles against the held-out codes of the first of them."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral evaluate", description=main.__doc__)
    parser.add_argument(
        "bundle",
        nargs="+",
        help="names or paths of bundles, or environment ids; all must have the VQ-VAE of the first",
    )
    parser.add_function_arguments(evaluate, skip={"bundle"}, as_group=False, as_positional=False)
    evaluate(**parser.parse_args(argv))


if __name__ == "__main__":
    main()

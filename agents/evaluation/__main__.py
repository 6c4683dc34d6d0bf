"""``ral evaluate``: priors of bundles side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from agents.evaluation.evaluator import Evaluator, TemperedPrior, headings
from agents.training.files import Row
from ral_env import bundle as bundles
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS


def evaluate(bundle: list[str], count: int = 1000, seed: int = 0, out: str = "") -> None:
    """Evaluate the priors of bundles against the held-out codes of the first of them.

    It prints a row for each bundle, and before them one for as many real training codes, which is
    as near to the held-out ones as a prior can hope to come.

    Args:
        bundle: Names or paths of bundles, or environment ids; all must have the VQ-VAE of the
            first, as those that `ral train` leaves have.
        count: Number of samples of each bundle. Fréchet distances at different counts cannot be
            compared.
        seed: Seed of the samples.
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
    evaluator = Evaluator(first)
    real = [grid[:count] for grid in first.layout.as_grids(first.split("train"))]
    label = f"real, {len(real[0])} of the training set"
    rows = {label: evaluator.evaluate_canvases(real).figures}
    for name, one in loaded.items():
        rows[name] = evaluator.evaluate_prior(TemperedPrior(one.priors), count, seed).figures
    editions = {name: one.edition for name, one in loaded.items()}
    bundles_used = "; ".join(f"{name}: bundle {edition}" for name, edition in editions.items())
    print(f"{count} samples, {_held_out(evaluator)} of {first.dataset}. {bundles_used}\n")
    print(table(rows))
    if out:
        settings = {
            "bundle": bundle,
            "editions": editions,
            "count": count,
            "seed": seed,
            "dataset": first.dataset,
        }
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings | {"rows": rows}, indent=2))


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

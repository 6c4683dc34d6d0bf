"""``ral demo``: fine-tune a shipped prior and say honestly what came of it.

A table of six rows, and one of four at the best of all temperatures. The questions they answer: is
RAL better than the prior it started from, than as much more maximum likelihood, than that sampled
colder (which also "improves" samples), than its own loop without any reward; and what has it cost
in likelihood and diversity?
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch

import ral_env
from agents import reinforce
from agents.evaluation import metrics
from agents.evaluation.evaluator import (
    BatchSizes,
    Difference,
    Evaluator,
    TemperedPrior,
    fd_figures,
    headings,
    nearer_in_all,
)  # fmt: skip
from agents.evaluation.frontier import NLL_BOUND, TEMPERATURES
from agents.training.fit import PriorTraining, fit_priors, mean_nll
from benchmarks import demo_frontier, demo_pictures
from benchmarks.workers import workers
from ral_env.bundle import Bundle
from ral_env.envs.single import LatentCanvasEnv
from ral_env.files import check_writable, write_bytes
from ral_env.migrations import old_names
from ral_env.nets import joint
from ral_env.ranges import COUNT, check_values
from ral_env.tables import markdown_table
from ral_env.tasks import expect_ours

__getattr__ = old_names(__name__)

SAMPLES = 3000  # of each row of the table
BATCH_SIZES = BatchSizes(sample=500, decode=100, features=500)
FLOOR, PRIOR, CONTINUED, COOLED, NO_REWARD, RAL = (
    "floor: train against test",
    "MLE prior",
    "continued MLE",
    "continued MLE, matched entropy",
    "RAL loop, no reward",
    "RAL",
)
TRAINED = (RAL, NO_REWARD, CONTINUED)  # the longest first
Row = dict[str, Any]  # "row" is its label; the others are figures

# A fair chance for more maximum likelihood: the anchor's own batch, an average of the weights as
# RAL has, and of all that the time allows the weights that were best on validation codes.
CONTINUED_TRAINING = PriorTraining(
    steps=10**9, batch=64, learning_rate=3e-4, schedule="constant", weight_decay=1e-2, ema=0.99,
    validate_every=50,
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """Something to train from the shipped prior.

    Args:
        label: One of :data:`TRAINED`.
        env: Id of the environment.
        seconds: How long it is trained.
        seed: Seed of the training.
        preset: Settings of the RAL loop.
        bundle: Another bundle than the environment's own.
        clock: What seconds are counted by.
        context_noise: Of continued maximum likelihood, see
            :class:`agents.training.fit.PriorTraining`.
    """

    label: str
    env: str
    seconds: float
    seed: int
    preset: str = "small"
    bundle: str | None = None
    clock: Callable[[], float] = time.perf_counter
    context_noise: float = 0.0


class Trained(NamedTuple):
    """What an arm leaves: weights by name for each level, seconds that it took, and the rows of
    its learning curve."""

    weights: list[dict[str, np.ndarray]]
    seconds: float
    curve: list[dict[str, float]]


def train_arm(arm: Arm) -> Trained:
    """Train one arm for its time.

    It uses one thread, beside another arm's process: small nets gain nothing from a second thread.
    """
    torch.set_num_threads(1)
    bundle = load_bundle(arm.env, arm.bundle)
    train = continue_mle if arm.label == CONTINUED else run_loop
    priors, seconds, curve = train(arm, bundle)
    weights = [{name: v.numpy() for name, v in prior.state_dict().items()} for prior in priors]
    return Trained(weights, seconds, curve)


def continue_mle(arm: Arm, bundle: Bundle) -> tuple[list[Any], float, list[dict[str, float]]]:
    """Give the priors more maximum likelihood: the nets, seconds, and the learning curve."""
    layout, start = bundle.layout, arm.clock()
    train, validation = (layout.as_grids(bundle.split(s)) for s in ("train", "validation"))
    priors = copy.deepcopy(list(bundle.priors))
    training = dataclasses.replace(CONTINUED_TRAINING, context_noise=arm.context_noise)
    nats = list(map(mean_nll, priors, validation, [None, *validation[:-1]]))
    torch.manual_seed(arm.seed)
    priors, histories = fit_priors(
        priors,
        train,
        validation,
        [training] * len(priors),
        seed=arm.seed,
        seconds=arm.seconds,
        options=lambda level, fitted: {"clock": arm.clock},
    )
    curve: list[dict[str, float]] = []
    for level, history in enumerate(histories):
        before = curve[-1]["seconds"] if curve else 0.0
        for row in history:
            nats[level] = row["validation_nats_per_code"] * validation[level][0].numel()
            curve.append({"seconds": before + row["seconds"], "validation NLL": sum(nats)})
    return priors, arm.clock() - start, curve


def run_loop(arm: Arm, bundle: Bundle) -> tuple[list[Any], float, list[dict[str, float]]]:
    """Run the RAL loop, with or without its reward: the nets, seconds, and the learning curve."""
    watched = [grid[:500] for grid in bundle.layout.as_grids(bundle.split("validation"))]
    config = dataclasses.replace(
        reinforce.PRESETS[arm.preset],
        env=arm.env,
        bundle=arm.bundle,
        reward_source="discriminator" if arm.label == RAL else "constant",
        seconds=arm.seconds,
        iterations=10**9,
        seed=arm.seed,
    )
    result = reinforce.train(
        config,
        progress=arm.label == RAL,
        watch=lambda _, policies: {
            "validation NLL": -joint.total_log_prob(policies, watched).mean().item()
        },
        watch_every=20,
        clock=arm.clock,
    )
    if result.interrupted:
        raise KeyboardInterrupt
    if not result.history:
        raise ValueError(
            f"seconds={arm.seconds} were over before the first policy update: give more"
        )
    return result.policies, result.seconds, result.history


def load_bundle(env: str, bundle: str | None = None) -> Bundle:
    """The bundle that an environment runs on, its own unless another is named."""
    expect_ours(env)
    options: dict[str, Any] = {} if bundle is None else {"bundle": bundle}
    instance = gym.make(env, **options)
    instance.close()
    return cast(LatentCanvasEnv, instance.unwrapped).bundle


def measure_seed(
    env: str, bundle: Bundle, trained: Mapping[str, Trained], seed: int, out: Path
) -> tuple[list[Row], list[Row], str]:
    """The tables' six and four rows for one seed, and the note; the pictures go to ``out``.

    Args:
        trained: The arms of this seed, by label.
    """
    evaluator = Evaluator(bundle, BATCH_SIZES)
    priors = {PRIOR: TemperedPrior(bundle.priors)}
    for label, (weights, *_) in trained.items():
        priors[label] = TemperedPrior(with_weights(bundle.priors, weights))
    priors[COOLED] = cooled(evaluator, priors[CONTINUED], priors[RAL], seed)
    seconds = {PRIOR: 0.0, **{label: arm[1] for label, arm in trained.items()}}
    seconds[COOLED] = seconds[CONTINUED]

    train = bundle.layout.as_grids(bundle.split("train"))
    evaluations = {FLOOR: evaluator.evaluate_canvases([grid[:SAMPLES] for grid in train])}
    # The oracle's NLL of real codes is its own entropy, which has a column.
    evaluations[FLOOR].figures.pop("nll_oracle", None)
    rows: list[Row] = [{"row": FLOOR, **evaluations[FLOOR].figures}]
    for label in (PRIOR, CONTINUED, COOLED, NO_REWARD, RAL):
        evaluations[label] = evaluator.evaluate_prior(priors[label], SAMPLES, seed + 1000)
        row: Row = {"row": label, **evaluations[label].figures}
        if bundle.oracles:
            row["oracle_entropy"] = evaluator.oracle_entropy
        rows.append(row | {"temperature": priors[label].temperature, "seconds": seconds[label]})
    for row in rows:
        if row["row"] not in (FLOOR, COOLED):
            found = evaluator.fd_differences(evaluations[row["row"]], evaluations[COOLED])
            row |= {f"{name}_minus_control": dataclasses.astuple(d) for name, d in found.items()}
    paint(evaluator, priors, {label: arm[2] for label, arm in trained.items()}, env, seed, out)
    swept = demo_frontier.sweep(
        evaluator, {label: priors[label] for label in (PRIOR, CONTINUED, NO_REWARD, RAL)}, seed
    )
    demo_frontier.picture(swept, evaluations[FLOOR].figures, out / "frontier.png")
    return rows, demo_frontier.rows(swept, CONTINUED), memory_note(evaluator, priors[RAL], seed)


def with_weights(priors: Sequence[Any], weights: Sequence[dict[str, np.ndarray]]) -> list[Any]:
    """Copies of priors, one a level, with other weights."""
    made = copy.deepcopy(list(priors))
    for prior, state in zip(made, weights, strict=True):
        prior.load_state_dict({name: torch.from_numpy(v) for name, v in state.items()})
    return made


def cooled(
    evaluator: Evaluator, prior: TemperedPrior, like: TemperedPrior, seed: int
) -> TemperedPrior:
    """A prior at the temperature where its entropy is that of another."""
    temperature = metrics.matching_temperature(
        lambda t: evaluator.entropy(TemperedPrior(prior.priors, t), 1000, seed),
        evaluator.entropy(like, 1000, seed),
        low=0.3,
        high=2.0,
    )
    return TemperedPrior(prior.priors, temperature)


def memory_note(evaluator: Evaluator, prior: TemperedPrior, seed: int) -> str:
    """Whether a prior has learnt the training set by heart, in words."""
    bundle = evaluator.bundle
    train, held_out = bundle.split("train"), bundle.split("test")[:500]
    samples = bundle.layout.flatten(evaluator.sample(prior, 500, seed)).numpy()
    note = (
        f"Memorised? Codes that differ from the nearest training canvas, median: RAL "
        f"{metrics.nearest_distance(train, samples):.0f}, held-out real "
        f"{metrics.nearest_distance(train, held_out):.0f} of {bundle.layout.length}."
    )
    if len(train) < SAMPLES:
        note += f" The floor has N = {len(train):,}, all the real ones there are."
    return note


def paint(
    evaluator: Evaluator,
    priors: Mapping[str, TemperedPrior],
    curves: Mapping[str, list[dict[str, float]]],
    env: str,
    seed: int,
    out: Path,
) -> None:
    """The pictures of one seed, as PNG files in ``out``."""
    shown = {label: priors[label] for label in (PRIOR, CONTINUED, RAL)}
    demo_pictures.sample_grids(evaluator, shown, seed, out / "samples.png")
    curves = dict(curves)
    curves[NO_REWARD] = [  # its reward is a constant, which would only stretch the axis
        {name: value for name, value in row.items() if name != "reward"}
        for row in curves[NO_REWARD]
    ]
    demo_pictures.learning_curves(curves, out / "curves.png")
    demo_pictures.episode(evaluator, env, priors[RAL], seed, out / "episode.png")
    demo_pictures.completions(evaluator, priors[RAL], seed, out / "completion.png")


COLUMNS = ("precision", "recall", "coverage", "entropy", "forward_nll")
ORACLE_COLUMNS = ("nll_oracle", "reverse_kl", "forward_kl", "oracle_entropy")
DIGITS = {"precision": 3, "recall": 3, "coverage": 3, "temperature": 2, "seconds": 0,
          "area": 3, "area_minus_control": 3}  # fmt: skip


def table(seeds: list[list[Row]], bundle: Bundle) -> str:
    """Rows of one seed, or means over seeds with 95 % Student-t intervals."""
    distances = [
        column
        for figure in fd_figures(bundle.feature_nets).values()
        for column in (figure, f"{figure}_minus_control")
    ]
    oracle = ORACLE_COLUMNS if bundle.oracles else ()
    return _table(seeds, [*distances, *COLUMNS, *oracle, "temperature", "seconds"])


def _table(seeds: list[list[Row]], columns: Sequence[str]) -> str:
    lines = [
        {"row": rows[0]["row"]}
        | {column: _cell(column, [row.get(column) for row in rows]) for column in columns}
        for rows in zip(*seeds, strict=True)
    ]
    return markdown_table(lines, ["row", *columns], headings(columns))


def claim(seeds: list[list[Row]], bundle: Bundle) -> str:
    """Whether RAL came nearer to real images than the control, in words.

    In each feature space by the interval over seeds, or of one seed by the bootstrap's.
    """
    rows = [next(row for row in rows if row["row"] == RAL) for rows in seeds]
    differences = {}
    for figure in fd_figures(bundle.feature_nets).values():
        found = [row[f"{figure}_minus_control"] for row in rows]
        if len(found) > 1:
            mean, half = metrics.interval([value for value, _, _ in found])
            differences[figure] = Difference(mean, mean - half, mean + half)
        else:
            differences[figure] = Difference(*found[0])
    return f"RAL against '{COOLED}': {nearer_in_all(differences)}."


def _cell(column: str, values: list[Any]) -> str:
    """A figure as the table prints it, from its values in all seeds."""
    sign = "+" if column.endswith("_minus_control") else ""
    digits = DIGITS.get(column, 2)
    if any(value is None for value in values):
        return ""
    if isinstance(values[0], tuple) and len(values) == 1:
        value, low, high = (f"{number:{sign}.{digits}f}" for number in values[0])
        return f"{value} [{low}, {high}]"
    numbers = [value[0] if isinstance(value, tuple) else value for value in values]
    if len(numbers) > 1 and np.ptp(numbers) > 0:
        mean, half = metrics.interval(numbers)
        return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"
    return f"{numbers[0]:{sign}.{digits}f}"


def command(
    env: str = "RALMNIST-v0",
    seconds: float = 140.0,
    seeds: int = 1,
    out: str | None = None,
    jobs: int = 2,
    preset: Literal["small", "paper"] = "small",
    context_noise: float = 0.0,
) -> None:
    """Fine-tune a shipped prior with RAL and compare it with what else the time could buy.

    Args:
        env: Id of an environment whose bundle has a feature net: RALDigits-v0, RALFaces32-v0,
            RALOracle-v0, RALOracle16-v0 or RALOracleTwoLevel-v0.
        seconds: Training time of RAL, of the loop without reward, and of continued MLE.
        seeds: Number of times that everything is run; from 2 on the table has 95 % intervals.
        out: Folder for the pictures and figures; runs/demo/ENV-PRESET if not given.
        jobs: Number of trainings that run side by side, each on one core.
        preset: Settings of the RAL loop (see `ral train --help`).
        context_noise: Continued MLE is conditioned on codes of which up to this share are samples
            of the prior itself; 0 is plain maximum likelihood.
    """
    check_values(locals(), seeds=COUNT, seconds="(0, inf)", jobs=COUNT)
    dataclasses.replace(CONTINUED_TRAINING, context_noise=context_noise)  # which checks its range
    torch.set_num_threads(1)
    bundle = load_bundle(env)
    if not bundle.feature_nets:
        raise ValueError(
            f"bundle {bundle.name!r} has no feature net, which the Fréchet distance needs"
        )
    folder = Path(out or f"runs/demo/{env}-{preset}")
    check_writable(folder / "results.json")
    arms = [
        Arm(label, env, seconds, seed, preset, context_noise=context_noise)
        for seed in range(seeds)
        for label in TRAINED
    ]
    print(f"{len(arms)} arms of {seconds:.0f} s, {jobs} at a time, on {bundle.dataset}")
    with workers(jobs) as run:
        trained = dict(zip(arms, run(train_arm, arms), strict=True))
    results, frontiers, notes = [], [], []
    for seed in range(seeds):
        print(f"measuring seed {seed}")
        place = folder if seeds == 1 else folder / f"seed{seed}"
        of_seed = {arm.label: found for arm, found in trained.items() if arm.seed == seed}
        rows, reached, note = measure_seed(env, bundle, of_seed, seed, place)
        results.append(rows)
        frontiers.append(reached)
        notes.append(note)
    text = "\n".join([*_heading(env, bundle, seeds), "", table(results, bundle), "",
                      claim(results, bundle), notes[0], "", *_frontier_heading(bundle, seeds), "",
                      _table(frontiers, demo_frontier.COLUMNS)])  # fmt: skip
    write_bytes(folder / "table.md", f"{text}\n".encode())
    record = {
        "env": env,
        "dataset": bundle.dataset,
        "bundle": bundle.edition,
        "seconds": seconds,
        "samples": SAMPLES,
        "context_noise": context_noise,
        "preset": dataclasses.asdict(reinforce.PRESETS[preset]),
        "versions": {"ral_env": ral_env.__version__, "torch": torch.__version__},
        "rows": results,
        "frontiers": frontiers,
    }
    write_bytes(folder / "results.json", f"{json.dumps(record, indent=2)}\n".encode())
    print(f"\n{text}\n\nPictures (samples, curves, completion), table and figures: {folder}")


def _heading(env: str, bundle: Bundle, seeds: int) -> list[str]:
    """What the table's figures are, in words."""
    how = "paired bootstrap" if seeds == 1 else f"Student t over {seeds} seeds"
    figures = fd_figures(bundle.feature_nets)
    above = headings(figures.values())
    spaces = " and ".join(
        f"'{bundle.feature_nets[name].config.name}' ({above[figure]})"
        for name, figure in figures.items()
    )
    return [
        f"{env}: {bundle.dataset}; bundle {bundle.edition}. Fréchet distance (FD) of {SAMPLES:,} "
        f"samples to {Evaluator(bundle).held_out_count:,} held-out reconstructions in the feature "
        f"space {spaces}.",
        f"'FD - control' is against '{COOLED}', with its 95 % interval ({how}); negative is nearer "
        "to real images. Entropy, NLL and KL in nats per canvas.",
    ]


def _frontier_heading(bundle: Bundle, seeds: int) -> list[str]:
    """What the frontier's table is, in words."""
    temperatures = ", ".join(f"{t:g}" for t in TEMPERATURES)
    how = "bootstrap" if seeds == 1 else f"Student t over {seeds} seeds"
    return [
        f"The frontier, temperatures {temperatures}, {demo_frontier.SAMPLES:,} samples at each. A "
        f"row is at the temperature of least FD on the {bundle.tuning_split} split, of those whose "
        f"forward NLL there is at most {NLL_BOUND:g} times the prior's; its figures are those of "
        "the test split.",
        "'area' is what all temperatures dominate of the plane of precision and coverage, with its "
        f"95 % interval ({how}); the control is '{CONTINUED}'.",
    ]


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral demo`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral demo", as_positional=False)


if __name__ == "__main__":
    main()

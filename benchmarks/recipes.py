"""Which settings of the RAL loop are worth their time, measured where the truth is known.

    ral bench recipes                                  # all variants, one seed: the search
    ral bench recipes --variants small,steady --seeds 1,2,3 --bundles PATH1,PATH2   # the report

Every variant starts from the same MLE prior and has the same time on one core. It is compared with
continued MLE, given as much time and cooled to the variant's own entropy: less reverse KL counts
only where forward NLL and Fréchet distance are no worse. Tune on one seed and one bundle, report
others: whoever picks the best of twenty by their own noise finds a winner every time.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agents import reinforce
from agents.evaluation import metrics
from agents.evaluation.evaluator import HEADINGS, Evaluator, TemperedPrior
from agents.training.discriminator import DiscriminatorTraining
from agents.training.files import write_rows, write_tensors
from benchmarks import demo
from benchmarks.workers import workers
from ral_env import bundle as bundles
from ral_env import migrations
from ral_env.files import check_writable, locked
from ral_env.nets import PatchGANConfig
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS

# Each variant: what differs from the preset `small`.
VARIANTS: dict[str, dict[str, Any]] = {
    "small": {},
    "no reward": {"reward_source": "constant"},
    "no baseline": {"baseline": "none"},
    "running mean": {"baseline": "running-mean"},
    "group (GRPO)": {"baseline": "group", "group": 64},
    "not standardised": {"standardise": False},
    "batch 256": {"canvases": 256},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "learning rate 3e-3": {"learning_rate": 3e-3},
    "anchor 0": {"mle_coef": 0.0},
    "anchor 0.1": {"mle_coef": 0.1},
    "anchor 1": {"mle_coef": 1.0},
    "KL 0.1, no anchor": {"mle_coef": 0.0, "kl_loss_coef": 0.1},
    "KL 1, no anchor": {"mle_coef": 0.0, "kl_loss_coef": 1.0},
    "entropy 0.03": {"ent_coef": 0.03},
    "PPO, 3 epochs": {"epochs": 3},
    "average 0.995": {"ema": 0.995},
    "no average": {"ema": 0.0},
    "wgan-gp": {"discriminator.loss": "wgan-gp", "discriminator.learning_rate": 1e-4},
    "hinge": {"discriminator.loss": "hinge"},
    "discriminator sees images": {
        "discriminator_input": "image",
        "discriminator_net": PatchGANConfig(layers=3),
        "discriminator_warmup": 300,
    },
    "1 discriminator update": {"discriminator_updates": 1},
    "6 discriminator updates": {"discriminator_updates": 6},
    "fresh fakes": {"fake_pool": 0},
    "intermediate reward": {"reward": "intermediate"},
    "row-wise reward": {"reward": "rowwise"},
    "partial generation": {"start": "partial"},
    "running normaliser": {"normaliser": "running"},
    "no gate": {"gate_auc": 0.0},
    "anchor 2": {"mle_coef": 2.0},
    "anchor 1, average 0.995": {"mle_coef": 1.0, "ema": 0.995},
    "anchor 1, 6 discriminator updates": {"mle_coef": 1.0, "discriminator_updates": 6},
    "anchor 1, KL 0.1": {"mle_coef": 1.0, "kl_loss_coef": 0.1},
    "anchor 1, batch 128": {"mle_coef": 1.0, "canvases": 128},
}


# Processor time: a training that shares its core with another program is given as much as one that
# does not.
CLOCK = time.process_time

# Columns of the printed table, in its order, and their digits. Those that end in "minus_mle" are
# differences from continued MLE at the same entropy.
DIGITS = {
    "reverse_kl_minus_mle": 2, "forward_nll_minus_mle": 2, "fd_minus_mle": 3, "reverse_kl": 1,
    "forward_nll": 1, "fd": 2, "entropy": 1, "recall": 3, "auc": 2, "iterations": 0,
}  # fmt: skip
TITLES = HEADINGS | {
    f"{name}_minus_mle": f"{HEADINGS[name]} - MLE" for name in ("reverse_kl", "forward_nll", "fd")
}


def config_of(changes: dict[str, Any], **more: Any) -> reinforce.Config:
    """The preset ``small`` with these changes; ``discriminator.NAME`` reaches into its training."""
    small = reinforce.PRESETS["small"]
    inner = {k.partition(".")[2]: v for k, v in changes.items() if "." in k}
    outer = {k: v for k, v in changes.items() if "." not in k}
    discriminator: DiscriminatorTraining = dataclasses.replace(small.discriminator, **inner)
    return dataclasses.replace(small, **(outer | {"discriminator": discriminator} | more))


@dataclasses.dataclass(frozen=True)
class Job:
    """A variant to be trained, and the folder that holds the weights of continued MLE."""

    variant: str
    env: str
    bundle: str
    seed: int
    seconds: float
    folder: Path

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this job's row from others."""
        return self.variant, self.bundle, str(self.seed), f"{self.seconds:g}"

    @property
    def control(self) -> Path:
        """Where the weights of continued MLE are: one file for all variants."""
        return self.folder / f"mle-{Path(self.bundle).name}-{self.seed}-{self.seconds:g}.pt"


def train_control(job: Job) -> None:
    """Give maximum likelihood as much time, and save its weights."""
    arm = demo.Arm(demo.CONTINUED, job.env, job.seconds, job.seed, bundle=job.bundle, clock=CLOCK)
    weights = [
        {name: torch.from_numpy(v) for name, v in state.items()}
        for state in demo.train_arm(arm).weights
    ]
    write_tensors(job.control, weights)


def measure(job: Job) -> dict[str, Any]:
    """Train a variant: its row, with differences from continued MLE at the same entropy."""
    torch.set_num_threads(1)
    bundle = bundles.load(job.bundle)
    config = config_of(
        VARIANTS[job.variant], env=job.env, bundle=job.bundle, seed=job.seed,
        seconds=job.seconds, iterations=10**9,
    )  # fmt: skip
    result = reinforce.train(config, progress=False, clock=CLOCK)
    if not result.history:
        raise ValueError(f"seconds={job.seconds} were over before the first policy update")
    evaluator = Evaluator(bundle, demo.BATCH_SIZES)
    policy, continued = TemperedPrior(result.policies), copy.deepcopy(list(bundle.priors))
    for prior, state in zip(continued, torch.load(job.control), strict=True):
        prior.load_state_dict(state)
    control = demo.cooled(evaluator, TemperedPrior(continued), policy, job.seed)
    found, beside = (
        evaluator.evaluate_prior(prior, demo.SAMPLES, job.seed + 1000)
        for prior in (policy, control)
    )
    row, mle = found.figures, beside.figures
    distance = evaluator.fd_differences(found, beside)["fd"]
    names = [name for name in ("reverse_kl", "forward_nll") if name in row]
    recall = {"recall": row["recall"]} if "recall" in row else {}  # of few reals there is none
    return {
        "variant": job.variant,
        "bundle": job.bundle,
        "seed": job.seed,
        "seconds": f"{job.seconds:g}",
        "iterations": len(result.history),
        "auc": result.history[-1]["auc"],
        "entropy": row["entropy"],
        "fd": row["fd"],
        **recall,
        **{name: row[name] for name in names},
        **{f"{name}_minus_mle": row[name] - mle[name] for name in names},
        "fd_minus_mle": distance.value,
        "fd_minus_mle_low": distance.low,
        "fd_minus_mle_high": distance.high,
        "mle_temperature": control.temperature,
    }


def command(
    env: str = "RALOracle-v0",
    bundles: Sequence[str] = (),
    variants: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    seconds: float = 60.0,
    jobs: int = 2,
    out: str = "runs/recipes/results.csv",
) -> None:
    """Train variants of the RAL loop and compare each with as much more maximum likelihood.

    Args:
        env: Id of an environment whose bundle has a feature net, and best an oracle.
        bundles: Names or paths of bundles, one for each training set; the id's own if not given.
        variants: Names of variants; all if not given.
        seeds: Seeds of the training; every variant is trained once with each.
        seconds: Processor time of each training.
        jobs: Number of trainings that run side by side, each on one core.
        out: CSV file that rows are added to as they come; what it holds is not done again.
    """
    names = list(variants) or list(VARIANTS)
    if unknown := set(names) - set(VARIANTS):
        raise ValueError(f"variants {sorted(unknown)}, expected some of {list(VARIANTS)}")
    places = list(bundles) or [TASKS[env].bundle]
    file = Path(out)
    todo = [Job(v, env, b, s, seconds, file.parent) for b in places for s in seeds for v in names]
    check_writable(file)
    rows = read(file)
    done = set(map(_key, rows))
    left = [job for job in todo if job.key not in done]
    controls = {job.control: job for job in left if not job.control.exists()}
    print(f"{len(left)} of {len(todo)} arms of {seconds:g} s to train, {jobs} at a time")
    with workers(jobs) as run:
        list(run(train_control, controls.values()))
        for row in run(measure, left):
            with locked(file.parent):  # other processes may add to it, too
                rows = [*read(file), {key: str(value) for key, value in row.items()}]
                write_rows(file, rows)
            print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    wanted = {job.key for job in todo}
    print("\n" + table([row for row in rows if _key(row) in wanted]))


def read(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of results; none if it is not there."""
    if not file.exists():
        return []
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return [migrations.columns(row, str(file)) for row in rows]


def _key(row: dict[str, str]) -> tuple[str, ...]:
    """A row's :attr:`Job.key`."""
    return row["variant"], row["bundle"], row["seed"], row["seconds"]


def table(rows: Sequence[dict[str, str]]) -> str:
    """A line a variant: means over its runs, with 95 % Student-t intervals where there are more."""
    lines = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        runs = [row for row in rows if row["variant"] == name]
        line = {"variant": name, "runs": str(len(runs))}
        for column, digits in DIGITS.items():
            if column not in runs[0]:
                continue  # without an oracle there is no reverse KL
            values = [float(row[column]) for row in runs]
            sign = "+" if column.endswith("_minus_mle") else ""
            if len(values) > 1 and sign:
                mean, half = metrics.interval(values)
                line[column] = f"{mean:+.{digits}f} ± {half:.{digits}f}"
            else:
                line[column] = f"{sum(values) / len(values):{sign}.{digits}f}"
        lines.append(line)
    lines.sort(key=lambda line: float(list(line.values())[2].split()[0]))  # the best first
    return markdown_table(lines, list(lines[0]), TITLES)


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench recipes`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench recipes", as_positional=False)


if __name__ == "__main__":
    main()

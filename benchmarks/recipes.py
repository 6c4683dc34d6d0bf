"""Which settings of the RAL loop are worth their time, judged where the truth is known.

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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from agents import reinforce
from agents.evaluation import metrics
from agents.training.discriminator import DiscriminatorTraining
from agents.training.files import write_whole
from benchmarks import demo
from benchmarks.plots import markdown_table
from ral_env import bundle as bundles
from ral_env.nets import PatchGANConfig
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


def config_of(changes: dict[str, Any], **more: Any) -> reinforce.Config:
    """The preset ``small`` with these changes; ``discriminator.NAME`` reaches into its training."""
    small = reinforce.PRESETS["small"]
    inner = {k.partition(".")[2]: v for k, v in changes.items() if "." in k}
    outer = {k: v for k, v in changes.items() if "." not in k}
    judge: DiscriminatorTraining = dataclasses.replace(small.discriminator, **inner)
    return dataclasses.replace(small, **(outer | {"discriminator": judge} | more))


@dataclasses.dataclass(frozen=True)
class Job:
    """A variant to be trained, and where continued MLE's weights are kept."""

    variant: str
    env: str
    bundle: str
    seed: int
    seconds: float
    folder: Path

    @property
    def key(self) -> tuple[str, ...]:
        return self.variant, self.bundle, str(self.seed), f"{self.seconds:g}"

    @property
    def control(self) -> Path:
        return self.folder / f"mle-{Path(self.bundle).name}-{self.seed}-{self.seconds:g}.pt"


def _own_core() -> None:
    """One thread; and time is the processor's, so that an arm which shares its core with another
    program is given as much as one that does not."""
    torch.set_num_threads(1)
    time.perf_counter = time.process_time


def train_control(job: Job) -> None:
    """Give maximum likelihood as much time, and keep its weights."""
    _own_core()
    arm = demo.Arm(demo.CONTINUED, job.env, job.seconds, job.seed, bundle=job.bundle)
    weights, _, _ = demo.train_arm(arm)
    tensors = [{name: torch.from_numpy(v) for name, v in state.items()} for state in weights]
    write_whole(job.control, lambda file: torch.save(tensors, file))


def measure(job: Job) -> dict[str, Any]:
    """Train a variant and judge it; and continued MLE, cooled to as much entropy, beside it."""
    _own_core()
    bundle = bundles.load(job.bundle)
    judge = demo.Judge(bundle, job.seed)
    continued = copy.deepcopy(list(bundle.priors))
    for prior, state in zip(continued, torch.load(job.control), strict=True):
        prior.load_state_dict(state)
    config = config_of(
        VARIANTS[job.variant], env=job.env, bundle=job.bundle, seed=job.seed,
        seconds=job.seconds, iterations=10**9,
    )  # fmt: skip
    result = reinforce.train(config, progress=False)
    if not result.history:
        raise ValueError(f"seconds={job.seconds} were over before the first policy update")
    ral = demo.TemperedPrior(result.policies)
    temperature = metrics.matching_temperature(
        lambda t: demo.TemperedPrior(continued, t).entropy(1000, job.seed),
        ral.entropy(1000, job.seed),
        low=0.3,
        high=2.0,
    )
    row = judge.measure("variant", ral)
    cooled = judge.measure("control", demo.TemperedPrior(continued, temperature))
    distance, low, high = judge.against("control", "variant")
    names = [name for name in ("reverse KL", "forward NLL") if name in row]
    return {
        "variant": job.variant,
        "bundle": job.bundle,
        "seed": job.seed,
        "given": f"{job.seconds:g}",
        "iterations": len(result.history),
        "auc": result.history[-1]["auc"],
        "entropy": row["entropy"],
        "FD": row["FD"],
        "recall": row["recall"],
        **{name: row[name] for name in names},
        **{f"{name} - MLE": row[name] - cooled[name] for name in names},
        "FD - MLE": distance,
        "FD low": low,
        "FD high": high,
        "temperature of MLE": temperature,
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
        env: an id whose bundle has a feature net, best one with an oracle.
        bundles: names or paths, each one data seed; the id's own if not given.
        variants: names; all if not given.
        seeds: of training.
        seconds: given to each arm.
        jobs: arms side by side, each on one core.
        out: a CSV that rows are added to as they come; what is there already is not done again.
    """
    names = list(variants) or list(VARIANTS)
    if unknown := set(names) - set(VARIANTS):
        raise ValueError(f"variants {sorted(unknown)}, expected some of {list(VARIANTS)}")
    places = list(bundles) or [TASKS[env].bundle]
    file = Path(out)
    todo = [Job(v, env, b, s, seconds, file.parent) for b in places for s in seeds for v in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
    done = set(map(_key, rows))
    left = [job for job in todo if job.key not in done]
    controls = {job.control: job for job in left if not job.control.exists()}
    print(f"{len(left)} of {len(todo)} arms of {seconds:g} s to train, {jobs} at a time")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        list(pool.map(train_control, controls.values()))
        for row in pool.map(measure, left):
            rows.append({key: str(value) for key, value in row.items()})
            with open(file, "w", newline="") as target:
                writer = csv.DictWriter(target, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    wanted = {job.key for job in todo}
    print("\n" + table([row for row in rows if _key(row) in wanted]))


def _key(row: dict[str, str]) -> tuple[str, ...]:
    """A row's :attr:`Job.key`."""
    return row["variant"], row["bundle"], row["seed"], row["given"]


def table(rows: Sequence[dict[str, str]]) -> str:
    """A line a variant: means over its runs, with 95 % Student-t intervals where there are more."""
    shown = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        same = [row for row in rows if row["variant"] == name]
        line = {"variant": name, "runs": str(len(same))}
        for column, digits in {
            "reverse KL - MLE": 2, "forward NLL - MLE": 2, "FD - MLE": 3, "reverse KL": 1,
            "forward NLL": 1, "FD": 2, "entropy": 1, "recall": 3, "auc": 2, "iterations": 0,
        }.items():  # fmt: skip
            if column not in same[0]:
                continue  # without an oracle there is no reverse KL
            values = [float(row[column]) for row in same]
            sign = "+" if "MLE" in column else ""
            if len(values) > 1 and sign:
                mean, half = metrics.interval(values)
                line[column] = f"{mean:+.{digits}f} ± {half:.{digits}f}"
            else:
                line[column] = f"{sum(values) / len(values):{sign}.{digits}f}"
        shown.append(line)
    shown.sort(key=lambda line: float(list(line.values())[2].split()[0]))
    return markdown_table(shown, list(shown[0]))


def main(argv: list[str] | None = None) -> None:
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench recipes", as_positional=False)


if __name__ == "__main__":
    main()

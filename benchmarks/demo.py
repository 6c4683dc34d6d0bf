"""``ral demo``: fine-tune a shipped prior and say honestly what came of it.

One table of six rows. The questions it answers: is RAL better than the prior it started from, than
as much more maximum likelihood, than that sampled colder (which also "improves" samples), than its
own loop without any reward; and what has it cost in likelihood and diversity?
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import ral_env
from agents import reinforce
from agents.evaluation import metrics
from agents.training.fit import fit_prior, mean_nll
from agents.training.optimise import Training
from benchmarks import plots
from ral_env.bundle import Bundle, load
from ral_env.nets import Mixture, PixelCNN, joint
from ral_env.picture import to_bytes
from ral_env.tasks import expect_ours

SAMPLES = 3000
FLOOR, PRIOR, CONTINUED, COOLED, NO_REWARD, RAL = (
    "floor: train against test",
    "MLE prior",
    "continued MLE",
    "continued MLE, matched entropy",
    "RAL loop, no reward",
    "RAL",
)


@dataclass
class TemperedPrior:
    """Priors, one a level, with a sampling temperature: what a row of the table is about."""

    priors: Sequence[PixelCNN | Mixture]
    temperature: float = 1.0
    seconds: float = 0.0

    def sample(self, count: int, seed: int) -> list[Tensor]:
        """int64 (count, h, w) a level."""
        generator = torch.Generator().manual_seed(seed)
        return joint.draw(self.priors, count, generator, self.temperature, batch=500)

    def log_prob(self, grids: Sequence[Tensor]) -> np.ndarray:
        """log G of whole canvases at this temperature, nats: (N,)."""
        return joint.total_log_prob(self.priors, grids, self.temperature).numpy()

    def entropy(self, count: int, seed: int) -> float:
        """Nats per canvas, from its own samples."""
        return float(-self.log_prob(self.sample(count, seed)).mean())


class Judge:
    """Measures generators against a bundle's held-out codes."""

    def __init__(self, bundle: Bundle, seed: int):
        self.bundle, self.seed = bundle, seed
        self.test = bundle.layout.as_grids(bundle.split("test"))
        self.train = bundle.layout.as_grids(bundle.split("train"))
        self.reference = self.features(self.test)
        self.drawn: dict[str, np.ndarray] = {}  # features of each row's samples, by label

    @torch.no_grad()
    def images(self, grids: Sequence[Tensor]) -> Tensor:
        """Decoded codes (N, h, w) a level: floats (N, 3, H, W) in [-1, 1]."""
        parts = zip(*(grid.split(100) for grid in grids), strict=True)
        return torch.cat([self.bundle.vqvae.decode(part) for part in parts])

    @torch.no_grad()
    def features(self, grids: Sequence[Tensor]) -> np.ndarray:
        """Features of decoded codes: (N, F)."""
        assert self.bundle.features is not None
        images = self.images(grids).split(500)
        return torch.cat([self.bundle.features.features(part) for part in images]).numpy()

    def quality(self, label: str, features: np.ndarray) -> dict[str, float]:
        self.drawn[label] = features
        precision, recall = metrics.precision_recall(self.reference, features)
        return {
            "FD": metrics.frechet_distance(self.reference, features),
            "precision": precision,
            "recall": recall,
        }

    def floor(self) -> dict[str, float]:
        """Real train reconstructions, in the place of samples."""
        return self.quality(FLOOR, self.features([grid[:SAMPLES] for grid in self.train]))

    def measure(self, label: str, generator: TemperedPrior) -> dict[str, float]:
        """One row. Nats are per canvas."""
        samples = generator.sample(SAMPLES, self.seed + 1000)
        log_g = generator.log_prob(samples)
        held_out = generator.log_prob(self.test)
        row = self.quality(label, self.features(samples)) | {
            "entropy": metrics.entropy(log_g).value,
            "forward NLL": float(-held_out.mean()),
            "temperature": generator.temperature,
            "seconds": generator.seconds,
        }
        if self.bundle.oracles:
            oracle = TemperedPrior(self.bundle.oracles)
            found = metrics.divergences(
                log_g, oracle.log_prob(samples), held_out, oracle.log_prob(self.test)
            )
            row |= {name: estimate.value for name, estimate in found.items()}
        return row

    def against(self, control: str, label: str) -> tuple[float, float, float]:
        """FD of ``label`` less FD of ``control``, with its 95 % interval. Negative is nearer."""
        return metrics.paired_bootstrap(self.reference, self.drawn[label], self.drawn[control])


# A fair chance for more maximum likelihood: the anchor's own batch, an average of the weights as
# RAL has, and of all that the time allows the weights that were best on validation codes.
CONTINUED_TRAINING = Training(
    steps=10**9, batch=64, learning_rate=3e-4, schedule="constant", weight_decay=1e-2, ema=0.99,
    validate_every=50,
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """Something to train from the shipped prior: one of RAL, NO_REWARD and CONTINUED."""

    label: str
    env: str
    seconds: float
    seed: int
    preset: str = "small"
    bundle: str | None = None  # another than the environment's own


def train_arm(arm: Arm) -> tuple[list[dict[str, np.ndarray]], float, list[dict[str, float]]]:
    """Train one arm for its time: weights a level, seconds, and the rows of its learning curve.

    Runs in a process of its own with one thread, beside another arm's: small nets gain nothing
    from a second thread.
    """
    torch.set_num_threads(1)
    bundle = load(arm.bundle) if arm.bundle else load_bundle(arm.env)
    layout = bundle.layout
    train, validation = (layout.as_grids(bundle.split(s)) for s in ("train", "validation"))
    if arm.label == CONTINUED:
        priors = copy.deepcopy(list(bundle.priors))
        start = time.perf_counter()
        torch.manual_seed(arm.seed)
        above = [None, *validation[:-1]]
        nats = list(map(mean_nll, priors, validation, above))
        curve = []
        for level, prior in enumerate(priors):
            cells = validation[level][0].numel()
            history = fit_prior(
                prior,
                train[level],
                validation[level],
                CONTINUED_TRAINING,
                seed=arm.seed,
                seconds=arm.seconds * cells / layout.length,  # each code has its share
                conditions=(train[level - 1], validation[level - 1]) if level else None,
            )
            before = curve[-1]["seconds"] if curve else 0.0
            for row in history:
                nats[level] = row["validation_nats_per_code"] * cells
                curve.append({"seconds": before + row["seconds"], "validation NLL": sum(nats)})
        seconds = time.perf_counter() - start
    else:
        watched = [grid[:500] for grid in validation]
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
        )
        if result.interrupted:
            raise KeyboardInterrupt
        if not result.history:
            raise ValueError(
                f"seconds={arm.seconds} were over before the first policy update: give more"
            )
        priors, seconds, curve = result.policies, result.seconds, result.history
    weights = [{name: v.numpy() for name, v in prior.state_dict().items()} for prior in priors]
    return weights, seconds, curve


def load_bundle(env: str) -> Bundle:
    """The bundle that an environment runs on."""
    expect_ours(env)
    instance = gym.make(env)
    instance.close()
    return instance.unwrapped.bundle  # type: ignore[attr-defined]


def measure_seed(
    env: str, bundle: Bundle, trained: dict[str, tuple], seed: int, out: Path
) -> tuple[list[dict], str]:
    """The table's six rows for one seed, and its note; the pictures go to ``out``."""
    judge = Judge(bundle, seed)
    generators = {PRIOR: TemperedPrior(bundle.priors)}
    for label, (weights, seconds, _) in trained.items():
        priors = copy.deepcopy(list(bundle.priors))
        for prior, state in zip(priors, weights, strict=True):
            prior.load_state_dict({name: torch.from_numpy(v) for name, v in state.items()})
        generators[label] = TemperedPrior(priors, seconds=seconds)
    continued = generators[CONTINUED]
    temperature = metrics.matching_temperature(
        lambda t: TemperedPrior(continued.priors, t).entropy(1000, seed),
        generators[RAL].entropy(1000, seed),
        low=0.3,
        high=2.0,
    )
    generators[COOLED] = TemperedPrior(continued.priors, temperature, continued.seconds)
    rows: list[dict] = [{"row": FLOOR, **judge.floor()}]
    rows += [
        {"row": label, **judge.measure(label, generators[label])}
        for label in (PRIOR, CONTINUED, COOLED, NO_REWARD, RAL)
    ]
    for row in rows:
        if row["row"] not in (FLOOR, COOLED):
            row["FD - control"] = judge.against(COOLED, row["row"])
    pictures(judge, generators, {label: t[2] for label, t in trained.items()}, env, seed, out)
    train = bundle.split("train")
    samples = bundle.layout.flatten(generators[RAL].sample(500, seed)).numpy()
    note = (
        f"Memorised? Codes that differ from the nearest training canvas, median: RAL "
        f"{metrics.nearest_distance(train, samples):.0f}, held-out real "
        f"{metrics.nearest_distance(train, bundle.split('test')[:500]):.0f} of "
        f"{bundle.layout.length}."
    )
    if len(train) < SAMPLES:
        note += f" The floor has N = {len(train):,}, all the real ones there are."
    return rows, note


def pictures(judge: Judge, generators: dict, curves: dict, env: str, seed: int, out: Path) -> None:
    """Sample grids, learning curves and a completion picture, as PNGs in ``out``."""

    def pixels(codes: Sequence[Tensor]) -> np.ndarray:
        return to_bytes(judge.images(codes))

    count = 32
    grids = {"real, reconstructed (test)": pixels([grid[:count] for grid in judge.test])}
    for label in (PRIOR, CONTINUED, RAL):
        grids[label] = pixels(generators[label].sample(count, seed))
    plots.labelled_grids(grids, out / "samples.png")
    rows = [{"label": label, **row} for label, curve in curves.items() for row in curve]
    for row in rows:
        if row["label"] == NO_REWARD:
            del row["reward"]  # a constant, which would only stretch the axis
    plots.learning_curves(rows, ["reward", "auc", "entropy", "validation NLL"], out / "curves.png")

    frames = episode(env, generators[RAL], seed)
    plots.image_grid(frames, out / "episode.png", columns=len(frames), scale=1)

    layout = judge.bundle.layout
    kept = layout.rows * 3 // 8
    originals = [grid[:6] for grid in judge.test]
    prefix = layout.flatten(originals)
    prefix[:, ~layout.head(kept)] = layout.empty
    masked = pixels(originals)
    masked[:, :, masked.shape[2] * kept // layout.rows :] = 128
    completions = []
    for i in range(4):
        generator = torch.Generator().manual_seed(seed + i)
        codes = joint.sample(generators[RAL].priors, layout.unflatten(prefix), generator=generator)
        completions.append(pixels(codes))
    plots.completions(pixels(originals), masked, completions, out / "completion.png")


def episode(env: str, generator: TemperedPrior, seed: int, every: int = 2) -> np.ndarray:
    """Frames of one episode, one for each ``every`` rows of each level: uint8 (N, 3, H, W)."""
    canvas = gym.make(env, render_mode="rgb_array")
    canvas.reset(seed=seed)
    frames = [canvas.render()]
    for grid in generator.sample(1, seed):
        for row, line in enumerate(grid[0].tolist()):
            for code in line:
                canvas.step(code)
            if (row + 1) % every == 0:
                frames.append(canvas.render())
    pixels = [np.asarray(f)[::2, ::2] for f in frames]
    return np.stack(pixels).transpose(0, 3, 1, 2)


ORDER = ("FD", "FD - control", "precision", "recall", "entropy", "forward NLL")
ORACLE = ("NLL_oracle", "reverse KL", "forward KL", "oracle entropy")
DIGITS = {"precision": 3, "recall": 3, "temperature": 2, "seconds": 0}


def table(seeds: list[list[dict]], with_oracle: bool) -> str:
    """Rows of one seed, or means over seeds with 95 % Student-t intervals."""
    columns = [*ORDER, *(ORACLE if with_oracle else ()), "temperature", "seconds"]
    shown = []
    for same in zip(*seeds, strict=True):
        row = {"row": same[0]["row"]}
        for column in columns:
            values = [r.get(column) for r in same]
            digits = DIGITS.get(column, 2)
            if any(v is None for v in values):
                row[column] = ""
            elif column == "FD - control" and len(same) == 1:
                value, low, high = values[0]
                row[column] = f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
            else:
                numbers = [v[0] if isinstance(v, tuple) else v for v in values]
                sign = "+" if column == "FD - control" else ""
                if len(numbers) > 1 and np.ptp(numbers) > 0:
                    mean, half = metrics.interval(numbers)
                    row[column] = f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"
                else:
                    row[column] = f"{numbers[0]:{sign}.{digits}f}"
        shown.append(row)
    return plots.markdown_table(shown, ["row", *columns])


def command(
    env: str = "RALDigits-v0",
    seconds: float = 140.0,
    seeds: int = 1,
    out: str | None = None,
    jobs: int = 2,
    preset: Literal["small", "paper"] = "small",
) -> None:
    """Fine-tune a shipped prior with RAL and compare it with what else the time could buy.

    Args:
        env: an id whose bundle has a feature net: RALDigits-v0, RALFaces32-v0, RALOracle-v0,
            RALOracle16-v0 or RALOracleTwoLevel-v0.
        seconds: given to each of RAL, the loop without reward, and continued MLE.
        seeds: runs of everything; from 2 on the table has 95 % intervals over seeds.
        out: folder of the pictures and figures; runs/demo/ENV-PRESET if not given.
        jobs: arms that are trained side by side, each on one core.
        preset: settings of the RAL loop (see ``ral train --help``).
    """
    if seeds < 1 or seconds <= 0 or jobs < 1:
        raise ValueError(
            f"seeds={seeds}, seconds={seconds}, jobs={jobs}: expected 1 or more of each"
        )
    torch.set_num_threads(1)
    bundle = load_bundle(env)
    if bundle.features is None:
        raise ValueError(
            f"bundle {bundle.name!r} has no feature net, which the Fréchet distance needs"
        )
    folder = Path(out or f"runs/demo/{env}-{preset}")
    labels = (RAL, NO_REWARD, CONTINUED)
    todo = [Arm(label, env, seconds, seed, preset) for seed in range(seeds) for label in labels]
    print(f"{len(todo)} arms of {seconds:.0f} s, {jobs} at a time, on {bundle.dataset}")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        done = dict(zip(todo, pool.map(train_arm, todo), strict=True))
    results, notes = [], []
    for seed in range(seeds):
        print(f"measuring seed {seed}")
        place = folder if seeds == 1 else folder / f"seed{seed}"
        place.mkdir(parents=True, exist_ok=True)
        trained = {arm.label: result for arm, result in done.items() if arm.seed == seed}
        rows, note = measure_seed(env, bundle, trained, seed, place)
        results.append(rows)
        notes.append(note)
    text = "\n".join(
        [
            f"{env}: {bundle.dataset}. Fréchet distance (FD) of {SAMPLES:,} samples to "
            f"{len(bundle.split('test')):,} held-out reconstructions in the feature space "
            f"'{bundle.features.config.name}'.",
            f"'FD - control' is against '{COOLED}', with its 95 % interval "
            f"({'paired bootstrap' if seeds == 1 else f'Student t over {seeds} seeds'}); negative "
            "is nearer to real images. Entropy, NLL and KL in nats per canvas.",
            "",
            table(results, bool(bundle.oracles)),
            "",
            notes[0],
        ]
    )
    (folder / "table.md").write_text(text + "\n")
    record = {
        "env": env,
        "dataset": bundle.dataset,
        "seconds": seconds,
        "samples": SAMPLES,
        "preset": dataclasses.asdict(reinforce.PRESETS[preset]),
        "versions": {"ral_env": ral_env.__version__, "torch": torch.__version__},
        "rows": results,
    }
    (folder / "results.json").write_text(json.dumps(record, indent=2))
    print(f"\n{text}\n\nPictures (samples, curves, completion), table and figures: {folder}")


def main(argv: list[str] | None = None) -> None:
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral demo", as_positional=False)


if __name__ == "__main__":
    main()

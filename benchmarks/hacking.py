"""How a reward is hacked: the policy learns against a discriminator that learns no more.

    ral bench hacking --env RALMNIST-v0 --iterations 3000
    ral bench hacking --env RALDigits-v0 --iterations 160 --points 8 --seeds 3 --judges 0

The second is docs/agents.md's.

The score by that discriminator rises and rises; fresh judges, the Fréchet distance and coverage say
what becomes of the canvases. Beside it the same loop whose discriminator goes on learning. One line
of OUT/ENV.csv for each point of the curves, one picture with the curves of all seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure  # without pyplot: no display, no global state

from agents import reinforce
from agents.training.files import write_rows
from benchmarks.demo import load_bundle
from benchmarks.leaderboard.entries import Contender
from benchmarks.leaderboard.protocol import measure
from ral_env.bundle import Bundle
from ral_env.files import check_writable, write_stream
from ral_env.ranges import COUNT, SEED, check_values
from ral_env.tables import markdown_table

ARMS = {"fixed": "the discriminator learns no more", "learning": "it goes on learning"}
PANELS = {
    "score": "score (real is high)",
    "judge_auc": "judge AUC (0.5: not told from reals)",
    "fd": "Fréchet distance",
    "coverage": "coverage",
}


def curve(
    env: str, bundle: Bundle, arm: str, iterations: int, points: int, samples: int, judges: int,
    seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Figures of the policy before the first iteration and at ``points`` more."""
    config = dataclasses.replace(
        reinforce.fit_preset("small", bundle),
        env=env, iterations=iterations, seed=seed, gate_auc=0.0, mle_coef=0.0,
    )  # fmt: skip
    if arm == "fixed":
        config = dataclasses.replace(config, discriminator_updates=0, discriminator_warmup=0)
    rows: list[dict[str, Any]] = []

    def watch(iteration: int, policies: Sequence[Any]) -> dict[str, float]:
        state = torch.get_rng_state()  # judges draw from it; the training must not notice
        figures = measure(
            Contender(list(policies), temperatures=(1.0,)), bundle, seed, samples, judges
        )
        torch.set_rng_state(state)
        rows.append({"arm": arm, "seed": seed, "iteration": iteration, **figures})
        print(f"  {arm}, seed {seed}, iteration {iteration}: score {figures['score']:.3f}, "
              f"FD {figures.get('fd', float('nan')):.2f}", flush=True)  # fmt: skip
        return {}

    watch(0, bundle.priors)
    every = max(1, iterations // points)
    reinforce.train(config, progress=False, bundle=bundle, watch=watch, watch_every=every)
    return rows


def figure(rows: Sequence[dict[str, Any]], env: str) -> Figure:
    """A panel for each figure; for each arm a thin line a seed, and a thick one of their means."""
    shown = [name for name in PANELS if name in rows[0]]
    made = Figure(figsize=(8, 2.6), layout="constrained")
    for panel, name in zip(made.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for arm, style in zip(ARMS, ("o-", "s--"), strict=True):
            curves: dict[int, list[tuple[int, float]]] = {}
            for row in rows:
                if row["arm"] == arm:
                    curves.setdefault(row["seed"], []).append((row["iteration"], row[name]))
            (line,) = panel.plot(*np.mean(list(curves.values()), 0).T, style, ms=4, label=ARMS[arm])
            for points in curves.values():
                panel.plot(*zip(*points, strict=True), style[1:], marker="", lw=0.7, alpha=0.6,
                           color=line.get_color())  # fmt: skip
        panel.set(title=PANELS[name], xlabel="iterations")
        panel.title.set_fontsize(8)
    made.legend(*made.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    made.suptitle(env, fontsize=9)
    return made


def command(
    env: str = "RALMNIST-v0",
    iterations: int = 3000,
    points: int = 10,
    samples: int = 1000,
    judges: int = 3,
    seed: int = 0,
    seeds: int = 1,
    out: str = "runs/hacking",
) -> None:
    """Train far too long against a discriminator that stays as it is, and against one that learns.

    Args:
        env: Id of the environment.
        iterations: Number of iterations of each arm.
        points: Number of times that the policy is measured on the way.
        samples: Number of samples that are measured each time.
        judges: Number of judges each time, 2 or more; 0 leaves them out.
        seed: Seed of everything.
        seeds: Number of runs of each arm, with that seed and those after it.
        out: Folder of the results.
    """
    check_values(
        locals(), iterations=COUNT, points=COUNT, samples="[20, inf)", judges="[0, inf)", seed=SEED,
        seeds=COUNT,
    )  # fmt: skip
    torch.set_num_threads(1)
    bundle = load_bundle(env)
    folder = Path(out)
    check_writable(folder / f"{env}.csv")
    rows = [
        row
        for arm in ARMS
        for one in range(seed, seed + seeds)
        for row in curve(env, bundle, arm, iterations, points, samples, judges, one)
    ]
    write_rows(folder / f"{env}.csv", [row | {"bundle": bundle.edition} for row in rows])
    write_stream(folder / f"{env}.png", figure(rows, env).savefig)
    columns = ["arm", "seed", "iteration", *(name for name in PANELS if name in rows[0])]
    print(markdown_table(rows, columns))
    print(f"\nresults and picture: {folder}/{env}.csv, .png")


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench hacking`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench hacking", as_positional=False)


if __name__ == "__main__":
    main()

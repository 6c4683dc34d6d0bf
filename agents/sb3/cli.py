"""``ral train --algo ppo|a2c|trpo|maskable-ppo|dqn``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from agents.sb3.config import Config
from agents.sb3.train import train
from agents.training.command import (
    add_config,
    add_run,
    default_folder,
    make_config,
    stored_settings,
)
from ral_env import migrations
from ral_env.ranges import THREADS, check_values

# Every field of Config is in one group of the help.
GROUPS = {
    "what is trained, and on which rewards": (
        "env", "bundle", "reward", "reward_source", "reward_fn",
    ),
    "where it runs": ("device", "seed", "checkpoint_every"),
    "how long": ("rollouts", "canvases"),
    "how the policy learns": ("learning_rate", "kl_coef", "value_warmup", "max_nats", "settings"),
    "how the discriminator learns": (
        "discriminator_warmup", "discriminator_updates", "discriminator",
    ),
}  # fmt: skip


def make_parser(algo: str) -> Any:
    """The command's options: the run's, and a group for each of :data:`GROUPS`."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=f"ral train --algo {algo}",
        description="Train with one of Stable-Baselines3's algorithms. PPO, A2C and TRPO fine-tune "
        "the bundle's prior; MaskablePPO and DQN learn a policy of Stable-Baselines3's from "
        "nothing.",
    )
    run = parser.add_argument_group("the run")
    add_run(
        run,
        "runs/ENV-ALGO-SEED",
        "Go on with the run in --out: exactly with algorithms that learn on-policy, on the CPU; "
        "dqn's replay buffer is not kept.",
    )
    add_config(parser, Config, GROUPS)
    return parser


class Asked(NamedTuple):
    """What the command's arguments ask for.

    Attributes:
        config: the settings.
        out: the run's folder.
        threads: number of torch's threads.
        resume: whether to go on with the run that is there.
    """

    config: Config
    out: str
    threads: int
    resume: bool


def parse(algo: str, argv: list[str]) -> Asked:
    """What the command's arguments ask for; a run that goes on has the settings of its config.json.

    Raises:
        ValueError: if a setting is out of its range.
    """
    parser = make_parser(algo)
    words = migrations.options(argv, "sb3")
    arguments = parser.parse_args(words)
    out = arguments.out or default_folder(arguments.env, algo, arguments.seed)
    if arguments.resume and (stored := stored_settings(out, "sb3", Config)):
        parser.set_defaults(stored)
        arguments = parser.parse_args(words)
    check_values(vars(arguments), threads=THREADS)
    return Asked(make_config(parser, arguments, Config), out, arguments.threads, arguments.resume)


def main(algo: str, argv: list[str] | None = None) -> int:
    """Train with an algorithm, and print what came of it.

    Args:
        algo: ``ppo``, ``a2c``, ``trpo``, ``maskable-ppo`` or ``dqn``.
        argv: the command's arguments; those of the process if not given.

    Returns:
        The exit status: 0, or 128 and the number of the signal that stopped the training.
    """
    config, out, threads, resume = parse(algo, sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(threads)
    row = train(algo, config, out, resume=resume)
    if row["interrupted"]:
        name, done = signal.Signals(row["interrupted"]).name, row["iterations"]
        print(
            f"stopped by {name} after {done} rollouts: wrote a checkpoint and {out}/model.zip; "
            "--resume goes on"
        )
        return 128 + row["interrupted"]
    print(", ".join(f"{name} {v:.3f}" for name, v in row.items() if isinstance(v, float)))
    bundle = f" and {out}/bundle" if (Path(out) / "bundle").exists() else ""
    print(f"wrote {out}/model.zip{bundle}")
    return 0

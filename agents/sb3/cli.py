"""``ral train --algo ppo|a2c|trpo|maskable-ppo|dqn``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from agents.sb3.config import Config
from agents.sb3.train import train
from agents.training.command import add_config, make_config
from ral_env import migrations
from ral_env.ranges import COUNT, check_values

# Every field of Config is in one group of the help.
GROUPS = {
    "what is trained, and on which rewards": ("env", "bundle", "reward", "reward_source"),
    "where it runs": ("device", "seed"),
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
    run.add_argument(
        "--out",
        type=str | None,
        help="Folder for everything that is written; runs/ENV-ALGO-SEED if not given.",
    )
    run.add_argument(
        "--threads", type=int, default=1, help="Number of torch's threads; small nets want one."
    )
    add_config(parser, Config, GROUPS)
    return parser


def parse(algo: str, argv: list[str]) -> tuple[Config, str, int]:
    """What the command's arguments ask for: settings, the run's folder, torch's threads.

    Raises:
        ValueError: if a setting is out of its range.
    """
    parser = make_parser(algo)
    arguments = parser.parse_args(migrations.options(argv, "sb3"))
    check_values(vars(arguments), threads=COUNT)
    config = make_config(parser, arguments, Config)
    out = arguments.out or f"runs/{config.env}-{algo}-{config.seed}"
    return config, out, arguments.threads


def main(algo: str, argv: list[str] | None = None) -> int:
    """Train with an algorithm, and print what came of it.

    Args:
        algo: ``ppo``, ``a2c``, ``trpo``, ``maskable-ppo`` or ``dqn``.
        argv: the command's arguments; those of the process if not given.

    Returns:
        The exit status: 0, or 130 if training was interrupted.
    """
    config, out, threads = parse(algo, sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(threads)
    row = train(algo, config, out)
    print(", ".join(f"{name} {v:.3f}" for name, v in row.items() if isinstance(v, float)))
    bundle = f" and {out}/bundle" if (Path(out) / "bundle").exists() else ""
    print(f"wrote {out}/model.zip{bundle}")
    return 130 if row["interrupted"] else 0

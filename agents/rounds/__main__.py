"""``ral train --algo rounds`` and ``python -m agents.rounds``.

ral train --algo rounds --env RALDigits-v0
ral train --algo rounds --env RALDigits-v0 --resume --rounds 12
ral train --algo rounds --env RALMNIST-v0 --preset long
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from typing import Any, Literal

import torch

from agents.rounds.config import Config
from agents.rounds.loop import train
from agents.rounds.presets import PRESETS, fit_preset
from agents.training.command import (
    add_config,
    add_run,
    default_folder,
    load_bundle,
    make_config,
    stored_settings,
)
from ral_env import StandInWarning, migrations
from ral_env.ranges import THREADS, check_values

# Every field of Config is in one group of the help.
GROUPS = {
    "what is trained": ("env", "bundle", "levels", "reward_source"),
    "where it runs": ("device", "seed"),
    "how long": ("rounds", "seconds", "canvases", "discriminator_canvases", "updates", "batch"),
    "how canvases are weighted": ("signed", "elites", "clip_quantile", "proposal_floor"),
    "how the policy learns": (
        "learning_rate", "final_rate", "betas", "kl_coef", "mle_coef", "ema",
    ),
    "how the discriminator learns": (
        "discriminator_warmup", "discriminator_updates", "discriminator_batch",
        "discriminator_ema", "discriminator_input", "discriminator_net", "discriminator",
    ),
}  # fmt: skip


def default_settings(argv: list[str]) -> dict[str, Any]:
    """The settings that a command line changes: the preset's, or those that a run goes on with."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="small")
    first.add_argument("--env", default=Config.env)
    first.add_argument("--bundle")
    first.add_argument("--seed", default=str(Config.seed))
    first.add_argument("--out")
    first.add_argument("--resume", action="store_true")
    asked = first.parse_known_args(argv)[0]
    out = asked.out or default_folder(asked.env, "rounds", asked.seed)
    stored = stored_settings(out, "rounds", Config) if asked.resume else None
    if stored is not None:
        return stored
    if asked.preset not in PRESETS or PRESETS[asked.preset] == Config():
        return {}  # no need to load a bundle; what is no preset the parser of all options refuses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)  # training will give it
        bundle = load_bundle(asked.env, asked.bundle)
    return dataclasses.asdict(fit_preset(asked.preset, bundle))


def main(argv: list[str] | None = None) -> int:
    """Fine-tune a prior in rounds: draw, weight by a discriminator, learn."""
    from jsonargparse import ArgumentParser

    argv = migrations.options(sys.argv[1:] if argv is None else argv, "rounds")
    parser = ArgumentParser(prog="ral train --algo rounds", description=main.__doc__)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--preset",
        type=Literal["small", "long"],
        default="small",
        help="Settings to start from: `small` takes minutes; `long` trains a wider discriminator "
        "first, where the bundle's sees too little.",
    )
    add_run(run, "runs/ENV-rounds-SEED")
    add_config(parser, Config, GROUPS)
    parser.set_defaults(default_settings(argv))
    arguments = parser.parse_args(argv)
    check_values(vars(arguments), threads=THREADS)
    torch.set_num_threads(arguments.threads)
    config = make_config(parser, arguments, Config)
    out = arguments.out or default_folder(config.env, "rounds", config.seed)
    result = train(config, out, resume=arguments.resume)
    rounds = f"{len(result.history[1:])} rounds, {result.seconds:.0f} s"
    if result.interrupted:
        print(
            f"stopped by {result.interrupted.name} after {rounds}: wrote {out}/bundle; "
            "--resume goes on after the last whole round"
        )
        return 128 + result.interrupted
    print(f"finished after {rounds}")
    print(f"wrote {out}/bundle; use it with bundle={out + '/bundle'!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

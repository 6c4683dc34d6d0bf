"""``ral train --algo reinforce``, ``python -m agents.reinforce``, and what ``torchrun -m`` starts.

    ral train --env RALDigits-v0
    ral train --env RALDigits-v0 --resume            # goes on after kill -9
    torchrun --nproc-per-node 8 -m agents.reinforce -- --env RALCelebA128-v0 --device cuda

(The lone dashes keep torchrun from taking ``--start`` for an option of its own.)

SIGTERM, SIGHUP and Ctrl-C stop a run at the end of its iteration, with a checkpoint and a bundle:
with a batch system that warns before the time is over (Slurm's ``--signal=TERM@120``, say) nothing
is lost.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import warnings
from typing import Any, Literal

import torch

from agents.reinforce.config import Config
from agents.reinforce.loop import train
from agents.reinforce.presets import PRESETS, default_preset, fit_preset
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
    "what is trained, and on which rewards": (
        "env", "bundle", "levels", "start", "reward", "reward_source", "reward_fn", "gamma",
    ),
    "where it runs": ("device", "seed", "checkpoint_every", "step_by_step"),
    "how long": ("iterations", "seconds", "canvases", "group"),
    "how the policy learns": (
        "learning_rate", "final_rate", "betas", "baseline", "standardise", "kl_loss_coef",
        "ent_coef", "mle_coef", "epochs", "clip", "ema", "gate_auc",
    ),
    "what guards it against over-training": ("guard_every", "guard_nll", "guard_patience"),
    "how the discriminator learns": (
        "discriminator_warmup", "discriminator_updates", "fake_pool", "discriminator_input",
        "discriminator_net", "normaliser", "discriminator",
    ),
}  # fmt: skip
SHORT = {"--loss": "--discriminator.loss", "--level": "--levels"}


def _spelling(word: str) -> str:
    """Options may be written with dashes, and the discriminator's loss without its prefix."""
    option, equals, value = word.partition("=")
    if not option.startswith("--"):
        return word
    option = "--" + option[2:].replace("-", "_")
    return SHORT.get(option, option) + equals + value


def default_settings(argv: list[str]) -> tuple[dict[str, Any], str]:
    """The settings that a command line changes, and in words where they come from.

    A run that goes on without a named preset has those of its config.json. Others have those of
    the preset: the one that is named, or the one for priors of the bundle's size.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options = ("preset", "env", "bundle", "out", "seed", "discriminator_input", "reward_fn")
    for option in options:
        first.add_argument(f"--{option}")
    first.add_argument("--resume", action="store_true")
    asked = first.parse_known_args(argv)[0]
    asked.env, asked.seed = asked.env or Config.env, asked.seed or Config.seed
    out = asked.out or default_folder(asked.env, "reinforce", asked.seed)
    goes_on = asked.resume and not asked.preset
    stored = stored_settings(out, "reinforce", Config) if goes_on else None
    if stored is not None:
        return stored, f"settings of {out}/config.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)  # training will give it
        bundle = load_bundle(asked.env, asked.bundle)
    name, reason = (asked.preset, "as asked") if asked.preset else default_preset(bundle)
    if name not in PRESETS:
        return {}, ""  # the parser of all options refuses it
    config = fit_preset(name, bundle, asked.discriminator_input)
    if asked.reward_fn not in (None, "null"):
        reason += f"; {asked.reward_fn} pays, so no discriminator learns"
    elif PRESETS[name].discriminator_net is None and config.discriminator_net is not None:
        reason += (
            f"; a new discriminator of {config.discriminator_input!r}, with "
            f"{config.discriminator_warmup} updates of warm-up, as the bundle's is of "
            f"{bundle.discriminator_input!r}"
        )
    return dataclasses.asdict(config), f"preset {name}: {reason}"


def main(argv: list[str] | None = None) -> int:
    """Fine-tune a prior by reinforced adversarial learning."""
    from jsonargparse import ArgumentParser

    argv = sys.argv[1:] if argv is None else argv
    argv = [_spelling(word) for word in argv[argv[:1] == ["--"] :]]  # torchrun passes it on
    argv = migrations.options(argv, "reinforce")
    parser = ArgumentParser(prog="ral train", description=main.__doc__)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--preset",
        type=Literal["paper", "small"] | None,
        help="Settings to start from; if not given, `small` for small priors and `paper` for "
        "priors of the paper's sizes.",
    )
    add_run(run, "runs/ENV-reinforce-SEED")
    add_config(parser, Config, GROUPS)
    # These are read first: their values are the defaults of all other arguments.
    settings, source = default_settings(argv)
    parser.set_defaults(settings)
    arguments = parser.parse_args(argv)
    check_values(vars(arguments), threads=THREADS)
    torch.set_num_threads(arguments.threads)
    config = make_config(parser, arguments, Config)
    out = arguments.out or default_folder(config.env, "reinforce", config.seed)
    if os.environ.get("RANK", "0") == "0":
        print(source, flush=True)
    result = train(config, out, resume=arguments.resume)
    iterations = f"{len(result.history)} iterations, {result.seconds:.0f} s"
    if result.interrupted:
        print(
            f"stopped by {result.interrupted.name} after {iterations}: wrote a checkpoint and "
            f"{out}/bundle; --resume goes on"
        )
        return 128 + result.interrupted
    print(f"finished after {iterations}")
    print(f"wrote {out}/bundle; use it with bundle={out + '/bundle'!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

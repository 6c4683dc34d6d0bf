"""``ral train --algo reinforce``, ``python -m agents.reinforce``, and what ``torchrun -m`` starts.

    ral train --env RALDigits-v0 --preset small
    ral train --env RALDigits-v0 --preset small --resume            # goes on after kill -9
    torchrun --nproc-per-node 8 -m agents.reinforce -- --env RALCelebA128-v0 --device cuda

(The lone dashes keep torchrun from taking ``--start`` for an option of its own.)
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import torch

from agents.reinforce.config import PRESETS, Config
from agents.reinforce.loop import train
from agents.training.command import add_config, make_config
from ral_env import migrations

# Every field of Config is in one group of the help.
GROUPS = {
    "what is trained, and on which rewards": (
        "env", "bundle", "levels", "start", "reward", "reward_source", "gamma",
    ),
    "where it runs": ("device", "seed", "checkpoint_every", "step_by_step"),
    "how long": ("iterations", "seconds", "canvases", "group"),
    "how the policy learns": (
        "learning_rate", "final_rate", "betas", "baseline", "standardise", "kl_loss_coef",
        "ent_coef", "mle_coef", "epochs", "clip", "ema", "gate_auc",
    ),
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


def main(argv: list[str] | None = None) -> int:
    """Fine-tune a prior by reinforced adversarial learning."""
    from jsonargparse import ArgumentParser

    argv = sys.argv[1:] if argv is None else argv
    argv = [_spelling(word) for word in argv[argv[:1] == ["--"] :]]  # torchrun passes it on
    argv = migrations.options(argv, "reinforce")
    parser = ArgumentParser(prog="ral train", description=main.__doc__)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--preset", choices=list(PRESETS), default="paper", help="Settings to start from."
    )
    run.add_argument(
        "--out",
        type=str | None,
        help="Folder for everything that is written; runs/ENV-reinforce-SEED if not given.",
    )
    run.add_argument("--resume", action="store_true", help="Go on with the run in --out.")
    run.add_argument(
        "--threads", type=int, default=1, help="Number of torch's threads; small nets want one."
    )
    add_config(parser, Config, GROUPS)
    # The preset is read first: its values are the defaults of all other arguments.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=list(PRESETS), default="paper")
    preset = PRESETS[first.parse_known_args(argv)[0].preset]
    parser.set_defaults(dataclasses.asdict(preset))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    config = make_config(parser, arguments, Config)
    out = arguments.out or f"runs/{config.env}-reinforce-{config.seed}"
    result = train(config, out, resume=arguments.resume)
    word = "interrupted" if result.interrupted else "finished"
    print(f"{word} after {len(result.history)} iterations, {result.seconds:.0f} s")
    print(f"wrote {out}/bundle; use it with bundle={out + '/bundle'!r}")
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The command ``ral pretrain``, or ``python -m pretrain``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from agents.training.processes import Processes
from agents.training.signals import telling_of_stops
from pretrain.overrides import EVERY_LEVEL, help_text, override
from pretrain.recipe_table import recipe_table
from pretrain.recipes import RECIPES
from pretrain.run import pretrain
from ral_env.envs.options import torch_device
from ral_env.ranges import SEED, THREADS, check_values

DESCRIPTION = """
Train a VQ-VAE, priors and a discriminator on images and write them as a bundle. The same command
again goes on with a run that was cut. `torchrun --nproc-per-node N -m pretrain.run ...` trains on
several GPUs or machines.
"""


def main(argv: list[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: Its arguments, those of the process if None.
    """
    arguments = vars(_parser().parse_args(sys.argv[1:] if argv is None else argv))
    recipe, changes = arguments["recipe"], arguments["set"]
    if recipe == "list":
        print(recipe_table())
        return
    if changes == ["help"]:
        print(help_text(RECIPES[recipe]))
        return
    check_values(arguments, threads=THREADS, seed=SEED)
    torch_device(arguments["device"])
    torch.set_num_threads(arguments["threads"])
    work = Path(arguments["work"] or f"runs/pretrain/{recipe}")
    with telling_of_stops("what is done is kept, and the same command goes on"):
        path = pretrain(
            override(RECIPES[recipe], changes),
            Path(arguments["out"]) if arguments["out"] else work / "bundle",
            folder=arguments["data"],
            seed=arguments["seed"],
            flip=arguments["flip"],
            work=work,
            device=arguments["device"],
            inception=arguments["inception"],
            command=_command(arguments),
            classes=arguments["classes"],
        )
    if Processes(arguments["device"]).rank == 0:
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        there = str(path.absolute())  # a bare word would be a name
        print(f"wrote {path} ({size:.2f} MB); use it with gym.make(ID, bundle={there!r})")


def _parser() -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral pretrain", description=DESCRIPTION)
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--recipe",
        choices=["list", *RECIPES],
        default="list",
        metavar="NAME",
        help=f"Name of the recipe: {', '.join(RECIPES)}; `list` prints a table of them.",
    )
    what.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="PATH=VALUE",
        help="Fields of the recipe to change, such as vqvae.hidden=64 prior.hidden=256. "
        f"{', '.join(EVERY_LEVEL)} stand for those of every level. `--set help` lists all fields.",
    )
    what.add_argument(
        "--data",
        type=str | None,
        metavar="FOLDER",
        help="A folder of images, or the root of MNIST, CelebA or LSUN as they are published. The "
        "recipes of these data sets need it; other recipes make their images if it is not given.",
    )
    what.add_argument(
        "--classes",
        type=bool,
        default=False,
        help="Whether the sub-folders of --data are classes of its images: the bundle then has a "
        "feature net that tells them, in whose features Fréchet distances are taken.",
    )
    what.add_argument(
        "--flip", type=bool, default=False, help="Whether to add mirrored training images."
    )
    what.add_argument(
        "--seed",
        type=int,
        default=0,
        help="Seed of everything: the same seed makes the same bundle on the same machine.",
    )
    where = parser.add_argument_group("where to write")
    where.add_argument(
        "--out", type=str | None, metavar="FOLDER", help="The bundle, WORK/bundle if not given."
    )
    where.add_argument(
        "--work",
        type=str | None,
        metavar="FOLDER",
        help="Checkpoints, figures and pictures, runs/pretrain/RECIPE if not given.",
    )
    how = parser.add_argument_group("how to compute")
    how.add_argument("--device", type=str, default="cpu", help="Device to train on, cpu or cuda.")
    how.add_argument(
        "--threads",
        type=int,
        default=1,
        help="Number of torch's threads; one is fastest for small nets.",
    )
    how.add_argument(
        "--inception",
        type=str | None,
        metavar="FILE",
        help="Weights of the Inception network, with which the FID of reconstructions is measured.",
    )
    return parser


def _command(arguments: dict[str, Any]) -> str:
    """The command as the bundle's manifest gives it: without paths, which are of one machine."""
    words = ["ral pretrain", f"--recipe {arguments['recipe']}", f"--seed {arguments['seed']}"]
    words += ["--data DIR"] if arguments["data"] else []
    words += ["--classes true"] if arguments["classes"] else []
    words += ["--flip true"] if arguments["flip"] else []
    words += [f"--set {' '.join(map(_without_path, arguments['set']))}"] if arguments["set"] else []
    return " ".join(words)


def _without_path(change: str) -> str:
    """A change of the recipe as a manifest may say it: a base that is named stays, a path does
    not."""
    name, _, base = change.partition("=")
    return "base=BUNDLE" if name == "base" and Path(base).name != base else change


if __name__ == "__main__":
    main()

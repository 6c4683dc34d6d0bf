"""The console script ``ral``: each subcommand names a function, which is imported when it is run.

Names are strings, so that ``ral --help`` loads no torch and no import points upwards.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from typing import Any

from gymnasium.error import Error as GymnasiumError

import ral_env
from ral_env import streams
from ral_env.files import DiskError
from ral_env.tasks import TASKS, Task

# subcommand -> (function of the arguments that follow it, one line of help)
COMMANDS = {
    "envs": ("ral_env.cli:envs", "list the environments, and the bundle that each runs on"),
    "push": ("ral_env.push:main", "share a bundle on the Hugging Face Hub, with a card"),
    "demo": ("benchmarks.demo:main", "fine-tune a shipped prior and print what it gained"),
    "pretrain": ("pretrain.__main__:main", "images in, a bundle out: VQ-VAE, codes, prior"),
    "complete": ("ral_env.complete:main", "keep an image's upper rows, let a prior write the rest"),
    "sample": ("ral_env.sample:main", "sample images: a picture, and their codes"),
    "view": (
        "ral_env.viewer.command:main",
        "watch, complete, compare and play on a page in the browser",
    ),
    "film": ("ral_env.film:main", "watch a prior paint an image: an animated GIF"),
    "bench": ("benchmarks.bench:main", "measure: speed, memory"),
    "evaluate": (
        "agents.evaluation.__main__:main",
        "compare priors of bundles: distance, likelihood, diversity",
    ),
    "grade": ("benchmarks.grade:main", "one number for a policy, or the reason to refuse it"),
    "train": ("agents.train:main", "fine-tune a prior by reinforced adversarial learning"),
}
GREETING = """\
ral-env {version}: an agent paints an image, code by code, and a discriminator scores it.

Try, in this order:
  ral sample --env RALMNIST-v0     64 digits that a pretrained prior writes: samples.png
  ral film --overlay scores        one face being painted, and what its patches score: film.gif
  ral demo --seconds 20            what reinforcement learning makes of the prior, with controls
  ral train --env RALDigits-v0     fine-tune a prior yourself
  ral envs                         the environments; `ral --help` has all commands

In Python:
  import gymnasium
  env = gymnasium.make("ral_env:RALFaces32-v0", render_mode="rgb_array")"""
OURS = ("ral_env", "agents", "pretrain", "benchmarks")
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where all of them lie
EXTRAS = {
    "huggingface_hub": "hub",
    "sklearn": "pretrain",
    "vector_quantize_pytorch": "pretrain",
    "sb3_contrib": "contrib",
    "torchvision": "pretrain",
    "starlette": "viewer",
    "uvicorn": "viewer",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the subcommand and its arguments; those of the process if not given. Without any, what
            to try first is printed.

    Returns:
        The exit status: what the subcommand returns, 1 for bad input, 2 for an unknown subcommand.
        With ``RAL_DEBUG=1`` in the environment, bad input raises instead.
    """
    with streams.lasting():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    if not words:
        print(GREETING.format(version=ral_env.__version__))
        return 0
    name, *arguments = words
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"ral-env {ral_env.__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(COMMANDS)}."
        return _fail(f"no subcommand {name!r}; {hint} See `ral --help`.", 2)
    module, _, function = COMMANDS[name][0].partition(":")
    _prefer_our_packages()
    try:
        return getattr(import_module(module), function)(list(map(_expanded, arguments))) or 0
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OURS:
            return _fail(_displaced(package))
        if package not in EXTRAS:
            raise
        return _fail(f"{package} is not installed: pip install 'ral-env[{EXTRAS[package]}]'")
    except DiskError as error:
        if os.environ.get("RAL_DEBUG") == "1":
            raise
        return _fail(str(error))
    except (ValueError, GymnasiumError) as error:
        bad_input = isinstance(error, GymnasiumError) or _ours(error)
        if os.environ.get("RAL_DEBUG") == "1" or not bad_input:
            raise
        return _fail(str(error))


def _expanded(word: str) -> str:
    """An argument with its ``~``: shells leave it in ``--out=~/x``, and where it is quoted."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + (os.path.expanduser(value) if value[:2] in ("~", "~/") else value)


class _OurPackages(MetaPathFinder):
    """Finds the packages of this project beside this one, whatever else has their names."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return PathFinder.find_spec(fullname, [HOME]) if fullname in OURS else None


def _prefer_our_packages() -> None:
    """Where another project's ``agents``, say, would be found first, let ours be found.

    So it is with ``PYTHONPATH=.`` in a project that has such a folder. Processes that this one
    starts find ours, too.
    """
    found = {name: PathFinder.find_spec(name) for name in OURS}
    others = [spec for spec in found.values() if spec and not _lies_at_home(spec)]
    if others and not any(isinstance(finder, _OurPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OurPackages())
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = HOME if before is None else HOME + os.pathsep + before


def _lies_at_home(spec: Any) -> bool:
    places = [os.path.realpath(place) for place in spec.submodule_search_locations or ()]
    return places == [os.path.realpath(os.path.join(HOME, spec.name))]


def _displaced(package: str) -> str:
    """What to say where a package of ours has been replaced by another one, or loaded before it."""
    loaded = sys.modules.get(package)
    place = os.path.dirname(getattr(loaded, "__file__", None) or os.path.join(HOME, package, ""))
    return (
        f"{package!r} in {place} is not the package of that name that belongs to ral-env: install "
        "ral-env into an environment without the other one"
    )


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ral [--help] [--version] SUBCOMMAND [ARGUMENTS]",
            "",
            "subcommands (`ral SUBCOMMAND --help` tells more):",
            *lines,
        ]
    )


def _fail(message: str, status: int = 1) -> int:
    print(f"ral: error: {message}", file=sys.stderr)
    return status


def _ours(error: BaseException) -> bool:
    """Whether this project raised it: a library's ValueError is a bug, and keeps its traceback."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return bool(trace) and trace.tb_frame.f_globals["__name__"].partition(".")[0] in OURS


def envs(argv: Sequence[str]) -> None:
    """Print a table of the environment ids; bundles are found, and only their manifests read."""
    argparse.ArgumentParser(
        prog="ral envs",
        description="List the environment ids, and the bundle that each of them runs on.",
    ).parse_args(argv)
    from ral_env import bundle

    rows = [("id", "image", "grids", "codes", "named after", "bundle", "trained on")]
    for task in TASKS.values():
        size, codes = str(task.image_size), str(task.num_codes)
        rows.append((task.id, size, task.grids, codes, task.images, *_bundle_columns(task)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    if any("(stand-in)" in row[5] for row in rows):
        print(
            "\nA stand-in has the id's shape, not its images. The real bundle is made by\n"
            f"  ral pretrain --recipe NAME --data FOLDER --out {bundle.place('NAME')}\n"
            f"where NAME is {', '.join(t.bundle for t in TASKS.values() if t.stand_in)}."
        )


def _bundle_columns(task: Task) -> tuple[str, str]:
    """The bundle that a task runs on now, and what that was trained on."""
    from ral_env import bundle

    name, stands_in = bundle.choose(task)
    shown = f"{name} (stand-in)" if stands_in else name
    try:
        return shown, bundle.trained_on(name)
    except bundle.BundleError as error:
        return shown, f"unreadable: {error}"
    except ValueError:
        return shown, "missing"


if __name__ == "__main__":
    sys.exit(main())

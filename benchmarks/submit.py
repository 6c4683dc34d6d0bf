"""Measure what anyone has made, on the leaderboard's terms.

    ral bench submit --env RALMNIST-v0 --name mine --samples samples.npy
    ral bench submit --env RALMNIST-v0 --name mine --agent my_agent:act

``samples.npy`` holds codes, integers (N, length) or (N, h, w), as many as are measured or more.
``my_agent:act`` is a function that is called once for each code that is written, for a batch of
canvases:

    def act(observations, rng):
        # int16 (B, length), the number of codes where a cell is empty; a numpy Generator
        return rng.integers(0, 64, len(observations))

What it is given is what the environment shows, and what it gives is played by the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.demo import load_bundle
from benchmarks.leaderboard.entries import Contender, in_batches
from benchmarks.leaderboard.page import table
from benchmarks.leaderboard.protocol import SAMPLES, line, measure
from benchmarks.leaderboard.results import Results
from ral_env.bundle import Bundle
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.files import check_writable
from ral_env.ranges import SEED, check_values

Act = Callable[[np.ndarray, np.random.Generator], Any]


def from_file(file: Path, bundle: Bundle, needed: int) -> Contender:
    """Canvases that a file holds, in its order.

    Raises:
        ValueError: If the file is no array of this bundle's codes, or holds too few.
    """
    layout = bundle.layout
    try:
        codes = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as a .npy file: {error}") from error
    flat = codes.reshape(len(codes), -1) if codes.ndim else codes
    if not np.issubdtype(codes.dtype, np.integer) or flat.shape[1:] != (layout.length,):
        raise ValueError(
            f"{file} holds {codes.dtype} {codes.shape}, expected integers (N, {layout.length}), "
            "codes of the coarsest level first, row by row"
        )
    if len(flat) < needed:
        raise ValueError(f"{file} holds {len(flat)} canvases, expected {needed} or more")
    if flat.min() < 0 or flat.max() >= layout.num_codes:
        raise ValueError(
            f"{file} holds codes from {flat.min()} to {flat.max()}, expected 0 to "
            f"{layout.num_codes - 1}"
        )
    grids = layout.as_grids(flat)
    taken = 0

    def draw(count: int, seed: int) -> list[Tensor]:
        """The next canvases of the file."""
        nonlocal taken
        if taken + count > len(flat):
            raise ValueError(
                f"{file} holds {len(flat)} canvases, judges need {taken + count} in all: add some, "
                "or measure without judges (--judges 0)"
            )
        part = [grid[taken : taken + count] for grid in grids]
        taken += count
        return part

    return Contender(draw=draw)


def from_agent(act: Act, bundle: Bundle) -> Contender:
    """Canvases that an agent writes, code by code, in the environment.

    Args:
        act: Called with observations int16 (B, length) and a numpy Generator, gives B codes.
        bundle: Of the canvases.
    """

    def draw(count: int, seed: int) -> list[Tensor]:
        rng = np.random.default_rng(seed)
        return in_batches(lambda some: write(act, bundle, some, rng), count)

    return Contender(draw=draw)


def write(act: Act, bundle: Bundle, count: int, rng: np.random.Generator) -> list[Tensor]:
    """Whole canvases that an agent writes side by side, int64 (count, h, w) a level."""
    envs = LatentCanvasVectorEnv(count, bundle, autoreset_mode="disabled")
    observations, _ = envs.reset(seed=int(rng.integers(2**31)))
    done = np.zeros(count, bool)
    info: dict[str, Any] = {}
    while not done.all():
        observations, _, done, _, info = envs.step(np.asarray(act(observations, rng)))
    return bundle.layout.as_grids(np.stack(list(info["final_canvas"])))


def find(name: str) -> Act:
    """The function that ``module:function`` names; modules of this folder are found.

    Raises:
        ValueError: If there is none.
    """
    module, _, function = name.partition(":")
    if not function:
        raise ValueError(f"agent={name!r}, expected 'module:function'")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"agent={name!r} cannot be imported ({error}): expected 'module:function', the module "
            "in this folder or installed"
        ) from error
    if not callable(found):
        raise ValueError(f"agent={name!r} is {found!r}, expected a function")
    return found


def command(
    env: str,
    name: str,
    samples: str | None = None,
    agent: str | None = None,
    seed: int = 0,
    count: int = SAMPLES,
    judges: int = 5,
    out: str = "runs/algorithms",
) -> None:
    """Measure canvases, or an agent, as the leaderboard's entries are, and add a line.

    Args:
        env: Id of the environment.
        name: What stands in the table.
        samples: A .npy file of codes.
        agent: Or a function that writes them, module:function.
        seed: Seed of an agent's canvases, and of the judges.
        count: Number of canvases that are measured.
        judges: Number of judges, 2 or more; 0 leaves them out.
        out: Folder of the results; its ENV.csv gets the line.
    """
    check_values(locals(), seed=SEED, count="[20, inf)", judges="[0, inf)")
    if (samples is None) == (agent is None):
        raise ValueError(
            f"samples={samples!r} and agent={agent!r}, expected one of them: a .npy file of codes, "
            "or module:function"
        )
    torch.set_num_threads(1)
    bundle = load_bundle(env)
    results = Results(Path(out, f"{env}.csv"))
    check_writable(results.file)
    if samples is not None:
        contender = from_file(Path(samples).expanduser(), bundle, count)
    else:
        contender = from_agent(find(str(agent)), bundle)
    figures = measure(contender, bundle, seed, count, judges)
    key = {"env": env, "entry": name, "seed": seed, "budget": 0.0, "samples": count,
           "judges": judges, "settings": "{}"}  # fmt: skip
    results.add(line(key, bundle, contender, figures))
    print(f"{table(results.records)}\n\nresults: {results.file}")


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench submit`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench submit", as_positional=False)


if __name__ == "__main__":
    main()

"""What an environment step costs, as a ratio to Gymnasium's own CartPole in the same run.

    ral bench stepping

Three costs: a vector step without scoring, the step that ends an episode (decode and score all
canvases), and the memory of a large vector environment, in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import ral_env
from ral_env import bundle
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS


def fastest(call: Callable[[], float], repeats: int) -> float:
    """The least of ``repeats`` measurements: what else the machine does only ever adds."""
    return min(call() for _ in range(repeats))


def seconds_per_step(envs: Any, steps: int, repeats: int = 25) -> float:
    """Seconds of one vector step, of the fastest of ``repeats`` runs of ``steps`` steps."""
    actions = envs.action_space.sample()

    def run() -> float:
        envs.reset(seed=0)
        start = time.perf_counter()
        for _ in range(steps):
            envs.step(actions)
        return (time.perf_counter() - start) / steps

    return fastest(run, repeats)


def seconds_of_scoring(envs: Any, repeats: int = 3) -> float:
    """Seconds to decode and score all canvases at once."""

    def run() -> float:
        canvas, _ = envs.reset(seed=0)
        codes = np.where(canvas == envs.layout.empty, 0, canvas)
        start = time.perf_counter()
        envs.complete(codes)
        return time.perf_counter() - start

    return fastest(run, repeats)


def stepping(num_envs: int) -> list[dict[str, str]]:
    """One row an id, after those of CartPole's two vector environments.

    Args:
        num_envs: Number of canvases, and of poles.
    """
    native = gym.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")
    sync = gym.make_vec("CartPole-v1", num_envs, vectorization_mode="sync")
    # Unwrapped: no wrapper is counted on either side.
    floor = seconds_per_step(native.unwrapped, 200)
    rows = [
        {"environment": "CartPole-v1, native", "step us": f"{floor * 1e6:.1f}", "ratio": "1.00"}
    ]
    per_step = seconds_per_step(sync.unwrapped, 200, repeats=10)
    rows.append(_row("CartPole-v1, SyncVectorEnv", per_step, floor))
    for task in TASKS.values():
        envs: Any = gym.make_vec(task.id, num_envs, autoreset_mode="disabled").unwrapped
        steps = min(200, envs.layout.length - 1)  # never the last: that one scores
        per_step = seconds_per_step(envs, steps)
        scoring = seconds_of_scoring(envs)
        share = scoring / (scoring + per_step * envs.layout.length)
        row = _row(task.id, per_step, floor)
        row |= {
            "length": str(envs.layout.length),
            "scoring ms": f"{scoring * 1e3:.1f}",
            "scoring's share": f"{share:.0%}",
        }
        rows.append(row)
    return rows


def _row(name: str, per_step: float, floor: float) -> dict[str, str]:
    return {
        "environment": name,
        "step us": f"{per_step * 1e6:.1f}",
        "ratio": f"{per_step / floor:.2f}",
    }


def memory(env: str, num_envs: int) -> None:
    """Print this process's peak memory in MB, after the imports and after an episode (Linux).

    Args:
        env: Id of the environment.
        num_envs: Number of its canvases.
    """

    def peak() -> float:
        # Not getrusage: that counts what the process was before it became this program.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    imported = peak()
    envs: Any = gym.make_vec(env, num_envs).unwrapped
    canvas, _ = envs.reset(seed=0)
    envs.complete(np.where(canvas == envs.layout.empty, 0, canvas))
    print(f"{imported:.0f} {peak():.0f}")


def command(num_envs: int = 16, memory_of: str = "RALCelebA128-v0", memory_envs: int = 64) -> None:
    """Measure what an environment step costs, and what a large vector environment needs.

    Args:
        num_envs: Number of canvases, and of poles.
        memory_of: Id of the environment whose memory is measured.
        memory_envs: Number of canvases of that environment.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ral_env.StandInWarning)
    rows = stepping(num_envs)
    columns = ["environment", "length", "step us", "ratio", "scoring ms", "scoring's share"]
    print(f"A vector step of {num_envs}, one thread; ratio to CartPole's native vector env\n")
    print(markdown_table(rows, columns))
    code = (
        "import warnings; warnings.simplefilter('ignore'); from benchmarks import stepping; "
        f"stepping.memory({memory_of!r}, {memory_envs})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    name = bundle.choose(TASKS[memory_of])[0]
    print(
        f"\nPeak memory of {memory_of} with {memory_envs} canvases on {name!r}, a whole episode "
        f"scored: {found[1]} MB, of which {found[0]} MB are there after the imports."
    )


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench stepping`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench stepping", as_positional=False)


if __name__ == "__main__":
    main()

"""What it costs to begin: processor seconds and peak memory, beside those of ``import torch``.

    ral bench start

Each figure is a median over fresh processes, which take turns, so that what else the machine does
meets all of them. What runs on torch is told as the difference to torch alone, in the same run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from ral_env.ranges import COUNT, check_values
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS

TORCH = "import torch"
WITHOUT_TORCH = {
    "import ral_env": "import ral_env",
    "ral --help": "from ral_env.cli import main; main(['--help'])",
    "ral envs": "from ral_env.cli import main; main(['envs'])",
}
GOAL_SECONDS = 0.6  # without torch, or beyond it
GOAL_MB = {32: 50, 128: 100}  # beyond torch, by the size of images

# A process's own figures, at its end: what the parent was before counts in getrusage, and not here.
TOLD = """
import sys, time
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
print(time.process_time(), peak / 1024, "torch" in sys.modules, file=sys.stderr)
"""
FIRST_STEP = """
import warnings
import gymnasium
warnings.simplefilter("ignore")
env = gymnasium.make("ral_env:{id}")
env.reset(seed=0)
env.step(0)
"""


def measure(code: str) -> tuple[float, float, bool]:
    """Run code in a fresh process.

    Returns:
        Its processor seconds, its peak memory in MB, and whether it loaded torch.
    """
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{TOLD}"], capture_output=True, text=True, check=True
    )
    seconds, peak, torch = done.stderr.splitlines()[-1].split()
    return float(seconds), float(peak), torch == "True"


def start(ids: Sequence[str], rounds: int) -> list[dict[str, str]]:
    """A row for each way to begin, ``import torch`` first.

    Args:
        ids: environments, each of which is made, reset and stepped once.
        rounds: processes of each kind.

    Raises:
        RuntimeError: if torch is loaded by what is to do without it.
    """
    codes = {TORCH: TORCH, **WITHOUT_TORCH}
    codes |= {f"{id}, first step": FIRST_STEP.format(id=id) for id in ids}
    found = [{name: measure(code) for name, code in codes.items()} for _ in range(rounds)]
    for name in WITHOUT_TORCH:
        if any(one[name][2] for one in found):
            raise RuntimeError(f"{name!r} has loaded torch")
    rows = []
    sizes = {f"{id}, first step": TASKS[id].image_size for id in ids}
    torch_seconds, torch_mb = (median(one[TORCH][i] for one in found) for i in (0, 1))
    for name in codes:
        seconds, mb = (median(one[name][i] for one in found) for i in (0, 1))
        row = {"what": name, "seconds": f"{seconds:.2f}", "MB": f"{mb:.0f}"}
        if name in WITHOUT_TORCH:
            row["goal"] = f"{GOAL_SECONDS} s"
        elif name != TORCH:
            row["+ s"] = f"{seconds - torch_seconds:+.2f}"
            row["+ MB"] = f"{mb - torch_mb:+.0f}"
            row["times torch"] = f"{seconds / torch_seconds:.2f}"
            if sizes[name] in GOAL_MB:
                row["goal"] = f"{GOAL_SECONDS:+} s, {GOAL_MB[sizes[name]]:+} MB"
        rows.append(row)
    return rows


def command(envs: Sequence[str] = tuple(TASKS), rounds: int = 5) -> None:
    """Measure what it costs to begin, beside `import torch`. Needs Linux.

    Args:
        envs: Ids of the environments that are made and stepped once, each in its own processes.
        rounds: Number of processes of each kind; figures are their medians.
    """
    check_values(locals(), rounds=COUNT)
    if unknown := [id for id in envs if id not in TASKS]:
        raise ValueError(f"envs={unknown}, expected ids that `ral envs` lists")
    columns = ["what", "seconds", "MB", "+ s", "+ MB", "times torch", "goal"]
    print(f"Processor seconds and peak memory, medians of {rounds}; + is beyond `import torch`\n")
    print(markdown_table(start(envs, rounds), columns))


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench start`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench start", as_positional=False)


if __name__ == "__main__":
    main()

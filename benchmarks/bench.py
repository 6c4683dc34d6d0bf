"""``ral bench NAME``: each benchmark is a module with a ``main(argv)`` that prints its tables."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

BENCHMARKS = {
    "algorithms": "the leaderboard: every algorithm with the same seconds, measured alike",
    "context": "maximum likelihood with contexts that are in part sampled, against plain",
    "hacking": "a discriminator that learns no more: its score rises, the canvases get worse",
    "learning": "where an iteration of learning spends its time: the RAL loop, and PPO",
    "oracles": "the oracle experiments before any RL: entropies and both divergences",
    "pretraining": "what pretraining costs: memory of every recipe, images and codes a second",
    "recipes": "settings of the RAL loop against more maximum likelihood, where the truth is known",
    "sampling": "how fast codes are sampled: cached, naively, and what the machine can do",
    "scores": "reference scores of every id: random codes, the prior, real canvases",
    "start": "what it costs to begin: seconds and memory up to the first step, beside torch",
    "stepping": "an environment step against Gymnasium's CartPole, and the memory of a large one",
    "submit": "canvases or an agent of yours, measured as the leaderboard's are",
    "viewer": "how soon the viewer's page shows a picture, and how fast it paints",
}


def main(argv: list[str] | None = None) -> int | None:
    """Run one benchmark; the arguments that follow its name are its own."""
    lines = [f"  {name}: {about}" for name, about in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="ral bench",
        description="\n".join(["Run a benchmark. `ral bench NAME --help` tells more.", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(BENCHMARKS), help="name of the benchmark")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of that benchmark")
    parsed = parser.parse_args(sys.argv[1:] if argv is None else argv)
    # By its name only: nothing imports pretrain.
    module = "pretrain.costs" if parsed.name == "pretraining" else f"benchmarks.{parsed.name}"
    return import_module(module).main(parsed.arguments)

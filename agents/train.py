"""``ral train --env ID --algo NAME``: whichever algorithm, one folder of the same shape."""

from __future__ import annotations

import argparse
import sys

ALGORITHMS = ("reinforce", "rounds", "ppo", "a2c", "trpo", "maskable-ppo", "dqn")


def main(argv: list[str] | None = None) -> int:
    """Train with the algorithm that ``--algo`` names; the other arguments are its own."""
    parser = argparse.ArgumentParser("ral train", add_help=False, allow_abbrev=False)
    parser.add_argument("--algo", choices=ALGORITHMS, default="reinforce")
    chosen, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    if chosen.algo == "reinforce":
        from agents.reinforce import __main__ as reinforce

        return reinforce.main(rest)
    if chosen.algo == "rounds":
        from agents.rounds import __main__ as rounds

        return rounds.main(rest)
    from agents.sb3 import cli

    return cli.main(chosen.algo, rest)


if __name__ == "__main__":
    raise SystemExit(main())

"""The oracle experiments before any RL: how much room there is, and why NLL_oracle alone misleads.

    ral bench oracles

For each id the MLE prior is judged by the exact oracle, at several sampling temperatures. Room for
RL is the reverse KL, and a first test of it the ratio of reverse to forward KL: a prior that is as
wrong one way as the other has little that its own samples could teach it.
"""

from __future__ import annotations

import torch

from agents.evaluation.metrics import divergences
from benchmarks.plots import markdown_table
from ral_env import bundle
from ral_env.nets import joint
from ral_env.tasks import TASKS

IDS = [name for name in TASKS if name.startswith("RALOracle")]


def rows(env: str, temperatures: tuple[float, ...], count: int, seed: int) -> list[dict[str, str]]:
    """One row a temperature; nats per canvas, with standard errors."""
    made = bundle.load(TASKS[env].bundle)
    test = made.layout.as_grids(made.split("test"))
    real_oracle = joint.total_log_prob(made.oracles, test).numpy()
    found = []
    for temperature in temperatures:
        generator = torch.Generator().manual_seed(seed)
        drawn = joint.draw(made.priors, count, generator, temperature)
        measured = divergences(
            joint.total_log_prob(made.priors, drawn, temperature).numpy(),
            joint.total_log_prob(made.oracles, drawn).numpy(),
            joint.total_log_prob(made.priors, test, temperature).numpy(),
            real_oracle,
        )
        row = {"id": env, "codes": str(made.layout.length), "temperature": f"{temperature:.2f}"}
        row |= {name: f"{e.value:.1f} ± {e.error:.1f}" for name, e in measured.items()}
        reverse, forward = measured["reverse KL"].value, measured["forward KL"].value
        row["reverse / forward"] = f"{reverse / forward:.2f}"
        row["reverse KL a code"] = f"{reverse / made.layout.length:.2f}"
        found.append(row)
    return found


def command(
    temperatures: tuple[float, ...] = (1.0, 0.9, 0.8), count: int = 2000, seed: int = 0
) -> None:
    """Judge the MLE priors of the oracle experiments by their oracles.

    Args:
        temperatures: of sampling.
        count: samples.
        seed: of the samples.
    """
    torch.set_num_threads(1)
    table = [row for env in IDS for row in rows(env, tuple(temperatures), count, seed)]
    print(f"Nats per canvas ± standard error, {count} samples; MLE priors, no RL.\n")
    print(markdown_table(table, list(table[0])))


def main(argv: list[str] | None = None) -> None:
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench oracles", as_positional=False)


if __name__ == "__main__":
    main()

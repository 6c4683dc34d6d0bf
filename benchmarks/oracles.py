"""The oracle experiments before any RL: how much room there is, and why nll_oracle alone misleads.

    ral bench oracles

For each id the MLE prior is measured by the exact oracle, at several sampling temperatures. Room
for RL is the reverse KL, and a first test of it the ratio of reverse to forward KL: a prior that is
as wrong one way as the other has little that its own samples could teach it.
"""

from __future__ import annotations

import torch

from agents.evaluation.evaluator import HEADINGS, TemperedPrior
from agents.evaluation.metrics import divergences
from ral_env import bundle
from ral_env.nets import joint
from ral_env.tables import markdown_table
from ral_env.tasks import TASKS

IDS = [name for name in TASKS if name.startswith("RALOracle")]


def rows(env: str, temperatures: tuple[float, ...], count: int, seed: int) -> list[dict[str, str]]:
    """One row a temperature; nats per canvas, with standard errors.

    Args:
        env: Id of an environment whose bundle has an oracle.
        temperatures: Sampling temperatures of the MLE prior.
        count: Number of samples at each.
        seed: Seed of the samples.
    """
    loaded = bundle.load(TASKS[env].bundle)
    test = loaded.layout.as_grids(loaded.split("test"))
    oracle = TemperedPrior(loaded.oracles)
    real_oracle = oracle.log_prob(test)
    made = []
    for temperature in temperatures:
        prior = TemperedPrior(loaded.priors, temperature)
        generator = torch.Generator().manual_seed(seed)
        samples = joint.draw(loaded.priors, count, generator, temperature)
        measured = divergences(
            prior.log_prob(samples), oracle.log_prob(samples), prior.log_prob(test), real_oracle
        )
        length = loaded.layout.length
        row = {"id": env, "codes": str(length), "temperature": f"{temperature:.2f}"}
        row |= {name: f"{e.value:.1f} ± {e.error:.1f}" for name, e in measured.items()}
        reverse, forward = measured["reverse_kl"].value, measured["forward_kl"].value
        row["reverse / forward"] = f"{reverse / forward:.2f}"
        row["reverse KL a code"] = f"{reverse / length:.2f}"
        made.append(row)
    return made


def command(
    temperatures: tuple[float, ...] = (1.0, 0.9, 0.8), count: int = 2000, seed: int = 0
) -> None:
    """Measure the MLE priors of the oracle experiments by their oracles.

    Args:
        temperatures: Sampling temperatures.
        count: Number of samples at each temperature.
        seed: Seed of the samples.
    """
    torch.set_num_threads(1)
    lines = [row for env in IDS for row in rows(env, tuple(temperatures), count, seed)]
    print(f"Nats per canvas ± standard error, {count} samples; MLE priors, no RL.\n")
    print(markdown_table(lines, list(lines[0]), HEADINGS))


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench oracles`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench oracles", as_positional=False)


if __name__ == "__main__":
    main()

"""What a policy writes, judged by what has not learnt: the last row of a run, and ``ral evaluate``.

A measure of quality never stands alone: precision rises and the reverse KL falls as modes are
lost, which recall, diversity, entropy, the forward NLL and the Fréchet distance show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.evaluation import metrics
from ral_env import bundle as bundles
from ral_env.nets import joint, represent
from ral_env.reward import normalise, single
from ral_env.tasks import TASKS

Row = dict[str, float]


def diversity(grids: Sequence[Tensor]) -> float:
    """Share of cells in which two canvases differ, the mean over neighbours in the batch."""
    codes = torch.cat([grid.flatten(1) for grid in grids], 1)
    return (codes != codes.roll(1, 0)).float().mean().item()


class Judge:
    """Holds a bundle's held-out codes, and judges what others write against them.

    Args:
        bundle: its test codes, discriminator, feature net and oracle are used, where it has them.
    """

    def __init__(self, bundle: bundles.Bundle):
        self.bundle = bundle
        self.test = bundle.layout.as_grids(bundle.split("test"))
        self.real = None if bundle.features is None else self._features(self.test)

    @torch.no_grad()
    def written(self, grids: Sequence[Tensor]) -> Row:
        """Of codes (N, h, w) a level, whoever wrote them.

        Returns:
            ``score``, the mean normalised score by the bundle's own discriminator (real is high; it
            was trained against the MLE prior, and may like what is nothing like it); ``diversity``;
            with a feature net ``fd``, the Fréchet distance to held-out real codes, both decoded,
            ``precision`` and ``recall``; with an oracle ``nll_oracle``, nats a canvas.
        """
        bundle = self.bundle
        scores = [
            single(normalise(bundle.discriminator(shown), bundle.reward_scale))
            for shown in self._shown(grids, bundle.discriminator_input)
        ]
        row = {"score": torch.cat(scores).mean().item(), "diversity": diversity(grids)}
        if self.real is not None:
            features = self._features(grids)
            row["fd"] = metrics.frechet_distance(self.real, features)
            if min(len(self.real), len(features)) > 3:  # neighbours that they are counted by
                precision, recall = metrics.precision_recall(self.real, features)
                row |= {"precision": precision, "recall": recall}
        if bundle.oracles:
            row["nll_oracle"] = -joint.total_log_prob(bundle.oracles, grids).mean().item()
        return row

    @torch.no_grad()
    def policy(self, nets: Sequence[Any], count: int = 1000, seed: int = 0) -> Row:
        """Of ``count`` samples of nets, one a level, top first.

        Returns:
            What :meth:`written` tells, ``test_nats``, the forward NLL of held-out codes, and
            ``entropy``, nats a canvas; with an oracle ``reverse_kl``.
        """
        generator = torch.Generator().manual_seed(seed)
        layout = self.bundle.layout
        empty = [torch.full((count, *level), layout.empty) for level in layout.levels]
        grids = joint.sample(nets, empty, generator=generator, batch=250)
        row = {
            "test_nats": -joint.total_log_prob(nets, self.test).mean().item(),
            "entropy": -joint.total_log_prob(nets, grids).mean().item(),
        } | self.written(grids)
        if "nll_oracle" in row:
            row["reverse_kl"] = row["nll_oracle"] - row["entropy"]
        return row

    def _shown(self, grids: Sequence[Tensor], kind: str) -> Iterator[Tensor]:
        parts = zip(*(grid.split(50) for grid in grids), strict=True)
        return (represent(self.bundle.vqvae, part, kind) for part in parts)

    @torch.no_grad()
    def _features(self, grids: Sequence[Tensor]) -> Tensor:
        """Of decoded codes: (N, F)."""
        assert self.bundle.features is not None
        return torch.cat([self.bundle.features.features(x) for x in self._shown(grids, "image")])


def results(
    bundle: bundles.Bundle,
    policies: Sequence[Any],
    seed: int = 0,
    count: int = 1000,
    grids: Sequence[Tensor] | None = None,
) -> Row:
    """The row that a run ends in: its policy's figures, and as ``prior_...`` those of the bundle's
    MLE prior.

    Args:
        policies: one a level, top first; none where the policy is no prior.
        count: whole canvases to sample.
        grids: what the policy has written, as many, where there is nothing to sample from.

    Returns:
        See :meth:`Judge.policy` and :meth:`Judge.written`.
    """
    judge, found = Judge(bundle), Row()
    if policies:
        found |= judge.policy(policies, count, seed)
    elif grids is not None:
        found |= judge.written(grids)
    if bundle.priors:
        prior = judge.policy(bundle.priors, count, seed)
        found |= {f"prior_{name}": value for name, value in prior.items()}
    return found


def command(bundle: list[str], count: int = 1000, seed: int = 0, out: str = "") -> None:
    """Judge the priors of bundles by the held-out codes of the first.

    Prints a row for each, and one for as many real training codes: as near as one can come.

    Args:
        bundle: names, paths or environment ids; the others must have the first's VQ-VAE, as those
            that `ral train` leaves have.
        count: samples of each. Fréchet distances of other counts are not comparable.
        seed: of the samples.
        out: a JSON file for the figures.
    """
    if count < 2:
        raise ValueError(f"count={count}, expected 2 or more")
    loaded = {name: _load(name) for name in bundle}
    first, *others = loaded.values()
    for other in others:
        same = other.layout == first.layout and _same_weights(other.vqvae, first.vqvae)
        if not same:
            raise ValueError(
                f"{other!r} has another VQ-VAE than {first!r}, so their codes mean other images: "
                "evaluate them one by one"
            )
    judge = Judge(first)
    train = [grid[:count] for grid in first.layout.as_grids(first.split("train"))]
    rows: dict[str, Row] = {f"real, {len(train[0])} of the training set": judge.written(train)}
    for name, one in loaded.items():
        if not one.priors:
            raise ValueError(f"{name!r} has no priors to sample from: leave it out")
        rows[name] = judge.policy(one.priors, count, seed)
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    print(f"{count} samples, {len(judge.test[0])} held-out canvases of {first.dataset}\n")
    for cells in (["", *columns], ["---", *["---:"] * len(columns)]):
        print(f"| {' | '.join(cells)} |")
    for name, row in rows.items():
        cells = [f"{row[key]:.4g}" if key in row else "" for key in columns]
        print(f"| {' | '.join([name, *cells])} |")
    if out:
        settings = {"bundle": bundle, "count": count, "seed": seed, "dataset": first.dataset}
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings | {"rows": rows}, indent=2))


def _load(name: str) -> bundles.Bundle:
    task = TASKS.get(name.rpartition(":")[2])
    return bundles.load(name) if task is None else bundles.for_task(task)


def _same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, others = a.state_dict(), b.state_dict()
    return mine.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in mine.items()
    )


def main(argv: list[str] | None = None) -> None:
    """Judge the priors of bundles by the held-out codes of the first."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral evaluate", description=main.__doc__)
    parser.add_argument("bundle", nargs="+", help="names, paths or environment ids")
    parser.add_function_arguments(command, skip={"bundle"}, as_group=False, as_positional=False)
    command(**parser.parse_args(argv))


if __name__ == "__main__":
    main()

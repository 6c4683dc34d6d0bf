"""A training run's folder, and the row of results it ends in, alike for every algorithm."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from agents.metrics import frechet_distance
from agents.mle import as_grids
from agents.training import write_whole
from ral_env import bundle as bundles
from ral_env.nets import joint, represent
from ral_env.own import OwnBundle
from ral_env.reward import normalise, single

Row = dict[str, float]


class Run:
    """config.json, figures as CSV and TensorBoard, sample grids; at the end the bundle and
    metrics.csv.

    Args:
        out: the folder.
        config: JSON-able settings.
        resume: whether it goes on with what is there.
        images_every: steps between sample grids.
        formats: of SB3's logger, beside the progress.csv that :meth:`row` writes.

    Raises:
        ValueError: if there is a run already, or none to go on with.
    """

    def __init__(
        self,
        out: Path | str,
        config: dict[str, Any],
        resume: bool = False,
        images_every: int = 50,
        formats: Sequence[str] = ("tensorboard",),
    ):
        from stable_baselines3.common.logger import configure

        self.out, self.images_every = Path(out), images_every
        there = (self.out / "config.json").exists()
        if there and not resume:
            raise ValueError(
                f"{out} holds a run: go on with it (--resume), choose another folder (--out), or "
                "remove it"
            )
        if resume and not there:
            raise ValueError(f"{out} holds no run to resume: check --out, or leave --resume out")
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(
            self.out / "config.json", lambda file: file.write_text(json.dumps(config, indent=2))
        )
        self.logger = configure(str(self.out), list(formats))
        self.rows: list[Row] = []

    def row(self, row: Row) -> None:
        """Figures of one step; its first is the number of the step."""
        fields = list(self.rows[0]) if self.rows else []
        self.rows.append(row)
        if set(row) <= set(fields):
            with open(self.out / "progress.csv", "a", newline="") as file:
                csv.DictWriter(file, fields).writerow(row)
        else:
            self.rewrite(self.rows)
        for key, value in row.items():
            self.logger.record(key, value)
        self.logger.dump(int(next(iter(row.values()))))

    def rewrite(self, rows: list[Row]) -> None:
        """Let progress.csv hold these rows: figures may come to it later, or a run go on."""
        fields = list(dict.fromkeys(key for row in rows for key in row))
        self.rows = [{key: row.get(key, "") for key in fields} for row in rows]  # type: ignore

        def write(path: Path) -> None:
            with open(path, "w", newline="") as file:
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(self.rows)

        write_whole(self.out / "progress.csv", write)

    def wants_images(self, step: int) -> bool:
        return step == 1 or step % self.images_every == 0

    def images(self, step: int, images: np.ndarray) -> None:
        """Save and log uint8 images (N, 3, H, W) as one grid."""
        from stable_baselines3.common.logger import Image

        grid = make_grid(torch.from_numpy(images))  # (3, H, W)
        times = max(1, 96 // images.shape[-1])
        grid = grid.repeat_interleave(times, 1).repeat_interleave(times, 2)
        to_pil_image(grid).save(self.out / f"samples-{step:05d}.png")
        self.logger.record("samples", Image(grid, "CHW"))
        self.logger.dump(step)

    def finish(
        self,
        bundle: bundles.Bundle,
        policies: Sequence[Any],
        discriminator: dict[str, Any],
        figures: dict[str, Any],
    ) -> None:
        """The fine-tuned policies as a bundle: ``gym.make(ID, bundle="OUT/bundle")`` takes it.

        Nets that are not ours have no config to make them from again: their weights are saved.

        Args:
            policies: one a level, top first; none where a policy is no prior.
            discriminator: ``net``, its ``input`` and the ``scale`` of its scores.
            figures: the row of metrics.csv.
        """
        self.logger.close()
        figures = figures | {"dataset": bundle.dataset, "ral-env": version("ral-env"),
                             "torch": version("torch")}  # fmt: skip

        def write(path: Path) -> None:
            with open(path, "w", newline="") as file:
                writer = csv.DictWriter(file, list(figures))
                writer.writeheader()
                writer.writerow(figures)

        write_whole(self.out / "metrics.csv", write)
        if isinstance(bundle, OwnBundle):
            nets = {f"prior_{level}": net for level, net in enumerate(policies)}
            for stem, net in {**nets, "discriminator": discriminator["net"]}.items():
                save_model(net, str(self.out / f"{stem}.safetensors"))
        elif policies:
            bundles.save(
                self.out / "bundle",
                vqvae=bundle.vqvae,
                discriminator=discriminator["net"],
                discriminator_input=discriminator["input"],
                reward_scale=discriminator["scale"],
                priors=policies,
                codes=bundle.codes,
                splits=bundle.splits,
                dataset=bundle.dataset,
                recipe=json.loads((self.out / "config.json").read_text())
                | {"fine_tuned_from": bundle.recipe},
                metrics={k: v for k, v in figures.items() if isinstance(v, int | float)},
                oracles=bundle.oracles,
                features=bundle.features,
            )


def diversity(grids: Sequence[Tensor]) -> float:
    """Share of cells in which two canvases differ, the mean over neighbours in the batch."""
    codes = torch.cat([grid.flatten(1) for grid in grids], 1)
    return (codes != codes.roll(1, 0)).float().mean().item()


@torch.no_grad()
def results(
    bundle: bundles.Bundle,
    policies: Sequence[Any],
    seed: int = 0,
    count: int = 1000,
    grids: Sequence[Tensor] | None = None,
) -> Row:
    """What a policy writes, judged by what has not learnt; beside it, as ``prior_...``, the same
    of the bundle's MLE prior.

    Args:
        policies: one a level, top first; none where the policy is no prior.
        count: whole canvases to sample.
        grids: what the policy has written, as many, where there is nothing to sample from.

    Returns:
        ``score``, the mean normalised score by the bundle's own discriminator (real is high; it
        was trained against the MLE prior, and may like what is nothing like it); ``diversity``;
        with a feature net ``fd``, the Fréchet distance of ``count`` samples to held-out real codes,
        both decoded; of priors ``test_nats``, the forward NLL of held-out codes, and ``entropy``,
        nats a canvas; with an oracle ``nll_oracle`` of the samples and ``reverse_kl``.
    """
    layout = bundle.layout
    test = as_grids(layout, bundle.split("test"))
    real = _features(bundle, test) if bundle.features is not None else None
    found: Row = {}
    for prefix, nets in ("", policies), ("prior_", bundle.priors):
        entropy = None
        if nets:
            generator = torch.Generator().manual_seed(seed)
            empty = [torch.full((count, *level), layout.empty) for level in layout.levels]
            parts = zip(*(grid.split(250) for grid in empty), strict=True)
            drawn = [joint.sample(nets, part, generator=generator) for part in parts]
            written = [torch.cat(level) for level in zip(*drawn, strict=True)]
            found[f"{prefix}test_nats"] = -joint.total_log_prob(nets, test).mean().item()
            entropy = -joint.total_log_prob(nets, written).mean().item()
            found[f"{prefix}entropy"] = entropy
        elif grids is not None and not prefix:
            written = list(grids)
        else:
            continue
        scores = [
            single(normalise(bundle.discriminator(shown), bundle.reward_scale))
            for shown in _shown(bundle, written, bundle.discriminator_input)
        ]
        found[f"{prefix}score"] = torch.cat(scores).mean().item()
        found[f"{prefix}diversity"] = diversity(written)
        if real is not None:
            found[f"{prefix}fd"] = frechet_distance(real, _features(bundle, written))
        if bundle.oracles:
            nll = -joint.total_log_prob(bundle.oracles, written).mean().item()
            found[f"{prefix}nll_oracle"] = nll
            if entropy is not None:
                found[f"{prefix}reverse_kl"] = nll - entropy
    return found


def _shown(bundle: bundles.Bundle, grids: Sequence[Tensor], kind: str) -> Iterator[Tensor]:
    parts = zip(*(grid.split(50) for grid in grids), strict=True)
    return (represent(bundle.vqvae, part, kind) for part in parts)


def _features(bundle: bundles.Bundle, grids: Sequence[Tensor]) -> Tensor:
    """Of decoded codes: (N, F)."""
    assert bundle.features is not None
    return torch.cat([bundle.features.features(x) for x in _shown(bundle, grids, "image")])

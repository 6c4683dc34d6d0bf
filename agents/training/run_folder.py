"""A training run's folder, alike for every algorithm."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from safetensors.torch import save_model

from agents.evaluation.evaluator import Row
from agents.training.files import write_whole
from ral_env import bundle as bundles
from ral_env.bundle.custom import OwnBundle
from ral_env.picture import contact_sheet


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

        sheet = contact_sheet(images)
        PIL.Image.fromarray(sheet).save(self.out / f"samples-{step:05d}.png")
        self.logger.record("samples", Image(sheet, "HWC"))
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

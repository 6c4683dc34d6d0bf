"""What all stages share: the run with its recipe, seed, device and folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.training.files import Row
from agents.training.run_folder import RunFolder
from pretrain.configs import Recipe
from ral_env.bundle import Bundle

SHOWN = 8  # pictures in a row of a sheet


@dataclass(frozen=True)
class Pretraining:
    """A run of all stages of a recipe.

    Args:
        recipe: What is trained, and how.
        seed: Seed of everything.
        device: Where to train: ``cpu`` or ``cuda``.
        folder: The work folder: for each stage a checkpoint, a CSV, a PNG and TensorBoard events.
        base: The bundle whose codes and priors are kept; None if all is trained.
    """

    recipe: Recipe
    seed: int
    device: str
    folder: RunFolder
    base: Bundle | None = None

    def optimiser_options(
        self, stage: str, draw: Callable[[Any], np.ndarray] | None = None
    ) -> dict[str, Any]:
        """Options of :func:`agents.training.optimise.optimise`: device, label, checkpoint and log.

        Args:
            stage: Name of the stage and of its files.
            draw: Makes a sheet, uint8 (H, W, 3), of what the net does; drawn at each validation.
        """
        return {
            "device": self.device,
            "label": stage,
            "checkpoint": self.folder.path(f"{stage}.pt"),
            "log": self._log(stage, draw) if self.folder.writes else None,
        }

    def _log(self, stage: str, draw: Callable[[Any], np.ndarray] | None) -> Callable[..., None]:
        figures = self.folder.figures(stage, events=stage)

        def log(rows: list[Row], net: Any) -> None:
            figures.rewrite(rows)
            figures.draw(rows[-1])
            if draw is not None:
                step = int(rows[-1]["step"])
                self.folder.picture(f"{stage}.png", "pictures", draw(net), figures, step)

        return log

    def progress_label(self, stage: str) -> str:
        """The name that a stage's progress bar shows: none but in the first process."""
        return stage if self.folder.processes.rank == 0 else ""

    def rounded(self, net: Any) -> Any:
        """The net as it will be loaded from the bundle, which every later stage works with.

        Rounded to 16 bits where the recipe says so, still in float32.
        """
        return net.half().float() if self.recipe.half else net

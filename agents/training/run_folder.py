"""The life of a run: the folder of REINFORCE, of Stable-Baselines3's algorithms and of pretraining.

A run is asked for by a config. It is checked against what the folder holds before anything is
written; then there are rows of figures, pictures and checkpoints, and at the end what it leaves.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from safetensors.torch import save_model
from torch import nn

from agents.training.checkpoint import Checkpoint
from agents.training.files import Row, write_rows, write_whole
from agents.training.processes import Processes
from ral_env import __version__, migrations
from ral_env import bundle as bundles


class Figures:
    """Rows of figures as they come: a CSV, and TensorBoard's events.

    Args:
        file: the CSV.
        events: folder of TensorBoard's files; a writer is opened with the first row or picture.
    """

    def __init__(self, file: Path, events: Path):
        self.file, self.events = file, events
        self.rows: list[Row] = []
        self._writer: Any = None

    @property
    def writer(self) -> Any:
        """TensorBoard's."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.events))
        return self._writer

    def add(self, row: Row) -> None:
        """One row more; its first figure is the number of the step."""
        columns = list(self.rows[0]) if self.rows else []
        if set(row) <= set(columns):
            self.rows.append(row)
            with self.file.open("a", newline="") as stream:
                csv.DictWriter(stream, columns).writerow(row)
        else:
            self.rewrite([*self.rows, row])
        self.draw(row)

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Let the CSV hold these rows: a run goes on, or figures come that earlier rows lack."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        self.rows = [{name: row.get(name, "") for name in columns} for row in rows]  # type: ignore
        write_rows(self.file, self.rows)

    def draw(self, row: Row) -> None:
        """A row in TensorBoard."""
        step = int(next(iter(row.values())))
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def picture(self, name: str, sheet: np.ndarray, step: int) -> None:
        """A picture, uint8 (H, W, 3), in TensorBoard."""
        self.writer.add_image(name, sheet, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Write what TensorBoard has still to write."""
        if self._writer is not None:
            self._writer.close()


def stored_config(folder: Path | str, kind: str) -> dict[str, Any] | None:
    """What the run in a folder was asked for, under the names of today; None if there is no run.

    Args:
        folder: The run's folder.
        kind: Whose names its fields have, a key of :data:`ral_env.migrations.FIELDS`.

    Raises:
        ValueError: If its config.json cannot be read.
    """
    file = Path(folder) / "config.json"
    if not file.exists():
        return None
    try:
        return migrations.renamed(json.loads(file.read_text()), kind, str(file))
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{file} is no config of a run ({error}): choose another folder, or remove it"
        ) from error


class RunFolder:
    """A run's folder. Of several processes the first writes; without a folder nobody does.

    Args:
        folder: where everything goes; None writes nothing.
        config: what is asked for, JSON-able; config.json holds it.
        kind: whose names its fields have, a key of :data:`ral_env.migrations.FIELDS`.
        resume: whether to go on with a run that is there: True asks for one, False refuses one, and
            None goes on where there is one and begins where there is none.
        free: fields that a run which goes on may change.
        option: how the folder is called on the command line, for messages.
        notes: what config.json holds beside what was asked for.
        processes: those that train together.

    Raises:
        ValueError: if there is a run already, none to go on with, or one that was asked for
            something else. Nothing has been written then.
    """

    def __init__(
        self,
        folder: Path | str | None,
        config: Mapping[str, Any],
        *,
        kind: str,
        resume: bool | None = False,
        free: Sequence[str] = (),
        option: str = "--out",
        notes: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
    ):
        self.processes = processes or Processes()
        self.folder = None if folder is None else Path(folder)
        self.writes = self.folder is not None and self.processes.rank == 0
        self.config: dict[str, Any] = json.loads(json.dumps(config))
        self.kind = kind
        self._figures: dict[str, Figures] = {}
        if not self.writes:
            return
        stored = stored_config(self.path(), self.kind)
        if stored is not None and resume is False:
            raise ValueError(
                f"{folder} holds a run: go on with it (--resume), choose another folder "
                f"({option}), or remove it"
            )
        if stored is None and resume is True:
            raise ValueError(
                f"{folder} holds no run to resume: check {option}, or leave --resume out"
            )
        begun = migrations.with_later_stages(stored or {}, self.config, kind)
        known = {k: v for k, v in self.config.items() if k in begun and k not in free}
        was = {name: value for name, value in begun.items() if name in known}
        if other := sorted(differences(was, known)):
            raise ValueError(
                f"{folder} holds a run that was asked for something else ("
                f"{'; '.join(other[:5])}): ask for the same to go on with it, choose another "
                f"folder with {option}, or remove it"
            )
        # What is there may have old names, or other free settings.
        file = self.path("config.json")
        there = {} if stored is None else json.loads(file.read_text())
        if stored is None or there != {**there, **self.config}:
            self.path().mkdir(parents=True, exist_ok=True)
            text = json.dumps({**self.config, **(notes or {})}, indent=2)
            write_whole(file, lambda fresh: fresh.write_text(text + "\n"))

    def path(self, name: str = "") -> Path:
        """A file of the folder."""
        assert self.folder is not None
        return self.folder / name

    def checkpoint(
        self, settings: Mapping[str, Any], parts: Mapping[str, Any], name: str = "checkpoint"
    ) -> Checkpoint | None:
        """What the run goes on from, shared by all processes; None without a folder."""
        if self.folder is None:
            return None
        return Checkpoint(
            self.path(f"{name}.pt"), dict(settings), dict(parts), self.processes, self.kind
        )

    def once(self, stage: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a short stage makes (tensors and figures); the next time it is read from disk."""
        file = self.path(f"{stage}.pt")
        if file.exists():
            return torch.load(file, weights_only=True)
        made = make()
        if self.writes:
            write_whole(file, lambda fresh: torch.save(made, fresh))
        return made

    def figures(self, stage: str = "progress", events: str = "") -> Figures:
        """The rows of a stage: STAGE.csv, and TensorBoard's events in the sub-folder ``events``."""
        if stage not in self._figures:
            self._figures[stage] = Figures(self.path(f"{stage}.csv"), self.path(events))
        return self._figures[stage]

    def picture(self, file: str, name: str, sheet: np.ndarray, figures: Figures, step: int) -> None:
        """A picture, uint8 (H, W, 3), as a PNG and in TensorBoard under ``name``."""
        PIL.Image.fromarray(sheet).save(self.path(file))
        figures.picture(name, sheet, step)

    def say(self, *words: Any) -> None:
        """Print, once for all processes."""
        if self.processes.rank == 0:
            print(*words)

    def finish(
        self,
        bundle: bundles.Bundle,
        policies: Sequence[nn.Module],
        results: Mapping[str, Any],
        *,
        discriminator: nn.Module,
        discriminator_input: str,
        reward_scale: float,
    ) -> None:
        """What a policy's run leaves: a row of results (metrics.csv) and the fine-tuned bundle.

        ``gym.make(ID, bundle="OUT/bundle")`` takes it.

        Of nets that have no config to make them from again, the weights alone are saved.

        Args:
            bundle: what the run began with.
            policies: one a level, top first; none where a policy is no prior.
            results: the row.
            discriminator: as it is now, with what it sees and what its scores are divided by.
        """
        if not self.writes:
            return
        for figures in self._figures.values():
            figures.close()
        results = dict(results) | {
            "dataset": bundle.dataset, "bundle": bundle.edition,
            "ral-env": __version__, "torch": str(torch.__version__),
        }  # fmt: skip
        self.say(f"scores and figures by bundle {bundle.edition}")
        write_rows(self.path("metrics.csv"), [results])
        tuned = dataclasses.replace(
            bundle,
            priors=tuple(policies) or bundle.priors,
            policies=(),  # those of the priors that the run began with
            version="",
            discriminator=discriminator,
            discriminator_input=discriminator_input,
            reward_scale=reward_scale,
            recipe=json.loads(self.path("config.json").read_text())
            | {"fine_tuned_from": bundle.recipe},
        )
        if not bundles.storable(tuned):
            nets = {f"prior_{level}": net for level, net in enumerate(policies)}
            for stem, net in {**nets, "discriminator": discriminator}.items():
                save_model(net, str(self.path(f"{stem}.safetensors")))
        elif policies:
            metrics = {k: v for k, v in results.items() if isinstance(v, int | float)}
            bundles.save(self.path("bundle"), tuned, metrics=metrics)


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(was, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*was, *now])
        return [
            line
            for key in keys
            for line in differences(was.get(key), now.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}.{i}")]
    return [] if was == now else [f"{path}: {was!r} then, {now!r} now"]

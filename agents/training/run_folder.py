"""The life of a run: the folder of REINFORCE, of Stable-Baselines3's algorithms and of pretraining.

A run is asked for by a config. It is checked against what the folder holds before anything is
written; then there are rows of figures, pictures and checkpoints, and at the end what it leaves.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from safetensors.torch import save as serialise
from torch import nn

from agents.training.checkpoint import Checkpoint
from agents.training.files import Row, read_tensors, write_rows, write_tensors
from agents.training.processes import Processes
from ral_env import __version__, migrations
from ral_env import bundle as bundles
from ral_env.files import Lock, leftovers, told, write_bytes

KEPT_POLICIES = 16  # of a run, for those who look at it


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
            with told(self.file), self.file.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, columns).writerow(row)
        else:
            self.rewrite([*self.rows, row])
        self.draw(row)

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Let the CSV hold these rows: a run goes on, or figures come that earlier rows lack."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        self.rows = [{name: row.get(name, "") for name in columns} for row in rows]  # type: ignore
        write_rows(self.file, self.rows)

    def sync(self) -> None:
        """See that the rows are on the disk itself."""
        with told(self.file), self.file.open("rb") as stream:
            os.fsync(stream.fileno())

    def draw(self, row: Row) -> None:
        """A row in TensorBoard."""
        step = int(next(iter(row.values())))
        with told(self.events):
            for name, value in row.items():
                self.writer.add_scalar(name, value, step)
            self.writer.flush()

    def picture(self, name: str, sheet: np.ndarray, step: int) -> None:
        """A picture, uint8 (H, W, 3), in TensorBoard."""
        with told(self.events):
            self.writer.add_image(name, sheet, step, dataformats="HWC")
            self.writer.flush()

    def close(self) -> None:
        """Write what TensorBoard has still to write."""
        if self._writer is not None:
            with told(self.events):
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
        return migrations.renamed(json.loads(file.read_text(encoding="utf-8")), kind, str(file))
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{file} is no config of a run ({error}): choose another folder, or remove it"
        ) from error


class RunFolder:
    """A run's folder. Of several processes the first writes; without a folder nobody does.

    Who writes holds the folder's lock (``.lock``) until :meth:`close`, or until the process dies.
    What an earlier holder left when it died is removed, and a bundle that it was about to replace
    is put back.

    Args:
        folder: where everything goes; None writes nothing.
        config: what is asked for, JSON-able; config.json holds it.
        kind: whose names its fields have, a key of :data:`ral_env.migrations.FIELDS`.
        resume: whether to go on with a run that is there: True asks for one, False refuses one, and
            None goes on where there is one and begins where there is none.
        free: fields that a run which goes on may change.
        stands_for: fields of a fingerprint, by the field that it stands for: how a path is spelt
            does not matter where a fingerprint says what is there.
        option: how the folder is called on the command line, for messages.
        notes: what config.json holds beside what was asked for.
        processes: those that train together.
        changed: of a run in stages, says of what it was asked for and what is asked for now which
            stages have to begin anew, and why. Without, a run goes on with the same settings alone.

    Raises:
        ValueError: if there is a run already, none to go on with, one that was asked for something
            else, or one that another process is at. Nothing has been changed then.
        DiskError: if the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path | str | None,
        config: Mapping[str, Any],
        *,
        kind: str,
        resume: bool | None = False,
        free: Sequence[str] = (),
        stands_for: Mapping[str, str] | None = None,
        option: str = "--out",
        notes: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
        changed: Callable[[dict[str, Any], dict[str, Any]], dict[str, list[str]]] | None = None,
    ):
        self.processes = processes or Processes()
        self.folder = None if folder is None else bundles.absolute(folder)
        self.writes = self.folder is not None and self.processes.rank == 0
        self.config: dict[str, Any] = json.loads(json.dumps(config))
        self.kind = kind
        self.notes = dict(notes or {})
        self._stands_for = dict(stands_for or {})
        self._changed = changed
        self._anew: dict[str, list[str]] = {}  # stages that begin anew, and why
        self._figures: dict[str, Figures] = {}
        self._lock: Lock | None = None
        if not self.writes:
            return
        self._check(resume, free, option)
        with told(self.path()):
            self.path().mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.path(".lock"))
        if not self._lock.take():
            raise ValueError(
                f"{folder} is in use by {self._lock.holder()}: wait for that run to end, or choose "
                f"another folder ({option})"
            )
        is_new = self._check(resume, free, option) is None  # as nobody else can change it any more
        for file in leftovers(self.path()):
            file.unlink()
        self._set_aside()
        bundles.recover(self.path("bundle"))
        if is_new:
            self.write_config()

    def _check(
        self, resume: bool | None, free: Sequence[str], option: str
    ) -> dict[str, Any] | None:
        """See that what is asked for fits what the folder holds; gives what that was asked for."""
        folder, stored = self.folder, stored_config(self.path(), self.kind)
        if stored is not None and resume is False:
            raise ValueError(
                f"{folder} holds a run: go on with it (--resume), choose another folder "
                f"({option}), or remove it"
            )
        if stored is None and resume is True:
            raise ValueError(
                f"{folder} holds no run to resume: check {option}, or leave --resume out"
            )
        begun = migrations.with_later_stages(stored or {}, self.config, self.kind)
        if self._changed is not None:
            other = self._stages_anew(self.config | begun)
        else:
            told = {field for field, print in self._stands_for.items() if print in begun}
            known = {k: v for k, v in self.config.items() if k in begun and k not in {*free, *told}}
            was = {name: value for name, value in begun.items() if name in known}
            other = sorted(differences(was, known))
        if other:
            raise ValueError(
                f"{folder} holds a run that was asked for something else ("
                f"{'; '.join(other[:5])}): ask for the same to go on with it, choose another "
                f"folder with {option}, or remove it"
            )
        return stored

    def _stages_anew(self, begun: dict[str, Any]) -> list[str]:
        """Find the stages that begin anew; the reasons if that is all that the folder holds."""
        assert self._changed is not None
        self._anew = self._changed(begun, self.config)
        there = {file.stem for file in self.path().glob("*.pt")}
        is_all = bool(there) and there <= self._anew.keys()
        return [reason for reasons in self._anew.values() for reason in reasons] if is_all else []

    def _set_aside(self) -> None:
        """Move what stages have left that begin anew to the sub-folder ``earlier``."""
        earlier = self.path("earlier")
        for stage, reasons in self._anew.items():
            left = [self.path(stage + ending) for ending in ("", ".csv", ".png", ".pt")]
            if not any(file.exists() for file in left):
                continue
            self.say(f"{stage} begins anew ({'; '.join(reasons[:5])}); what it was is in {earlier}")
            with told(earlier):
                earlier.mkdir(exist_ok=True)
                for file in filter(Path.exists, left):
                    old = earlier / file.name
                    if old.is_dir():
                        shutil.rmtree(old)
                    os.replace(file, old)
        if self._anew and (kept := sorted(file.stem for file in self.path().glob("*.pt"))):
            self.say(f"kept, as its settings are the same: {', '.join(kept)}")

    def write_config(self) -> None:
        """Let config.json say what is asked for now.

        A run that goes on calls it when it has taken over what is there: free settings may be
        others than before, and names those of an earlier version.
        """
        if not self.writes:
            return
        file = self.path("config.json")
        there = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if not file.exists() or there != {**there, **self.config}:
            text = json.dumps({**self.config, **self.notes}, indent=2)
            write_bytes(file, f"{text}\n".encode())

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            self._lock.release()
        for figures in self._figures.values():
            figures.close()

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
            return read_tensors(file)
        made = make()
        if self.writes:
            write_tensors(file, made)
        return made

    def figures(self, stage: str = "progress", events: str = "") -> Figures:
        """The rows of a stage: STAGE.csv, and TensorBoard's events in the sub-folder ``events``."""
        if stage not in self._figures:
            self._figures[stage] = Figures(self.path(f"{stage}.csv"), self.path(events))
        return self._figures[stage]

    def picture(self, file: str, name: str, sheet: np.ndarray, figures: Figures, step: int) -> None:
        """A picture, uint8 (H, W, 3), as a PNG and in TensorBoard under ``name``."""
        png = io.BytesIO()
        PIL.Image.fromarray(sheet).save(png, "PNG")
        write_bytes(self.path(file), png.getvalue())
        figures.picture(name, sheet, step)

    def keep_policies(self, policies: Sequence[nn.Module], step: int) -> None:
        """Keep what the policies are now, for those who look at the run: policy-STEP.safetensors.

        Weights are in 16 bits, under the level's number and the parameter's name. There are never
        more than :data:`KEPT_POLICIES`: then every second one goes, and the first stays.
        """
        if not self.writes:
            return
        state = {
            name: (value.half() if value.is_floating_point() else value).cpu().clone()
            for name, value in nn.ModuleList(policies).state_dict().items()
        }
        files = sorted(self.path().glob("policy-*.safetensors"))
        for file in files[1::2] if len(files) >= KEPT_POLICIES else ():
            file.unlink()
        write_bytes(self.path(f"policy-{step:07d}.safetensors"), serialise(state))

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
        complete: bool = True,
    ) -> None:
        """What a policy's run leaves: a row of results (metrics.csv) and the fine-tuned bundle.

        ``gym.make(ID, bundle="OUT/bundle")`` takes it.

        Of nets that have no config to make them from again, the weights alone are saved.

        Args:
            bundle: what the run began with.
            policies: one a level, top first; none where a policy is no prior.
            results: the row.
            discriminator: as it is now, with what it sees and what its scores are divided by.
            complete: whether the run came to its end; metrics.csv is only written if it did.
        """
        if not self.writes:
            return
        results = dict(results) | {
            "dataset": bundle.dataset, "bundle": bundle.edition,
            "ral-env": __version__, "torch": str(torch.__version__),
        }  # fmt: skip
        if complete:
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
            recipe=json.loads(self.path("config.json").read_text(encoding="utf-8"))
            | {"fine_tuned_from": bundle.recipe},
        )
        if not bundles.storable(tuned):
            nets = {f"prior_{level}": net for level, net in enumerate(policies)}
            for stem, net in {**nets, "discriminator": discriminator}.items():
                state = {name: value.clone() for name, value in net.state_dict().items()}
                write_bytes(self.path(f"{stem}.safetensors"), serialise(state))
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

"""A file that a run which was cut goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from agents.training.files import read_tensors, write_tensors
from agents.training.processes import Processes
from ral_env import migrations
from ral_env.files import told


class Checkpoint:
    """A file that a run which was cut goes on from: to the bit, on the CPU.

    It holds the state of all parts, torch's global random numbers, and whatever else it is given;
    of several processes all that differs between them: one file, so that all go on from one moment.

    Args:
        file: where it is.
        settings: what the run that goes on must have in common with the one that was cut.
        parts: networks, optimisers and the like, by name: what has ``state_dict``.
        processes: who trains.
        kind: whose names the settings have, a key of :data:`ral_env.migrations.FIELDS`.
    """

    def __init__(
        self,
        file: Path,
        settings: dict[str, Any],
        parts: dict[str, Any],
        processes: Processes,
        kind: str | None = None,
    ):
        self.file, self.settings, self.parts, self.processes = file, settings, parts, processes
        self.kind = kind

    def exists(self) -> bool:
        """Whether one has been written."""
        return self.file.exists()

    def save(self, state: dict[str, Any], own: dict[str, Any] | None = None) -> None:
        """Write it, whole or not at all. ``state`` is the same for all processes, ``own`` is not;
        both are of tensors and plain Python values."""
        device = self.processes.device
        random = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(device)
        ranks = self.processes.gather_objects({"random": random, "own": own or {}})
        if self.processes.rank == 0:
            whole = {
                "settings": self.settings,
                "state": state,
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "ranks": ranks,
            }
            with told(self.file):
                self.file.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(self.file, whole)

    def restore(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Put the parts and the random numbers back: ``state`` and ``own`` as they were saved.

        ``own`` is None where there were fewer processes than now.

        Raises:
            ValueError: if it cannot be read or is of other settings.
        """
        file = self.file
        whole = read_tensors(file)
        if not isinstance(whole, dict) or not {"settings", "parts", "state"} <= whole.keys():
            raise ValueError(f"{file} is no checkpoint of a run: remove it to begin anew")
        found = whole["settings"]
        if self.kind:
            found = migrations.renamed(found, self.kind, str(file))
        mine = self._of_this_process(whole)
        other = {k: (found.get(k), v) for k, v in self.settings.items() if found.get(k) != v}
        if other:
            told = ", ".join(
                f"{k}: {was!r} there, {now!r} asked for" for k, (was, now) in other.items()
            )
            raise ValueError(
                f"checkpoint {file} is of other settings ({told}): ask for the same, or remove it "
                "to begin anew"
            )
        for name, part in self.parts.items():
            part.load_state_dict(whole["parts"][name])
        random = mine.get("random", {})
        if "cpu" in random:
            torch.set_rng_state(random["cpu"])
        if "cuda" in random and self.processes.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.processes.device)
        return whole["state"], mine.get("own")

    def _of_this_process(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Random numbers and ``own`` of this process; empty if there were fewer processes."""
        rank = self.processes.rank
        if "ranks" in whole:
            return whole["ranks"][rank] if rank < len(whole["ranks"]) else {}
        if rank == 0:
            return whole
        # Earlier versions gave each further process a file beside the first one's.
        file = self.file.with_name(f"{self.file.name}.{rank}")
        return read_tensors(file) if file.exists() else {}

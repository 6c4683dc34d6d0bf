"""A file that a run which was cut goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from agents.training.files import write_whole
from agents.training.processes import Processes
from ral_env import migrations


class Checkpoint:
    """A file that a run which was cut goes on from: to the bit, on the CPU.

    It holds the state of all parts, torch's global random numbers, and whatever else it is given.
    Of several processes, each further one has a file beside it for what is its own.

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
        rank = processes.rank
        self.own_file = file if rank == 0 else file.with_name(f"{file.name}.{rank}")

    def exists(self) -> bool:
        return self.file.exists()

    def save(self, state: dict[str, Any], own: dict[str, Any] | None = None) -> None:
        """Write it, whole or not at all. ``state`` is the same for all processes, ``own`` is not;
        both are of tensors and plain Python values."""
        device = self.processes.device
        whole: dict[str, Any] = {"random": {"cpu": torch.get_rng_state()}, "own": own or {}}
        if device.type == "cuda":
            whole["random"]["cuda"] = torch.cuda.get_rng_state(device)
        if self.processes.rank == 0:
            whole |= {"settings": self.settings, "state": state}
            whole["parts"] = {name: part.state_dict() for name, part in self.parts.items()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.own_file, lambda fresh: torch.save(whole, fresh))

    def restore(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Put the parts and the random numbers back: ``state`` and ``own`` as they were saved.

        ``own`` is None where there were fewer processes than now.

        Raises:
            ValueError: if it cannot be read or is of other settings.
        """
        file = self.file
        try:
            whole = torch.load(file, map_location="cpu", weights_only=True)
            found = whole["settings"]
            if self.kind:
                found = migrations.renamed(found, self.kind, str(file))
            mine: dict[str, Any] = {}
            if self.own_file.exists():
                mine = torch.load(self.own_file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a file that is cut or another's
            raise ValueError(
                f"checkpoint {file} cannot be read ({error}): remove it to begin anew"
            ) from error
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

"""Folders as runs of agents leave them, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save

from ral_env import bundle


def make(folder: Path, began_with: Path) -> Path:
    """A run that is at its 150th step: its config, two rows of figures, three policies."""
    folder.mkdir(parents=True)
    config = {"env": "RALBundle-v0", "bundle": str(began_with)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "progress.csv").write_text("iteration,reward,auc\n1,-0.5,\n2,0.25,nan\n")
    for step in (1, 50, 150):
        keep(folder, step, step / 1000, bundle.load(began_with))
    return folder


def keep(run: Path, step: int, shift: float, made: bundle.Bundle) -> None:
    """What a run leaves of its policies: here those of the bundle, shifted, in 16 bits."""
    nets = torch.nn.ModuleList(made.priors)
    state = {name: (value + shift).half() for name, value in nets.state_dict().items()}
    (run / f"policy-{step:07d}.safetensors").write_bytes(save(state))

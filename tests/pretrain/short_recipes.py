"""Recipes cut to a few steps of tiny nets, and runs that are cut."""

import dataclasses
import io
from typing import Any

from agents.training.fit import PriorTraining
from pretrain.configs import Recipe, SelfSupervision, VQVAETraining
from pretrain.recipes import RECIPES


def short(name: str, **changes: Any) -> Recipe:
    """A recipe of the table that is over in a second, with further changes."""
    recipe = RECIPES[name]
    few = PriorTraining(steps=4, batch=8, validate_every=2)
    tiny = {"hidden": 8, "residual": 8, "layers": 2}
    changes = {
        "vqvae": dataclasses.replace(recipe.vqvae, hidden=8, residual=8),
        "vqvae_training": VQVAETraining(steps=4, batch=40),
        "priors": tuple(dataclasses.replace(prior, **tiny) for prior in recipe.priors),
        "prior_trainings": (few,) * len(recipe.priors),
        "oracles": tuple(dataclasses.replace(net, **tiny) for net in recipe.oracles),
        "oracle_trainings": (few,) * len(recipe.oracles),
        "oracle_samples": 130 if recipe.oracles else 0,
        "feature_steps": 4,
        "fakes": 64,
        "discriminator_steps": 4,
        "other_discriminator": recipe.other_discriminator
        and dataclasses.replace(recipe.other_discriminator, steps=4, batch=8),
        "selfsupervised": SelfSupervision(steps=4, batch=16),
        "count": 120 if recipe.count else 0,
    } | changes
    return dataclasses.replace(recipe, **changes)


class CutAt(io.StringIO):
    """Standard output of a run that is interrupted when it prints a line that begins so."""

    def __init__(self, beginning: str):
        super().__init__()
        self.beginning = beginning

    def write(self, text: str) -> int:
        if text.startswith(self.beginning):
            raise KeyboardInterrupt
        return super().write(text)

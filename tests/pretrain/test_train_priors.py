"""Stage 3: the baselines that a prior must beat, and the warning of one that learns by heart."""

import dataclasses

import numpy as np
import pytest
import torch
from short_recipes import short

from agents.training.fit import PriorTraining
from pretrain import run
from pretrain.priors import previous_row_nats, unigram_nats
from pretrain.recipes import RECIPES


def test_baselines_by_hand():
    """Each column repeats its first code, which is 0 or 1: log 2 a column, nothing below."""
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(0, 2, (4000, 1, 4))).expand(-1, 4, -1)
    train, validation = codes[:3000], codes[3000:]
    assert unigram_nats(train, validation, 2) == pytest.approx(np.log(2), abs=2e-3)
    assert previous_row_nats(train, validation, 2) == pytest.approx(np.log(2) / 4, abs=5e-3)
    noise = torch.from_numpy(rng.integers(0, 2, (4000, 4, 4)))
    nothing_to_know = previous_row_nats(noise[:3000], noise[3000:], 2)
    assert nothing_to_know == pytest.approx(np.log(2), abs=5e-3)


@pytest.mark.filterwarnings("ignore:the codebook")
def test_a_prior_that_learns_by_heart_is_told(tmp_path):
    large = dataclasses.replace(RECIPES["faces32"].priors[0], hidden=48, residual=48, dropout=0.0)
    by_heart = PriorTraining(steps=150, batch=24, learning_rate=1e-2, validate_every=25)
    with pytest.warns(UserWarning, match=r"prior_0 overfits: validation was best.*more dropout"):
        recipe = short("faces32", count=30, priors=(large,), prior_trainings=(by_heart,))
        run.pretrain(recipe, tmp_path / "bundle")

"""Discriminators know noise for what it is, as some fakes are spoilt; a bundle can get new ones."""

import dataclasses

import pytest
import torch

from agents.evaluation.evaluator import Evaluator, TemperedPrior
from benchmarks.leaderboard.entries import uniform
from pretrain.discriminator import spoil
from pretrain.recipes import RECIPES
from pretrain.renew import renew
from ral_env import bundle


def test_the_share_of_a_spoilt_canvas_that_is_random_is_uniform():
    """A canvas's levels have the same one. Of 1,000 codes hardly one falls on what it was."""
    grids = [torch.full((4000, 8, 8), 7), torch.full((4000, 16, 16), 7)]
    top, bottom = spoil(grids, 1000, torch.Generator().manual_seed(0))
    shares = [(grid != 7).float().mean((1, 2)) for grid in (top, bottom)]
    assert shares[1].mean() == pytest.approx(0.5, abs=0.02)
    assert shares[1].quantile(torch.tensor([0.1, 0.9])).tolist() == pytest.approx(
        [0.1, 0.9], abs=0.02
    )
    assert (shares[0] - shares[1]).abs().max() < 0.35  # 64 draws: 5 standard deviations
    assert top.min() >= 0 and top.max() < 1000 and all((grid == 7).all() for grid in grids)


@pytest.fixture(scope="module")
def hasty():
    """The digits' recipe, its discriminators in little time."""
    recipe = RECIPES["digits"]
    other = recipe.other_discriminator
    assert other is not None
    return dataclasses.replace(
        recipe, fakes=256, discriminator_steps=60, discriminator_batch=32,
        other_discriminator=dataclasses.replace(other, steps=4, batch=16),
    )  # fmt: skip


def test_a_renewed_bundle_has_other_discriminators_and_nothing_else_changed(hasty, tmp_path):
    made = bundle.load("digits")
    new = bundle.load(renew(made, hasty, 0, tmp_path / "again"))
    assert int(new.version) == int(made.version or 0) + 1 and new.edition != made.edition
    nets = [("vqvae", made.vqvae, new.vqvae), *zip(["prior"], made.priors, new.priors, strict=True)]
    nets += [(name, net, new.feature_nets[name]) for name, net in made.feature_nets.items()]
    for name, old, kept in nets:
        for key, value in old.state_dict().items():
            assert torch.equal(value, kept.state_dict()[key]), (name, key)
    for split in made.splits:
        assert (made.split(split) == new.split(split)).all()
    scores = [b.discriminator(torch.ones(1, 16, 8, 8)) for b in (made, new)]
    assert not torch.equal(*scores)
    assert set(new.discriminator_inputs) == {"codes", "image"}  # an old bundle had the first alone
    before, after = (dict(b.manifest["metrics"]) for b in (made, new))
    assert after.pop("discriminators").keys() == {"codes", "image"}
    before.pop("discriminators", None)
    assert after == before


def test_random_codes_score_below_the_prior_once_fakes_were_spoilt(hasty, tmp_path):
    made = bundle.load("digits")
    recipe = dataclasses.replace(hasty, spoilt=0.5)
    new = bundle.load(renew(made, recipe, 0, tmp_path / "again"))
    evaluator = Evaluator(new)
    prior = evaluator.evaluate_prior(TemperedPrior(new.priors), 200, 0).figures["score"]
    noise = evaluator.evaluate_canvases(uniform(new, 200, 0)).figures["score"]
    assert noise < prior


def test_a_bundle_that_is_in_no_folder_cannot_be_renewed(hasty, tmp_path):
    made = bundle.load("digits")
    with pytest.raises(ValueError, match="expected one from a folder"):
        renew(dataclasses.replace(made), hasty, 0, tmp_path / "none")

"""``--set``: any field of a recipe can be changed, and none by mistake."""

import dataclasses

import pytest

from pretrain.overrides import help_text, override, paths
from pretrain.recipes import RECIPES

TWO = RECIPES["celeba128"]


def test_fields_are_changed_at_any_depth_and_nothing_else():
    changed = override(TWO, ["vqvae.hidden=64", "discriminator_training.loss=logistic", "fakes=7"])
    assert changed.vqvae == dataclasses.replace(TWO.vqvae, hidden=64)
    assert changed.discriminator_training.loss == "logistic" and changed.fakes == 7
    back = override(changed, ["vqvae.hidden=128", "discriminator_training.loss=wgan-gp"])
    assert override(back, [f"fakes={TWO.fakes}"]) == TWO


def test_one_level_or_all():
    one = override(TWO, ["priors.1.hidden=32"])
    assert [p.hidden for p in one.priors] == [512, 32]
    both = override(TWO, ["prior.hidden=32", "prior_training.precision=bfloat16"])
    assert [p.hidden for p in both.priors] == [32, 32]
    assert [t.precision for t in both.prior_trainings] == ["bfloat16"] * 2


def test_every_path_that_is_shown_can_be_set_to_what_it_is():
    for recipe in (TWO, RECIPES["oracle"]):
        shown = list(paths(recipe))
        assert len(shown) > 50 and len({path for path, *_ in shown}) == len(shown)
        for path, _, value, _ in shown:
            text = str(list(value) if isinstance(value, tuple) else value)
            assert override(recipe, [f"{path}={text}"]) == recipe, path


def test_help_says_what_each_is():
    text = help_text(TWO)
    assert "priors.1.hidden=512  (int) channels of both stacks." in text
    assert "vqvae_training.beta=0.25  (float) weight of the commitment loss" in text
    assert "vqvae_training.learning_rate=0.001  (float) of AdamW." in text  # inherited


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("vqvae.hiden=64", "no field 'hiden' in VQVAEConfig, expected one of hidden"),
        ("vqvae.hidden=wide", "vqvae.hidden=wide: expected <class 'int'>"),
        ("discriminator_training.loss=hinge2", "expected.*logistic"),
        ("vqvae=64", "has fields of its own"),
        ("priors.2.hidden=64", "expected a level from 0 to 1"),
        ("vqvae.hidden", "expected PATH=VALUE"),
        ("vqvae.hidden.deep=1", "plain value"),
        ("vqvae.image_size=130", "divisible"),
    ],
)
def test_mistakes_are_told(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(TWO, [assignment])

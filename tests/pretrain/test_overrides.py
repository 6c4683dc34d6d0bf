"""``--set``: any field of a recipe can be changed, and none by mistake."""

import dataclasses

import pytest

from pretrain.overrides import help_text, override, settings
from pretrain.recipes import RECIPES
from ral_env import migrations

TWO = RECIPES["celeba128"]


def test_fields_are_changed_at_any_depth_and_nothing_else():
    changed = override(TWO, ["vqvae.hidden=64", "discriminator_training.loss=logistic", "fakes=9"])
    assert changed.vqvae == dataclasses.replace(TWO.vqvae, hidden=64)
    assert changed.discriminator_training.loss == "logistic" and changed.fakes == 9
    back = override(changed, ["vqvae.hidden=128", "discriminator_training.loss=wgan-gp"])
    assert override(back, [f"fakes={TWO.fakes}"]) == TWO


def test_one_level_or_all():
    one = override(TWO, ["priors.1.hidden=32"])
    assert [p.hidden for p in one.priors] == [512, 32]
    both = override(TWO, ["prior.hidden=32", "prior_training.precision=bfloat16"])
    assert [p.hidden for p in both.priors] == [32, 32]
    assert [t.precision for t in both.prior_trainings] == ["bfloat16"] * 2


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipes_priors_can_learn_from_noisy_contexts(name):
    changed = override(RECIPES[name], ["prior_training.context_noise=0.3"])
    assert {training.context_noise for training in changed.prior_trainings} == {0.3}
    if changed.oracles:
        noisy = override(changed, ["oracle_training.context_noise=0.1"])
        assert {training.context_noise for training in noisy.oracle_trainings} == {0.1}


def test_every_path_that_is_shown_can_be_set_to_what_it_is():
    for recipe in (TWO, RECIPES["oracle"]):
        shown = list(settings(recipe))
        assert len(shown) > 50 and len({setting.path for setting in shown}) == len(shown)
        for setting in shown:
            value = list(setting.value) if isinstance(setting.value, tuple) else setting.value
            assert override(recipe, [f"{setting.path}={value}"]) == recipe, setting.path


def test_help_has_a_section_for_each_config_and_a_line_for_each_field():
    lines = help_text(TWO).splitlines()
    section = lines[lines.index("vqvae_training: How the VQ-VAE learns.") :]
    section = section[: section.index("")]
    beta = "(float) Weight of the commitment loss. The paper's is 0.25."
    assert f"  vqvae_training.beta=0.25  {beta}" in section
    inherited = "(float) Learning rate of AdamW."
    assert f"  vqvae_training.learning_rate=0.001  {inherited}" in section
    for setting in settings(TWO):
        (line,) = (line for line in lines if line.startswith(f"  {setting.path}="))
        assert setting.about and line.endswith(setting.about)
    assert not any("``" in line or ":class:" in line for line in lines)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("vqvae.hiden=64", "no field 'hiden' in VQVAEConfig, expected one of hidden"),
        ("vqvae.hidden=wide", "vqvae.hidden=wide: expected <class 'int'>"),
        ("discriminator_training.loss=hinge2", "expected.*logistic"),
        ("vqvae=64", "has fields: name one of them, vqvae.FIELD"),
        ("priors.2.hidden=64", "expected a level from 0 to 1"),
        ("vqvae.hidden", "expected PATH=VALUE"),
        ("vqvae.hidden.deep=1", "plain value"),
        ("vqvae.image_size=130", "divisible"),
        ("oracle.hidden=8", "the recipe has no oracles"),
        ("fakes=3", r"fakes=3, expected a number in \[8, inf\)"),
    ],
)
def test_mistakes_are_told(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(TWO, [assignment])


@pytest.mark.parametrize("old", migrations.FIELDS["recipe"])
def test_old_names_of_fields_are_read_with_a_warning(old):
    new = migrations.FIELDS["recipe"][old]
    (value,) = {setting.value for setting in settings(TWO) if setting.path == new}
    with pytest.warns(FutureWarning, match=f"{old} is called {new} now"):
        assert override(TWO, [f"{old}={value}"]) == TWO


def test_a_path_is_brought_under_the_names_of_today():
    with pytest.warns(FutureWarning, match="kl_weight is called kl_loss_coef now"):
        assert migrations.path("kl_weight", "reinforce", "--set kl_weight") == "kl_loss_coef"
    assert migrations.path("priors.1.hidden", "recipe", "--set") == "priors.1.hidden"

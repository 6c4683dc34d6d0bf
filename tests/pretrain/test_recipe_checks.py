"""A recipe whose settings do not go together, and a place that is taken, end before the work."""

import dataclasses

import pytest
from short_recipes import short

from pretrain import checks, run
from pretrain.overrides import override
from pretrain.recipes import RECIPES
from ral_env.bundle.verify import misfit
from ral_env.files import DiskError
from ral_env.layout import CodeLayout


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_and_so_does_the_bundle_of_its_nets(name):
    """What the check asks of a recipe is what the bundle asks of its nets."""
    recipe = RECIPES[name]
    checks.check_recipe(recipe)
    configs = {"vqvae": recipe.vqvae}
    configs |= {f"prior_{level}": config for level, config in enumerate(recipe.priors)}
    configs |= {f"oracle_{level}": config for level, config in enumerate(recipe.oracles)}
    configs |= {f"discriminator_{given}": d.net for given, d in recipe.discriminators.items()}
    assert misfit(CodeLayout(recipe.vqvae.grids, recipe.vqvae.num_codes), configs) is None


WRONG = {
    "vqvae.num_codes=128": "priors.0.num_codes=64, expected 128, as vqvae.num_codes",
    "vqvae.code_dim=32": "discriminator.in_channels=16, expected 32: it is given the codebook",
    "discriminator_input=image": "discriminator.in_channels=16, expected 3: it is given images",
    "vqvae.levels=2": "1 priors, expected 2, as many as vqvae.levels",
    "vqvae.layers=3": r"priors.0.grid=\(8, 8\), expected \(4, 4\)",
    "prior.grid=[4,4]": r"priors.0.grid=\(4, 4\), expected \(8, 8\)",
    "discriminator.layers=4": "discriminator.layers=4, expected at most 3",
    "other_discriminator.net.layers=6": "other_discriminator.net.layers=6, expected at most 5",
    "discriminator_training.shift=8": "discriminator_training.shift=8, expected less than 8",
    "other_discriminator.training.shift=32": "training.shift=32, expected less than 32",
    "vqvae_training.shift=32": "vqvae_training.shift=32, expected less than the image",
    "prior_training.accumulate=3": "prior_trainings.0.batch=8, expected a multiple of 3",
    "vqvae_training.accumulate=7": "vqvae_training.batch=40, expected a multiple of 7",
}


@pytest.mark.parametrize("setting", WRONG)
def test_settings_that_do_not_go_together_end_before_the_first_step(setting, tmp_path):
    recipe = override(short("faces32"), [setting])
    with pytest.raises(ValueError, match=WRONG[setting]):
        run.pretrain(recipe, tmp_path / "out")
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_a_batch_is_shared_by_all_processes():
    recipe = short("faces32")
    checks.check_recipe(recipe, processes=4)
    with pytest.raises(ValueError, match=r"prior_trainings.0.batch=8, expected a multiple of 5"):
        checks.check_recipe(recipe, processes=5)


def test_an_oracle_has_to_fit_too(tmp_path):
    recipe = short("oracle-two-level")
    recipe = dataclasses.replace(recipe, oracles=recipe.oracles[::-1])
    with pytest.raises(ValueError, match=r"oracles.0.grid=\(16, 16\), expected \(8, 8\)"):
        run.pretrain(recipe, tmp_path / "out")


def test_an_output_that_is_taken_ends_before_the_first_step(tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="exists and is not a bundle"):
        run.pretrain(short("faces32"), taken)
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot write"):
        run.pretrain(short("faces32"), tmp_path / "file" / "bundle")
    with pytest.raises(DiskError, match="cannot write"):
        run.pretrain(short("faces32"), tmp_path / "out", work=tmp_path / "file" / "work")
    assert {file.name for file in tmp_path.iterdir()} == {"taken", "file"}


def test_missing_weights_of_inception_end_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="no file .*weights.pth: expected the weights"):
        run.pretrain(short("faces32"), tmp_path / "out", inception=str(tmp_path / "weights.pth"))
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_the_run_ends_it_before_the_first_step(tmp_path, monkeypatch):
    class Full:
        free = 10_000

    monkeypatch.setattr("ral_env.files.shutil.disk_usage", lambda folder: Full)
    with pytest.raises(DiskError, match="no room for the run's checkpoints and codes"):
        checks_of = short("faces32")
        run.pretrain(checks_of, tmp_path / "out")


def test_home_is_expanded_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = run.pretrain(short("faces32"), "~/bundle", work="~/work")  # type: ignore[arg-type]
    assert made == tmp_path / "bundle" and (tmp_path / "work" / "vqvae.pt").is_file()

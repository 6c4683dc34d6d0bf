"""Every old name is still understood, with a warning that names the new one."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec

import agents.reinforce.__main__ as reinforce_command
from agents.reinforce import Config, train
from agents.sb3.train import Config as SB3Config
from agents.training.fit import PriorTraining
from ral_env import bundle as bundles
from ral_env import migrations

FIXTURES = Path(__file__).parents[1] / "fixtures"
CONFIGS = {"reinforce": Config, "sb3": SB3Config}


@pytest.fixture
def old_modules():
    """Modules are imported once only, and an import is what is to be seen."""
    kept = {name: sys.modules.pop(name, None) for name in migrations.MODULES}
    yield
    for name in migrations.MODULES:
        sys.modules.pop(name, None)
    sys.modules.update({name: module for name, module in kept.items() if module is not None})


@pytest.mark.parametrize("old", migrations.MODULES)
def test_an_old_module_is_the_new_one(old, old_modules):
    new = migrations.MODULES[old]
    with pytest.warns(FutureWarning, match=f"{old} is called {new} now"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(new)


@pytest.mark.parametrize("old", migrations.NAMES)
def test_an_old_name_is_what_the_new_one_is(old):
    module, _, name = old.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        holder = importlib.import_module(module)
    with pytest.warns(FutureWarning, match=f"{name} is called {migrations.NAMES[old]} now"):
        found = getattr(holder, name)
    assert found == migrations.resolve(migrations.NAMES[old])


def test_what_never_had_a_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        migrations.old_names("agents.sb3")("Nothing")


OLD_FIELDS = [(kind, old) for kind, fields in migrations.FIELDS.items() for old in fields]


@pytest.mark.parametrize(("kind", "old"), OLD_FIELDS)
def test_an_old_field_is_read_as_the_new_one(kind, old):
    new = migrations.FIELDS[kind][old]
    stored: dict = {}
    *path, name = old.split(".")
    inner = stored
    for step in path:
        inner = inner.setdefault(step, {})
    inner[name] = 7
    with pytest.warns(FutureWarning, match=f"{old} is called {new} now .a file"):
        found = migrations.renamed(stored, kind, "a file")
    for step in path:
        found = found[step]
    later = {} if path else migrations.ADDED.get(kind, {})
    added = {field: value for field, value in later.items() if "." not in field}
    assert found == added | {new.rpartition(".")[2]: 7}
    if kind in CONFIGS:
        assert new.partition(".")[0] in {f.name for f in dataclasses.fields(CONFIGS[kind])}


def test_a_field_that_came_later_is_what_files_without_it_mean_and_no_other():
    stored = {"recipe": {"prior_trainings": [{"steps": 1}, {"context_noise": 0.1}]}, "seed": 0}
    assert migrations.renamed(stored, "pretrain", "a file") == {
        "recipe": {"prior_trainings": [{"steps": 1, "context_noise": 0.0}, {"context_noise": 0.1}]},
        "seed": 0,
    }
    assert migrations.renamed({}, "training", "a file") == {"context_noise": 0.0}
    assert migrations.renamed({}, "pretrain", "a file") == {}, "there is nothing to have it"


def test_an_early_recipe_has_a_list_for_its_levels_and_says_what_decays():
    early = {
        "prior": {"hidden": 3}, "prior_training": {"steps": 5, "decay": True},
        "oracle": None, "oracle_training": {"steps": 6, "decay": True},
        "vqvae_training": {"decay": 0.99},
    }  # fmt: skip
    today = {
        "priors": [{"hidden": 3}], "prior_trainings": [{"steps": 5, "schedule": "cosine"}],
        "oracles": [], "oracle_trainings": [], "vqvae_training": {"codebook_decay": 0.99},
    }  # fmt: skip
    assert migrations.recipe(early, "a file") == today
    assert migrations.recipe(today, "a file") == today
    with_oracle = early | {"oracle": {"hidden": 4}}
    assert migrations.recipe(with_oracle, "a file")["oracles"] == [{"hidden": 4}]
    odd = {"prior": "mine", "prior_trainings": 5, "vqvae_training": ["decay"]}
    assert migrations.recipe(odd, "a file") == odd, "of another maker"


@pytest.mark.parametrize("name", bundles.names())
def test_what_ships_says_how_its_priors_learned(name):
    made = bundles.load(name, verify=False)
    pretrained: Any = made.recipe.get("fine_tuned_from", made.recipe)
    trainings: Any = pretrained["prior_trainings"]
    settings = [PriorTraining(**each | {"betas": (0.9, 0.999)}) for each in trainings]
    assert len(settings) == len(made.layout.levels)
    assert all(each.get("betas", [0.9, 0.999]) == [0.9, 0.999] for each in trainings)


def test_settings_of_a_stage_that_came_later_are_those_asked_for():
    asked = {"recipe": {"selfsupervised": {"steps": 3}, "other_discriminator": None, "fakes": 9}}
    stored = {"recipe": {"other_discriminator": {"steps": 5}}}
    assert migrations.with_later_stages(stored, asked, "pretrain") == {
        "recipe": {"selfsupervised": {"steps": 3}, "other_discriminator": {"steps": 5}}
    }, "what was asked for stays, and so does what is missing of other stages"
    assert migrations.with_later_stages({}, asked, "pretrain") == {}
    assert migrations.with_later_stages(stored, asked, "reinforce") == stored


@pytest.mark.parametrize("words", [["--{}", "7"], ["--{}=7"]])
@pytest.mark.parametrize(("kind", "old"), OLD_FIELDS)
def test_an_old_option_is_taken_for_the_new_one(kind, old, words):
    new = migrations.FIELDS[kind][old]
    for spelt in {old, old.replace("_", "-")}:
        with pytest.warns(FutureWarning, match=f"is called --{new} now"):
            found = migrations.options([word.format(spelt) for word in words], kind)
        assert found == [word.format(new) for word in words]
        assert migrations.options(["--env", "x"], kind) == ["--env", "x"], "others stay"


def test_the_command_of_an_earlier_version_runs(tmp_path, tiny_codes, capsys):
    with pytest.warns(FutureWarning) as told:
        reinforce_command.main(
            ["--env", "RALBundle-v0", "--bundle", str(tiny_codes), "--preset", "small",
             "--batch", "4", "--warmup", "1", "--kl_weight", "0.1", "--entropy-weight=0.01",
             "--mle_weight", "0", "--iterations", "1", "--out", str(tmp_path / "run")]
        )  # fmt: skip
    old = {"batch", "warmup", "kl_weight", "entropy_weight", "mle_weight"}
    assert {str(w.message).split(" ")[0][2:] for w in told} == old
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["canvases"], config["discriminator_warmup"]) == (4, 1)
    assert (config["kl_loss_coef"], config["ent_coef"], config["mle_coef"]) == (0.1, 0.01, 0.0)


def test_a_run_of_an_earlier_version_goes_on(tmp_path, monkeypatch):
    """Its config, its checkpoint and its rows have the old names."""
    for name in ("run-reinforce", "bundle-format-3"):
        shutil.copytree(FIXTURES / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    before = list(
        csv.DictReader(Path("run-reinforce/progress.csv").read_text(encoding="utf-8").splitlines())
    )
    stored = json.loads(Path("run-reinforce/config.json").read_text(encoding="utf-8"))
    assert "kl_weight" in stored
    with pytest.warns(FutureWarning):
        today = migrations.renamed(stored, "reinforce", "the fixture")
    config = Config(
        **today
        | {
            "betas": tuple(today["betas"]),
            "discriminator": dataclasses.replace(
                Config().discriminator, **today["discriminator"]
                | {"betas": tuple(today["discriminator"]["betas"])},
            ),
        }
    )  # fmt: skip
    other = dataclasses.replace(config, kl_loss_coef=0.5)
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="kl_loss_coef: 0.05 then"):
        train(other, "run-reinforce", progress=False, resume=True)
    with pytest.warns(FutureWarning) as told:
        result = train(config, "run-reinforce", progress=False, resume=True)
    assert any("kl_weight is called kl_loss_coef now" in str(w.message) for w in told)
    assert [row["iteration"] for row in result.history] == [1, 2, 3, 4]
    rows = list(
        csv.DictReader(Path("run-reinforce/progress.csv").read_text(encoding="utf-8").splitlines())
    )
    assert rows[:2] == before and len(rows) == 4
    assert "kl_loss_coef" in json.loads(
        Path("run-reinforce/config.json").read_text(encoding="utf-8")
    )
    assert len(bundles.load("run-reinforce/bundle").priors) == 1


@pytest.mark.parametrize("name", json.loads((FIXTURES / "specs.json").read_text()))
def test_an_environment_of_a_stored_spec_is_made(name, old_modules):
    spec = EnvSpec.from_json(json.dumps(json.loads((FIXTURES / "specs.json").read_text())[name]))
    assert spec.entry_point == "ral_env.env:LatentCanvasEnv"
    with pytest.warns(FutureWarning, match="ral_env.env is called ral_env.envs.single now"):
        env = gym.make(spec)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    env.close()


@pytest.mark.parametrize("old", migrations.COLUMNS)
def test_an_old_column_is_read_as_the_new_one(old):
    new = migrations.COLUMNS[old]
    with pytest.warns(FutureWarning, match=f"{old} is called {new} now .a file"):
        found = migrations.columns({"row": "RAL", old: 7}, "a file")
    assert found == {"row": "RAL", new: 7}

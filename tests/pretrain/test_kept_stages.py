"""A run that goes on with other settings keeps the stages that do not depend on them."""

import dataclasses
import json

import pytest
from short_recipes import short

from pretrain import run
from pretrain.kept_stages import changed, stages
from pretrain.overrides import override
from pretrain.recipes import RECIPES

pytestmark = pytest.mark.filterwarnings("ignore:the codebook of level")


def config(recipe, **changes):
    asked = {"seed": 0, "flip": False, "data": "here", "data_fingerprint": "a-b", "inception": None}
    return json.loads(json.dumps(asked | {"recipe": dataclasses.asdict(recipe)} | changes))


def anew(setting, name="oracle-two-level"):
    recipe = RECIPES[name]
    return set(changed(config(recipe), config(override(recipe, [setting]))))


DISCRIMINATORS = {"discriminator", "discriminator_image", "bundle"}
PRIORS = {"prior_0", "prior_1"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    {
        "fakes=9": DISCRIMINATORS,
        "discriminator_steps=9": DISCRIMINATORS - {"discriminator_image"},
        "other_discriminator.steps=9": DISCRIMINATORS - {"discriminator"},
        "priors.1.hidden=9": DISCRIMINATORS | {"prior_1"},
        "prior_training.steps=9": DISCRIMINATORS | PRIORS,
        "oracle_samples=130": DISCRIMINATORS | PRIORS | {"oracle_codes"},
        "oracle_trainings.1.steps=9": DISCRIMINATORS | PRIORS | {"oracle_codes", "oracle_1"},
        "feature_steps=9": {"features", "distance", "bundle"},
        "selfsupervised.steps=9": {"selfsupervised", "bundle"},
        "keep=[1,1,1]": {"bundle"},
        "count=7": set(),  # the data's fingerprint says whether they are others
        "prior_training.workers=2": set(),
        "oracle_training.checkpoint_every=7": set(),
    }.items(),
)
def test_what_depends_on_a_setting(setting, expected):
    assert anew(setting) == expected


def test_all_depends_on_the_vqvae_and_on_the_images():
    recipe = RECIPES["oracle-two-level"]
    everything = set(stages(config(recipe)))
    assert everything == set(changed(config(recipe), config(recipe, seed=1)))
    assert everything == set(changed(config(recipe), config(recipe, data_fingerprint="a-c")))
    for setting in ("vqvae.hidden=9", "vqvae_training.beta=1", "half=false"):
        assert anew(setting) == everything
    assert not changed(config(recipe), config(recipe, data="there"))
    assert not changed(config(recipe, data_fingerprint="a"), config(recipe)), "an early fingerprint"


def test_all_that_a_base_gives_depends_on_its_edition_and_on_no_path():
    recipe = dataclasses.replace(RECIPES["faces128"], base="here")
    one = config(recipe, base_digest="a")
    assert not changed(one, config(dataclasses.replace(recipe, base="there"), base_digest="a"))
    assert set(changed(one, config(recipe, base_digest="b"))) == set(stages(one))
    untrained = override(recipe, ["prior_training.steps=9"])
    assert not changed(one, config(untrained, base_digest="a")), "its priors are not trained"
    plain = config(RECIPES["faces128"])
    assert set(changed(plain, one)) == set(stages(one)) == set(changed(one, plain))
    before = {name: value for name, value in plain.items() if name != "base_digest"}
    assert not changed(before, config(RECIPES["faces128"], base_digest=None)), "of before bases"


@pytest.mark.parametrize("name", RECIPES)
def test_a_stage_builds_on_stages_before_it_and_every_setting_is_some_stages(name):
    """Those aside that say what the images are, which the fingerprint says, and which bundle the
    base is, which its digest says, and the name."""
    found = stages(config(RECIPES[name]))
    names = list(found)
    for number, stage in enumerate(found.values()):
        assert set(stage.after) <= set(names[:number])
    told = {path.split(".")[1] for stage in found.values() for path in stage.own if "." in path}
    fields = {field.name for field in dataclasses.fields(RECIPES[name])}
    absent = {field for field in fields - told if getattr(RECIPES[name], field)}
    assert absent <= {"name", "source", "count", "base", "feature_steps"}
    assert "feature_steps" not in absent or not RECIPES[name].features


def test_a_corrected_command_keeps_what_it_can(tmp_path, capsys):
    """And ends in the bundle of a run that was right from the start."""
    recipe, work = short("faces32"), tmp_path / "work"
    run.pretrain(override(recipe, ["prior_training.steps=2"]), tmp_path / "first", work=work)
    kept = {name: (work / name).read_bytes() for name in ("vqvae.csv", "features.pt")}
    capsys.readouterr()
    made = run.pretrain(recipe, tmp_path / "second", work=work)
    told = capsys.readouterr().out
    assert "prior_0 begins anew (recipe.prior_trainings.0.steps: 2 then, 4 now)" in told
    assert "discriminator begins anew (prior_0 is another)" in told
    assert "kept, as its settings are the same: distance, features, selfsupervised, vqvae" in told
    assert kept == {name: (work / name).read_bytes() for name in kept}, "its seconds, too"
    assert {"prior_0.pt", "prior_0.csv", "prior_0.png"} <= {
        file.name for file in (work / "earlier").iterdir()
    }
    whole = run.pretrain(recipe, tmp_path / "whole")
    hashes = [json.loads((path / "manifest.json").read_bytes())["files"] for path in (made, whole)]
    assert hashes[0] == hashes[1]


def test_a_finished_bundle_is_not_replaced_by_one_of_other_settings(tmp_path):
    recipe, work = short("faces32"), tmp_path / "work"
    made = run.pretrain(recipe, tmp_path / "made", work=work)
    before = {file.name: file.read_bytes() for file in made.iterdir()}
    with pytest.raises(ValueError, match=r"holds a bundle, .*fakes: 64 then, 65 now.*\(--out\)"):
        run.pretrain(dataclasses.replace(recipe, fakes=65), made, work=work)
    assert before == {file.name: file.read_bytes() for file in made.iterdir()}
    assert not (work / "earlier").exists(), "nothing has been changed"

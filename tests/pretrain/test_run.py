"""Images in, a bundle out: every stage runs, and the environment takes what comes out."""

import contextlib
import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from PIL import Image
from short_recipes import CutAt, short

from pretrain import run
from pretrain.configs import VQVAETraining
from pretrain.overrides import override
from pretrain.recipes import RECIPES
from ral_env import bundle
from ral_env.nets import Mixture, PatchGANConfig, joint
from ral_env.tasks import TASKS

# A few steps leave most codes unused.
pytestmark = pytest.mark.filterwarnings("ignore:the codebook of level")


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("digits", "RALDigits-v0"),
        ("faces32", "RALFaces32-v0"),
        ("oracle", "RALOracle-v0"),
        ("oracle-two-level", "RALOracleTwoLevel-v0"),
        ("faces128", "RALCelebA128-v0"),
    ],
)
def test_a_recipe_makes_a_bundle_that_the_environment_takes(name, env_id, tmp_path, capsys):
    path = run.pretrain(short(name), tmp_path / "bundle")
    made = bundle.load(path)
    levels = len(made.layout.levels)
    assert len(made.priors) == levels == len(TASKS[env_id].levels)
    assert len(made.oracles) == levels * name.startswith("oracle")
    assert list(made.feature_nets) == ["labels", "selfsupervised"]
    assert set(made.discriminator_inputs) == {"image", "codes"}
    assert made.version == "1" and list(made.splits) == ["train", "validation", "tuning", "test"]
    for figures in ("features", "discriminators"):
        assert len(made.manifest["metrics"][figures]) == 2
    assert made.recipe["command"] == f"ral pretrain --recipe {name} --seed 0"
    assert np.isfinite(made.manifest["metrics"]["priors"]["test_nats"])
    shown = capsys.readouterr()
    assert "validation_nats_per_code" in shown.err + shown.out
    assert "perplexity" in shown.err + shown.out
    env = gym.make(env_id, bundle=str(path))
    env.reset(seed=0)
    info = {}
    for _ in range(made.layout.length):
        *_, info = env.step(env.action_space.sample())
    assert ("nll_oracle" in info) == name.startswith("oracle")


def test_half_precision_weights_are_rounded_before_anything_is_measured_on_them(tmp_path):
    """What the bundle gives back scores exactly what the manifest says."""
    made = bundle.load(run.pretrain(short("oracle-two-level"), tmp_path / "bundle"))
    for net in (*made.priors, *made.oracles, made.vqvae):
        for value in net.state_dict().values():
            assert value.dtype == torch.float32 and torch.equal(value, value.half().float())
    test = made.layout.as_grids(made.split("test"))
    metrics = made.manifest["metrics"]
    for nets, nats in (
        (made.priors, metrics["priors"]["test_nats"]),
        (made.oracles, metrics["oracle"]["entropy"]),
    ):
        found = -joint.total_log_prob(nets, test).mean().item()
        assert found == close(nats)


def test_a_bundle_keeps_no_more_codes_than_its_recipe_says(tmp_path):
    made = bundle.load(run.pretrain(short("faces32", keep=(20, 5, 6)), tmp_path / "bundle"))
    assert {name: len(made.split(name)) for name in made.splits} == {
        "train": 20, "validation": 5, "tuning": 5, "test": 6,
    }  # fmt: skip
    for name, stored in made.test_features.items():
        assert len(stored.values) == 15, "of all test images"
        with torch.no_grad():
            (grid,) = made.layout.as_grids(made.split("test"))
            found = made.feature_nets[name].features(made.vqvae.decode([grid]))
        # The weights are those of the file, the features have 16 bits.
        np.testing.assert_allclose(stored.values[:6], found, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["faces32", "celeba64", "small32"])
def test_a_folder_of_images_makes_a_bundle(name, tmp_path):
    """Whatever the source of the recipe is."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(90):
        noise = rng.integers(0, 255, (4, 4, 3), np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(noise).save(tmp_path / "images" / f"{i}.png")
    few = {"discriminator_batch": 8, "discriminator": PatchGANConfig(hidden=4, layers=3)}
    few = few if name == "celeba64" else {}
    path = run.pretrain(short(name, **few), tmp_path / "bundle", folder=str(tmp_path / "images"))
    made = bundle.load(path)
    assert "folder images" in made.dataset and list(made.feature_nets) == ["selfsupervised"]
    assert {file.name for file in tmp_path.iterdir()} == {"images", "bundle", "bundle.work"}
    with pytest.raises(ValueError, match="--data"):
        run.pretrain(RECIPES["celeba64"], tmp_path / "other")


def test_mnist_makes_a_bundle_that_tells_its_digits_and_its_licence(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (100, 28, 28), np.uint8)
    labels = np.arange(100, dtype=np.uint8) % 10
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (tmp_path / f"train-{name}-ubyte").write_bytes(head + array.tobytes())
    path = run.pretrain(short("mnist"), tmp_path / "bundle", folder=str(tmp_path))
    made = bundle.load(path)
    assert made.dataset.startswith("MNIST, not its own test split: 100 handwritten digits")
    assert "CC BY-SA 3.0" in made.dataset
    assert made.features is not None
    assert (made.features.config.outputs, made.features.config.features) == (10, 64)
    assert [len(made.split(name)) for name in made.splits] == [80, 5, 5, 10]
    with pytest.raises(ValueError, match="--data"):
        run.pretrain(short("mnist"), tmp_path / "other")


@pytest.mark.parametrize("name", ["small32", "faces32"])
def test_sub_folders_as_classes_give_the_bundle_a_feature_net(name, tmp_path):
    """Whatever feature net the recipe has for the images that it makes."""
    for i in range(60):
        place = tmp_path / "images" / ("dark", "light", "red")[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        colour = [(20, 20, i), (230, 230, i), (230, 20, i)][i % 3]
        Image.new("RGB", (40, 40), colour).save(place / f"{i}.png")
    folder = str(tmp_path / "images")
    made = bundle.load(run.pretrain(short(name), tmp_path / "made", folder=folder, classes=True))
    assert made.features is not None and made.features.config.outputs == 3
    assert made.features.config.name == "classes of the folder, 32-d"
    metrics = made.manifest["metrics"]
    assert 0 <= metrics["features"]["labels"]["accuracy"] <= 1
    distance = metrics["reconstruction_distance"]
    assert distance["space"] == made.features.config.name and distance["features"] >= 0
    without = bundle.load(run.pretrain(short(name), tmp_path / "without", folder=folder))
    assert list(without.feature_nets) == ["selfsupervised"]


def test_a_mixture_learns_from_images_whose_styles_are_known(tmp_path):
    made = bundle.load(run.pretrain(short("oracle"), tmp_path / "bundle"))
    (oracle,) = made.oracles
    assert isinstance(oracle, Mixture)
    recipe = short("oracle", oracles=(dataclasses.replace(oracle.config, styles=4),))
    with pytest.raises(ValueError, match=r"oracle.styles=4, expected 8"):
        run.pretrain(recipe, tmp_path / "other")
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
    with pytest.raises(ValueError, match=r"each image's style, but .* have none: leave --data out"):
        run.pretrain(short("oracle"), tmp_path / "other", folder=str(tmp_path / "images"))


def test_the_same_seed_makes_the_same_weights(tmp_path):
    paths = [run.pretrain(short("faces32"), tmp_path / name) for name in "ab"]
    hashes = [bundle.load(path).manifest["files"] for path in paths]
    assert hashes[0] == hashes[1]


def files_of(path):
    return bundle.load(path).manifest["files"]


@pytest.mark.faults
def test_a_cut_run_goes_on_where_it_was_and_ends_in_the_same_bundle(tmp_path):
    """Cut after the feature net, in the oracle's training, and after the priors."""
    recipe = short("oracle-two-level")
    whole = files_of(run.pretrain(recipe, tmp_path / "whole"))
    cuts = {"features": "vqvae", "oracle_1 2:": "oracle_0", "priors": "prior_1"}
    for beginning, done in cuts.items():
        with contextlib.redirect_stdout(CutAt(beginning)), pytest.raises(KeyboardInterrupt):
            run.pretrain(recipe, tmp_path / "cut")
        assert (tmp_path / "cut.work" / f"{done}.pt").exists()
        assert not (tmp_path / "cut").exists()
    assert files_of(run.pretrain(recipe, tmp_path / "cut")) == whole
    assert not (tmp_path / "cut.work" / "codes.npy").exists(), "the bundle has them"


def test_a_run_folder_of_something_else_is_refused(tmp_path):
    run.pretrain(short("faces32"), tmp_path / "one", work=tmp_path / "run")
    with pytest.raises(ValueError, match=r"recipe.vqvae_training.steps: 4 then, 5 now.*--work"):
        changed = short("faces32", vqvae_training=VQVAETraining(steps=5, batch=40))
        run.pretrain(changed, tmp_path / "two", work=tmp_path / "run")
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        run.pretrain(short("faces32"), tmp_path / "two", seed=1, work=tmp_path / "run")


def test_a_run_goes_on_with_no_other_images(tmp_path, monkeypatch):
    """Of the same relative name: held-out images would become training images."""
    for name, count in (("here", 40), ("there", 41)):
        (tmp_path / name / "images").mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / name / "images" / f"{i}.png")
    monkeypatch.chdir(tmp_path / "here")
    recipe = short("small32")
    run.pretrain(recipe, tmp_path / "one", folder="images", work=tmp_path / "run")
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(ValueError, match="asked for something else .data_fingerprint: .* then, "):
        run.pretrain(recipe, tmp_path / "two", folder="images", work=tmp_path / "run")


def test_a_run_goes_on_however_the_path_of_its_images_is_spelt(tmp_path, monkeypatch):
    """And wherever they are now; but not where one of the same name and length is another."""
    place = tmp_path / "images"
    place.mkdir()
    for i in range(40):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(place / f"{i}.bmp")
    monkeypatch.chdir(tmp_path)
    recipe = short("small32")
    run.pretrain(recipe, tmp_path / "one", folder="images", work=tmp_path / "run")
    kept = (tmp_path / "run" / "vqvae.csv").read_bytes()  # its seconds, too
    run.pretrain(recipe, tmp_path / "one", folder="./images/", work="run")  # type: ignore[arg-type]
    place.rename(tmp_path / "moved")
    run.pretrain(recipe, tmp_path / "one", folder=str(tmp_path / "moved"), work=tmp_path / "run")
    assert (tmp_path / "run" / "vqvae.csv").read_bytes() == kept
    before = (tmp_path / "moved" / "7.bmp").stat().st_size
    Image.new("RGB", (32, 32), (7, 7, 7)).save(tmp_path / "moved" / "7.bmp")
    assert (tmp_path / "moved" / "7.bmp").stat().st_size == before
    with pytest.raises(ValueError, match="data_fingerprint"):
        run.pretrain(recipe, tmp_path / "one", folder="moved", work=tmp_path / "run")


def test_a_run_of_a_version_without_noisy_contexts_goes_on(tmp_path, capsys):
    recipe = short("oracle")
    with contextlib.redirect_stdout(CutAt("priors")), pytest.raises(KeyboardInterrupt):
        run.pretrain(recipe, tmp_path / "cut")
    file = tmp_path / "cut.work" / "config.json"
    config = json.loads(file.read_text())
    for name in ("prior_trainings", "oracle_trainings"):
        for training in config["recipe"][name]:
            del training["context_noise"]
    file.write_text(json.dumps(config))
    assert bundle.load(run.pretrain(recipe, tmp_path / "cut")).priors
    assert "begins anew" not in capsys.readouterr().out
    noisy = override(recipe, ["prior_training.context_noise=0.2"])
    run.pretrain(noisy, tmp_path / "noisy", work=tmp_path / "cut.work")
    why = "(recipe.prior_trainings.0.context_noise: 0.0 then, 0.2 now)"
    assert f"prior_0 begins anew {why}" in capsys.readouterr().out


def test_a_run_of_a_version_without_some_stages_goes_on_with_what_is_asked_for_now(tmp_path):
    """Its config says nothing of their settings."""
    recipe = short("faces32")
    with contextlib.redirect_stdout(CutAt("priors")), pytest.raises(KeyboardInterrupt):
        run.pretrain(recipe, tmp_path / "cut")
    file = tmp_path / "cut.work" / "config.json"
    config = json.loads(file.read_text())
    for later in ("other_discriminator", "selfsupervised"):
        del config["recipe"][later]
    del config["recipe"]["features"]["pool"]
    file.write_text(json.dumps(config))
    (tmp_path / "cut.work" / "selfsupervised.pt").unlink()
    kept = (tmp_path / "cut.work" / "vqvae.csv").read_bytes()  # its seconds, too
    made = bundle.load(run.pretrain(recipe, tmp_path / "cut"))
    assert list(made.feature_nets) == ["labels", "selfsupervised"]
    assert set(made.discriminator_inputs) == {"image", "codes"}
    assert (tmp_path / "cut.work" / "vqvae.csv").read_bytes() == kept
    assert not (tmp_path / "cut.work" / "earlier").exists()


def test_a_run_leaves_config_figures_and_pictures(tmp_path):
    recipe = short("oracle-two-level", count=200)  # nine of them are for validation
    run.pretrain(recipe, tmp_path / "bundle", work=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["name"] == "oracle-two-level" and "torch" in config["versions"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics == bundle.load(tmp_path / "bundle").manifest["metrics"]
    for stage in ("vqvae", "oracle_0", "oracle_1", "prior_0", "prior_1"):
        rows = (tmp_path / "run" / f"{stage}.csv").read_text().splitlines()
        assert rows[0].startswith("step,seconds,") and rows[-1].startswith("4,")
        assert list((tmp_path / "run" / stage).glob("events.out.tfevents.*"))
        with Image.open(tmp_path / "run" / f"{stage}.png") as picture:
            # Eight pictures of 64 pixels in a line, with margins; two lines of reconstructions.
            assert picture.size == (8 * 66 + 2, (2 if stage == "vqvae" else 1) * 66 + 2)

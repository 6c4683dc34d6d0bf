"""Images in, a bundle out: every stage runs, and the environment takes what comes out."""

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from PIL import Image

from agents.training.optimise import Training
from pretrain import data, discriminator, distance, features, redraw, run, vqvae
from pretrain.recipes import RECIPES
from pretrain.vqvae import VQVAETraining, extract, reconstruction_error, usage
from ral_env import bundle
from ral_env.nets import (
    VQVAE,
    Mixture,
    MixtureConfig,
    PatchGAN,
    PatchGANConfig,
    PixelCNN,
    VQVAEConfig,
    joint,
)
from ral_env.tasks import TASKS

# A few steps leave most codes unused.
pytestmark = pytest.mark.filterwarnings("ignore:the codebook of level")


@pytest.fixture
def short(monkeypatch):
    """A recipe cut to a few steps of tiny nets."""
    fit = discriminator.fit
    monkeypatch.setattr(discriminator, "fit", lambda *a, **k: fit(*a, **k, check_every=2))

    def cut(name, **changes):
        recipe = RECIPES[name]
        few = Training(steps=4, batch=8, validate_every=2)
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
            "count": 120 if recipe.count else 0,
        } | changes
        return dataclasses.replace(recipe, **changes)

    return cut


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
def test_a_recipe_makes_a_bundle_that_the_environment_takes(short, name, env_id, tmp_path, capsys):
    path = run.pretrain(short(name), tmp_path / "bundle")
    made = bundle.load(path)
    levels = len(made.layout.levels)
    assert len(made.priors) == levels == len(TASKS[env_id].levels)
    assert len(made.oracles) == levels * name.startswith("oracle")
    assert (made.features is None) == (name == "faces128")
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


def test_half_precision_weights_are_rounded_before_anything_is_measured_on_them(short, tmp_path):
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


def test_a_bundle_keeps_no_more_codes_than_its_recipe_says(short, tmp_path):
    made = bundle.load(run.pretrain(short("faces32", keep=(20, 5, 6)), tmp_path / "bundle"))
    assert [len(made.split(name)) for name in bundle.SPLITS] == [20, 5, 6]


@pytest.mark.parametrize("name", ["faces32", "celeba64"])
def test_a_folder_of_images_makes_a_bundle(short, name, tmp_path):
    """Whatever the recipe's own source is."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(90):
        noise = rng.integers(0, 255, (4, 4, 3), np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(noise).save(tmp_path / "images" / f"{i}.png")
    few = {"discriminator_batch": 8, "discriminator": PatchGANConfig(hidden=4, layers=3)}
    few = few if name == "celeba64" else {}
    path = run.pretrain(short(name, **few), tmp_path / "bundle", folder=str(tmp_path / "images"))
    made = bundle.load(path)
    assert "folder images" in made.dataset and made.features is None
    assert {file.name for file in tmp_path.iterdir()} == {"images", "bundle", "bundle.work"}
    with pytest.raises(ValueError, match="--data"):
        run.pretrain(RECIPES["celeba64"], tmp_path / "other")


def test_a_mixture_learns_from_images_whose_styles_are_known(short, tmp_path):
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


def test_the_same_seed_makes_the_same_weights(short, tmp_path):
    paths = [run.pretrain(short("faces32"), tmp_path / name) for name in "ab"]
    hashes = [bundle.load(path).manifest["files"] for path in paths]
    assert hashes[0] == hashes[1]


def test_a_vqvae_learns_to_reconstruct_and_uses_its_codes():
    """16x16 images of two flat colours from a palette of four."""
    rng = np.random.default_rng(0)
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
    halves = palette[rng.integers(0, 4, (300, 2))]  # (N, 2, 3)
    images = torch.from_numpy(halves.transpose(0, 2, 1)[:, :, :, None, None])
    images = images.expand(-1, -1, -1, 8, 16).reshape(300, 3, 16, 16).contiguous()
    config = VQVAEConfig(16, hidden=16, residual=8, layers=2, num_codes=16, code_dim=4)
    training = VQVAETraining(steps=300, batch=32, learning_rate=3e-3, codebook_decay=0.9)
    net, rows = vqvae.fit(config, images[:250], images[250:], training)
    # Against a net that says the mean colour everywhere.
    assert rows[-1]["reconstruction"] < 0.25 * vqvae.to_float(images).var(0).mean()
    assert rows[-1]["used"] >= 4
    codes = extract(net, images)
    assert codes.shape == (300, 16) and usage(codes, config)["perplexity"] > 2
    best = min(row["reconstruction"] for row in rows)  # it is kept; whether it is the last is luck
    assert reconstruction_error(net, images[250:]) == close(best)


def test_usage_by_hand():
    one = VQVAEConfig(2, layers=1, num_codes=4)
    found = usage(np.array([[0], [1], [1], [0]]), one)
    assert found == {"perplexity": pytest.approx(2.0), "used": 2}
    two = VQVAEConfig(4, layers=1, num_codes=4, levels=2)
    found = usage(np.array([[3, 0, 0, 0, 0], [3, 1, 1, 1, 1]]), two)
    assert (found["perplexity"], found["used"]) == (1, 1)
    assert (found["perplexity_1"], found["used_1"]) == (pytest.approx(2.0), 2)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_nets_that_fit_each_other(name):
    recipe = RECIPES[name]
    with torch.device("meta"):
        net, judge = VQVAE(recipe.vqvae), PatchGAN(recipe.discriminator)
        priors = [PixelCNN(prior) for prior in recipe.priors]
        oracles = [
            Mixture(oracle) if isinstance(oracle, MixtureConfig) else PixelCNN(oracle)
            for oracle in recipe.oracles
        ]
    grids = recipe.vqvae.grids
    assert len(recipe.prior_trainings) == len(priors)
    assert len(recipe.oracle_trainings) == len(oracles) in (0, len(priors))
    codes = [torch.zeros(1, *grid, dtype=torch.int64, device="meta") for grid in grids]
    for level, (prior, grid) in enumerate(zip(priors, grids, strict=True)):
        for net_of_level in (prior, *oracles[level : level + 1]):
            log_prob = net_of_level.log_prob(codes[level], codes[level - 1] if level else None)
            assert log_prob.shape == (1, *grid)
            assert net_of_level.config.num_codes == recipe.vqvae.num_codes
    score_map = judge(net.represent(codes, recipe.discriminator_input))
    if recipe.source not in data.MADE:
        assert score_map.shape == (1, 1, 4, 4), "the paper's map"


def test_the_papers_single_level_recipes_are_the_papers():
    """Supplement Tables 4 to 7: grid, hidden, layers, attention, output stack, batch, steps."""
    expected = {
        "celeba64": (8, 128, 5, 0, 5, 1024, 19_531, 128, 3),
        "bedroom64": (8, 512, 20, 0, 5, 1536, 97_656, 512, 3),
        "bedroom64fine": (16, 512, 20, 8, 20, 480, 31_250, 512, 2),
        "celeba128top": (16, 512, 20, 8, 20, 480, 41_666, 512, 3),
    }
    for name, row in expected.items():
        r = RECIPES[name]
        (p,), (training,) = r.priors, r.prior_trainings
        assert row == (
            p.grid[0], p.hidden, p.layers, p.attention_layers, p.output_layers,
            training.batch, training.steps, r.vqvae.num_codes, r.vqvae.layers,
        )  # fmt: skip
        assert (p.residual, p.filter_size, p.dropout) == (p.hidden, 5, 0.1)
        assert (r.vqvae.hidden, r.vqvae.residual, r.vqvae.code_dim) == (128, 64, 64)
        assert (r.vqvae_training.batch, r.vqvae_training.beta) == (128, 0.25)
    oracle = RECIPES["celeba64-oracle"].oracles[0]
    assert oracle is not None and (oracle.hidden, oracle.layers) == (256, 5)


def test_the_papers_two_level_recipes_are_the_papers():
    """Supplement Tables 8 to 10: grid, hidden, layers, attention, output stack, conditioning
    stack, batch, steps of top and bottom; layers and steps of the VQ-VAE."""
    expected = {
        "celeba128": ((16, 512, 20, 8, 20, 0, 480, 166_664), (32, 512, 20, 0, 0, 20, 128, 156_250),
                      (128, 2, 156_250)),
        "bedroom128": ((16, 512, 20, 8, 20, 0, 480, 166_664), (32, 512, 20, 0, 0, 20, 128, 156_250),
                       (128, 2, 156_250)),
        "celeba256": ((32, 512, 20, 0, 20, 0, 128, 187_500), (64, 128, 16, 0, 0, 20, 128, 125_000),
                      (256, 2, 156_250)),
        "celebahq512": ((32, 512, 20, 0, 20, 0, 128, 20_625), (64, 128, 16, 0, 0, 20, 128, 42_187),
                        (512, 3, 23_437)),
    }  # fmt: skip
    for name, (*levels, vqvae_row) in expected.items():
        r = RECIPES[name]
        found = [
            (p.grid[0], p.hidden, p.layers, p.attention_layers, p.output_layers,
             p.condition_layers, t.batch, t.steps)
            for p, t in zip(r.priors, r.prior_trainings, strict=True)
        ]  # fmt: skip
        assert found == levels
        assert (r.vqvae.image_size, r.vqvae.layers, r.vqvae_training.steps) == vqvae_row
        for p in r.priors:
            assert (p.residual, p.filter_size, p.dropout, p.num_codes) == (p.hidden, 5, 0.1, 512)


def test_every_id_has_a_recipe_for_its_bundle_and_its_stand_in():
    for task in TASKS.values():
        for name in filter(None, (task.bundle, task.stand_in)):
            vqvae_config = RECIPES[name].vqvae
            assert vqvae_config.grids == task.levels
            assert vqvae_config.image_size == task.image_size
            assert vqvae_config.num_codes == task.num_codes


def files_of(path):
    return bundle.load(path).manifest["files"]


def test_a_cut_run_goes_on_where_it_was_and_ends_in_the_same_bundle(short, tmp_path, monkeypatch):
    recipe = short("oracle-two-level")
    whole = files_of(run.pretrain(recipe, tmp_path / "whole"))

    class Cut(Exception):
        pass

    def cut(*arguments, **options):
        raise Cut

    for module, name in ((features, "fit"), (joint, "draw"), (discriminator, "fit")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, cut)
            with pytest.raises(Cut):
                run.pretrain(recipe, tmp_path / "cut")
    assert files_of(run.pretrain(recipe, tmp_path / "cut")) == whole
    assert not (tmp_path / "cut.work" / "codes.npy").exists(), "the bundle has them"


def test_a_run_folder_of_something_else_is_refused(short, tmp_path):
    run.pretrain(short("faces32"), tmp_path / "one", work=tmp_path / "run")
    with pytest.raises(ValueError, match=r"recipe.vqvae_training.steps: 4 then, 5 now.*--work"):
        changed = short("faces32", vqvae_training=VQVAETraining(steps=5, batch=40))
        run.pretrain(changed, tmp_path / "two", work=tmp_path / "run")
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        run.pretrain(short("faces32"), tmp_path / "two", seed=1, work=tmp_path / "run")


def test_a_run_leaves_config_figures_and_pictures(short, tmp_path):
    run.pretrain(short("oracle-two-level"), tmp_path / "bundle", work=tmp_path / "run")
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


def test_baselines_by_hand():
    """Each column repeats its first code, which is 0 or 1: log 2 a column, nothing below."""
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(0, 2, (4000, 1, 4))).expand(-1, 4, -1)
    train, validation = codes[:3000], codes[3000:]
    assert run.unigram_nats(train, validation, 2) == pytest.approx(np.log(2), abs=2e-3)
    assert run.previous_row_nats(train, validation, 2) == pytest.approx(np.log(2) / 4, abs=5e-3)
    noise = torch.from_numpy(rng.integers(0, 2, (4000, 4, 4)))
    nothing_to_know = run.previous_row_nats(noise[:3000], noise[3000:], 2)
    assert nothing_to_know == pytest.approx(np.log(2), abs=5e-3)


def test_the_distance_of_reconstructions_is_the_frechet_distance_of_their_features():
    from agents.evaluation.metrics import frechet_distance

    made = bundle.load("digits")
    images = torch.as_tensor(data.load("digits", 32).part("test")[:200])
    found = distance.reconstruction(made.vqvae, images, made.features)
    with torch.no_grad():
        x = vqvae.to_float(images)
        again = vqvae.to_float(((made.vqvae.decode(made.vqvae.encode(x)) + 1) * 127.5).round())
        expected = frechet_distance(made.features.features(x), made.features.features(again))
    assert found["features"] == pytest.approx(expected, rel=1e-3)
    assert (found["images"], found["space"]) == (200, "digit classes, 32-d")
    with pytest.raises(ValueError, match=r"no file .*nowhere.pth: expected the weights"):
        distance.reconstruction(made.vqvae, images, None, "nowhere.pth")
    assert distance.reconstruction(made.vqvae, images, None) == {"images": 200}


def test_a_prior_that_learns_by_heart_is_told(short, tmp_path):
    large = dataclasses.replace(RECIPES["faces32"].priors[0], hidden=48, residual=48, dropout=0.0)
    by_heart = Training(steps=150, batch=24, learning_rate=1e-2, validate_every=25)
    with pytest.warns(UserWarning, match=r"prior_0 overfits: validation was best.*more dropout"):
        recipe = short("faces32", count=30, priors=(large,), prior_trainings=(by_heart,))
        run.pretrain(recipe, tmp_path / "bundle")


def test_a_codebook_that_collapses_is_told(short, tmp_path, monkeypatch):
    fit = vqvae.fit

    def collapsed(*arguments, **options):
        net, rows = fit(*arguments, **options)
        return net, [row | {"perplexity": 7.9} for row in rows]  # an eighth of 64 is 8

    monkeypatch.setattr(vqvae, "fit", collapsed)
    with pytest.warns(UserWarning, match=r"level 0 has collapsed: .* 7.9 of 64 codes. Try fewer"):
        run.pretrain(short("faces32"), tmp_path / "bundle")


def prior_parameters(p):
    """Counted by hand: codebook, position, blocks, attention, output stack, head, condition."""
    h, w = p.grid
    c, r, k, f = p.hidden, p.residual, p.num_codes, p.filter_size
    half = f // 2 + 1
    block = (f * half * c + 1) * 2 * r + (half * c + 1) * 2 * r + (2 * r) ** 2 + 2 * r * c
    total = k * c + (h + w) * c + p.layers * block - r * c  # the last vertical stack ends there
    total += p.attention_layers * (2 * c + (c + 1) * 3 * c + (c + 1) * c)
    total += p.output_layers * ((c + 1) * r + (r + 1) * c) + (c + 1) * k
    if p.condition_layers:
        stack = p.condition_layers * ((9 * c + 1) * r + (r + 1) * c)
        total += k * c + stack + p.layers * 2 * r * c
    return total


@pytest.mark.parametrize("name", [n for n in RECIPES if "faces" not in RECIPES[n].source])
def test_priors_are_as_large_as_the_recipes_say(name):
    for config in (*RECIPES[name].priors, *RECIPES[name].oracles):
        with torch.device("meta"):
            found = sum(p.numel() for p in PixelCNN(config).parameters())
        assert found == prior_parameters(config)


def test_the_papers_two_priors_have_239_and_284_million_parameters():
    counts = [prior_parameters(p) for p in RECIPES["celeba128"].priors]
    assert [round(count / 1e6) for count in counts] == [239, 284]


@pytest.mark.parametrize("name", sorted({t.stand_in or t.bundle for t in TASKS.values()}))
def test_a_shipped_bundle_has_the_nets_that_its_recipe_says(name):
    made, recipe = bundle.load(name), RECIPES[name]
    assert made.vqvae.config == recipe.vqvae
    assert tuple(prior.config for prior in made.priors) == recipe.priors
    assert tuple(oracle.config for oracle in made.oracles) == recipe.oracles
    assert made.discriminator.config == recipe.discriminator
    if recipe.keep:
        sizes = [len(made.split(split)) for split in bundle.SPLITS]
        assert all(size <= most for size, most in zip(sizes, recipe.keep, strict=True))


def test_an_experiment_is_drawn_anew_from_the_same_oracle(tmp_path):
    """Other codes, another prior and discriminator; tokeniser, oracle and features stay."""
    made = bundle.load("oracle")
    hasty = dataclasses.replace(RECIPES["oracle"].prior_trainings[0], steps=20, validate_every=10)
    recipe = dataclasses.replace(
        RECIPES["oracle"], prior_trainings=(hasty,), oracle_samples=260, fakes=64,
        discriminator_steps=4, discriminator_batch=16,
    )  # fmt: skip
    again = bundle.load(redraw.redraw(made, recipe, 7, tmp_path / "again"))
    assert again.layout == made.layout and again.dataset == made.dataset
    assert [len(again.split(name)) for name in bundle.SPLITS] == [200, 20, 40]
    assert not np.array_equal(again.split("train"), made.split("train")[:200])
    grids = [torch.from_numpy(again.split("test").astype(np.int64)).view(-1, 8, 8)]
    new, old = (joint.total_log_prob(b.oracles, grids) for b in (again, made))
    assert torch.equal(new, old), "the same oracle"
    assert not torch.equal(*(joint.total_log_prob(b.priors, grids) for b in (again, made)))
    with pytest.raises(ValueError, match="has no oracle"):
        redraw.redraw(bundle.load("digits"), recipe, 1, tmp_path / "none")

"""Recipes: the paper's tables, nets that fit each other, and what the shipped bundles are."""

import dataclasses
import re

import pytest
import torch

from pretrain import data
from pretrain.configs import VQVAETraining
from pretrain.recipes import RECIPES
from ral_env import bundle
from ral_env.nets import VQVAE, Mixture, MixtureConfig, PatchGAN, PixelCNN
from ral_env.tasks import TASKS

SMALL = {"small32": "RALFaces32-v0", "small64": "RALCelebA64-v0", "small128": "RALCelebA128-v0"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_nets_that_fit_each_other(name):
    recipe = RECIPES[name]
    with torch.device("meta"):
        net, discriminator = VQVAE(recipe.vqvae), PatchGAN(recipe.discriminator)
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
    score_map = discriminator(net.represent(codes, recipe.discriminator_input))
    if recipe.source not in (*data.MADE, "mnist") and name not in SMALL:
        assert score_map.shape == (1, 1, 4, 4), "the paper's map"


def test_recipes_for_a_folder_have_the_shapes_of_ids_and_stop_before_they_overfit():
    """So a bundle of them can take an id's place, and a folder may hold few images."""
    for name, env in SMALL.items():
        recipe, task = RECIPES[name], TASKS[env]
        assert recipe.source == "folder" and name == f"small{recipe.vqvae.image_size}"
        assert recipe.vqvae.grids == task.levels and recipe.vqvae.num_codes == task.num_codes
        assert all(training.patience and training.ema for training in recipe.prior_trainings)
        assert all(prior.dropout for prior in recipe.priors)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fakes": 7}, "fakes=7, expected a number in [8, inf)"),
        ({"discriminator_steps": 0}, "discriminator_steps=0, expected"),
        ({"keep": (10, 0, 10)}, "keep=(10, 0, 10), expected a number in [1, inf)"),
        ({"count": -1}, "count=-1, expected"),
        ({"oracle_samples": 12}, "oracle_samples=12, expected a number in [13, inf)"),
        ({"prior_trainings": ()}, "0 prior_trainings, expected 1: one for each of priors"),
    ],
)
def test_a_recipe_refuses_what_is_out_of_range(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(RECIPES["oracle"], **changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta", -0.1), ("codebook_decay", 1.0), ("revive_below", -1), ("shift", -1), ("steps", 0)],
)
def test_a_vqvaes_training_refuses_what_is_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"{field}={value}, expected a number in"):
        VQVAETraining(**{field: value})

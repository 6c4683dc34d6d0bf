"""An id runs on the bundle it names, on one that is asked for, or on a stand-in that says so."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import tiny_parts

import ral_env
from ral_env import bundle
from ral_env.nets import VQVAE, PatchGAN, PatchGANConfig, PixelCNN, PixelCNNConfig, VQVAEConfig
from ral_env.tasks import TASKS

make: Any = gym.make  # Gymnasium's types know nothing of what an environment holds
make_vec: Any = gym.make_vec
STANDING_IN = [id for id, task in TASKS.items() if task.stand_in]


@pytest.mark.filterwarnings("ignore::ral_env.StandInWarning")
@pytest.mark.parametrize("name", TASKS)
def test_an_id_runs_on_the_bundle_that_it_names_or_says_on_which(name):
    task = TASKS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        used = make(name).unwrapped.bundle
    chosen, stands_in = bundle.choose(task)
    assert used.path.name == chosen and stands_in == (chosen != task.bundle)
    assert [w.category for w in caught] == [ral_env.StandInWarning] * stands_in
    assert used.dataset and used.recipe["command"].startswith("ral pretrain --recipe")


def test_shipped_bundles_are_small():
    shipped = sorted({task.stand_in or task.bundle for task in TASKS.values()})
    sizes = {
        name: sum(file.stat().st_size for file in (bundle.SHIPPED / name).glob("*")) / 1e6
        for name in shipped
    }
    assert min(sizes.values()) > 0, sizes
    assert max(sizes.values()) <= 10 and sum(sizes.values()) <= 80, sizes  # megabytes


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path))
    return tmp_path / "bundles"


@pytest.mark.parametrize("id", STANDING_IN)
def test_a_stand_in_is_announced_once_with_the_command_that_replaces_it(empty_home, id):
    task = TASKS[id]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = make_vec(id)
    (warning,) = caught
    assert warning.category is ral_env.StandInWarning
    text = str(warning.message)
    assert f"`ral pretrain --recipe {task.bundle} --data FOLDER --out " in text
    assert str(empty_home / task.bundle) in text
    for truth in (id, task.images, repr(task.stand_in), env.unwrapped.bundle.dataset):
        assert truth in text
    assert "procedural faces" in env.unwrapped.bundle.dataset


def test_the_command_names_a_recipe_that_there_is():
    recipes = pytest.importorskip("pretrain.recipes").RECIPES
    assert {task.bundle for task in TASKS.values()} <= set(recipes)
    assert {task.stand_in for task in TASKS.values()} - {None} <= set(recipes)


@pytest.mark.parametrize("id", STANDING_IN)
@pytest.mark.parametrize("how", [make, make_vec])
def test_a_required_bundle_is_never_stood_in_for(empty_home, id, how):
    task = TASKS[id]
    with pytest.raises(
        ValueError, match=rf"{id}: no bundle '{task.bundle}'.*`ral pretrain --recipe {task.bundle} "
    ):
        how(id, bundle_required=True)


def test_what_ships_needs_no_permission(empty_home):
    assert make("RALFaces32-v0", bundle_required=True).unwrapped.bundle.path.name == "faces32"


def shape_of_celeba64(**changes: Any) -> dict[str, Any]:
    """Arguments of ``bundle.save``: random nets in the shape of RALCelebA64-v0."""
    return tiny_parts(
        vqvae=VQVAE(VQVAEConfig(64, 8, 4, layers=3, num_codes=128, code_dim=6)),
        discriminator=PatchGAN(PatchGANConfig(hidden=4, layers=4)),
        priors=[PixelCNN(PixelCNNConfig((8, 8), 128, hidden=8, residual=8, layers=1))],
        codes=np.random.default_rng(0).integers(0, 128, (40, 64)),
        oracles=(),
        dataset="faces of celebrities",
        **changes,
    )


@pytest.mark.filterwarnings("error::ral_env.StandInWarning")
def test_a_bundle_of_that_name_in_the_users_folder_ends_the_standing_in(empty_home):
    saved = bundle.save(empty_home / "celeba64", **shape_of_celeba64())
    for settings in ({}, {"bundle_required": True}, {"bundle": str(saved)}, {"bundle": "celeba64"}):
        used = make("RALCelebA64-v0", **settings).unwrapped.bundle
        assert used.path == saved and used.dataset == "faces of celebrities"


@pytest.mark.filterwarnings("error::ral_env.StandInWarning")
def test_a_bundle_that_is_asked_for_is_used_without_a_word(empty_home):
    saved = bundle.save(empty_home / "elsewhere", **shape_of_celeba64())
    for asked in (str(saved), saved, "elsewhere", bundle.load(saved)):
        assert make("RALCelebA64-v0", bundle=asked).unwrapped.bundle.path == saved


def test_a_bundle_of_other_grids_is_refused_with_both_shapes(tiny_two, empty_home):
    message = (
        r"RALCelebA64-v0 has images of 64 pixels and grids \(\(8, 8\),\) of 128 codes, but"
        r".*bundle.* has 32 pixels and grids \(\(8, 8\), \(16, 16\)\) of 16 codes.*RALBundle-v0"
    )
    for how in (make, make_vec):
        with pytest.raises(ValueError, match=message):
            how("RALCelebA64-v0", bundle=str(tiny_two))
    bundle.save(empty_home / "celeba64", **tiny_parts("image", 2))  # of the right name
    with pytest.raises(ValueError, match=message):
        make("RALCelebA64-v0")


def test_near_matches_of_unknown_names_are_named():
    with pytest.raises(gym.error.NameNotFound, match="Did you mean: `RALFaces32`"):
        make("RALFace32-v0")
    with pytest.raises(ValueError, match="no bundle 'face32'.*Did you mean 'faces32'"):
        make("RALFaces32-v0", bundle="face32")

"""A bare word is a bundle's name, all else is a path, and neither hides the other."""

import copy
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from ral_env import bundle, cli
from ral_env.tasks import TASKS


@pytest.fixture
def here(tiny, tmp_path, monkeypatch) -> Path:
    """The working folder: it has folders ``digits`` and ``mine``, both of them bundles."""
    folder = tmp_path / "here"
    for name in ("digits", "mine"):
        shutil.copytree(tiny, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.parametrize("path", ["./digits", "digits/", Path("digits"), "../here/digits"], ids=str)
def test_what_has_a_separator_or_is_a_path_is_a_path(here, path):
    found = bundle.load(path)
    assert found.dataset == "noise" and found.path is not None
    assert found.path.is_absolute() and found.path.samefile(here / "digits")


def test_a_word_that_is_a_name_and_a_folder_is_refused_with_how_to_write_each(here):
    with pytest.raises(
        ValueError, match="'digits' is the name of a bundle and a folder"
    ) as refused:
        bundle.load("digits")
    shipped = str(bundle.SHIPPED / "digits")
    assert f"{shipped!r} for the one, './digits' for the other" in str(refused.value)
    assert bundle.load(shipped).dataset != bundle.load("./digits").dataset == "noise"


def test_a_word_that_is_no_name_is_a_folder(here):
    """As earlier versions wrote them into the configs of runs."""
    assert bundle.find("mine") == here / "mine"
    with pytest.raises(ValueError, match="no bundle 'yours'"):
        bundle.find("yours")


def test_a_name_is_found_from_within_the_folder_that_it_names(here, monkeypatch):
    monkeypatch.chdir(bundle.SHIPPED)
    assert bundle.find("digits") == bundle.SHIPPED / "digits"


def test_an_id_runs_on_its_own_bundle_whatever_folders_are_there(here):
    shutil.copytree(here / "mine", here / "faces32")
    for id in ("RALDigits-v0", "RALFaces32-v0", "RALBundle-v0"):
        name = TASKS[id].bundle if id in TASKS else "faces32"
        for how in (gym.make, gym.make_vec):
            made: Any = how(id)
            assert made.unwrapped.bundle.path == bundle.SHIPPED / name


def test_a_bundle_stays_where_it_is_when_the_working_folder_changes(here, tmp_path, monkeypatch):
    loaded = bundle.load(Path("mine"), verify=False)
    saved = bundle.save(Path("again"), loaded, metrics={})
    monkeypatch.chdir(tmp_path)
    assert saved == here / "again"
    for same in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert same.path == here / "mine" and len(same.priors) == 1 and len(same.flat_codes) == 40


def test_without_a_home_folder_the_shipped_bundles_are_there(monkeypatch, capsys):
    """As in containers whose user has no entry in the list of users."""
    monkeypatch.delenv("RAL_ENV_HOME", raising=False)
    monkeypatch.setenv("HOME", "~")  # what it then expands to
    assert bundle.home() is None
    assert bundle.load("digits").path == bundle.SHIPPED / "digits"
    with pytest.warns(UserWarning, match=r"--out \$RAL_ENV_HOME/bundles/celeba64`"):
        gym.make("RALCelebA64-v0")
    assert cli.main(["envs"]) == 0
    assert "--out $RAL_ENV_HOME/bundles/NAME" in capsys.readouterr().out
    with pytest.raises(ValueError, match="'~/mine' begins with ~.*write the path in full"):
        bundle.load("~/mine")


def test_a_tilde_is_the_home_folder(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.delenv("RAL_ENV_HOME")
    assert bundle.load("~/mine").path == here / "mine"
    assert bundle.home() == here / ".cache" / "ral_env" / "bundles"
    assert os.listdir(here) == ["digits", "mine"] or os.listdir(here) == ["mine", "digits"]

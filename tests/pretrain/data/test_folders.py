"""Every file of a folder is an image that is used, or counted in a word that says why not."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from image_files import all_of, image_folder
from PIL import Image

from pretrain import data
from pretrain.data.folders import SUFFIXES, find_images
from pretrain.data.images import Images


@pytest.fixture
def folder(tmp_path) -> Path:
    return image_folder(tmp_path)


def test_a_folder_of_images_alone_needs_no_word(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(all_of(data.load(folder, 16))) == 12


@pytest.mark.parametrize("ending", sorted(SUFFIXES))
def test_files_of_every_ending_are_used(folder, ending):
    """In small letters and capitals; what is in them is told by their first bytes."""
    for path in folder.glob("*.png"):
        path.rename(path.with_suffix(ending if int(path.stem) % 4 else ending.upper()))
    assert len(all_of(data.load(folder, 16))) == 12


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def test_what_is_not_used_is_counted_by_its_reason(folder):
    whole = data.load(folder, 16)
    for name in (".ipynb_checkpoints/0.png", "below/.thumbnails/1.png", "@eaDir/2.png", ".3.png"):
        put(folder / name)
    (folder / "labels.csv").write_text("a")
    (folder / "notes").write_text("a")
    os.mkfifo(folder / "pipe.png")
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    (folder / "linked").symlink_to(folder / "below")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.warns(UserWarning, match="12 images of .* are used. Not used: ") as caught:
        found = data.load(folder, 16)
    (text,) = (str(warning.message) for warning in caught)
    for words in (
        "3 hidden folders: .ipynb_checkpoints; @eaDir; below/.thumbnails",
        "1 hidden files: .3.png",
        "2 files with other endings: labels.csv; notes",
        "2 pipes, devices and broken links: lost.png; pipe.png",
        "1 links to folders: linked",
        "1 cannot be read: cut.jpg (",
    ):
        assert words in text
    assert found.fingerprint == whole.fingerprint
    assert np.array_equal(all_of(found), all_of(whole))


def test_a_count_that_leaves_images_out_says_so(folder):
    with pytest.warns(UserWarning, match="10 images .* Not used: 2 more than the 10 asked for"):
        assert len(all_of(data.load(folder, 16, count=10))) == 10


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_counted(folder):
    (folder / "closed").mkdir(mode=0)
    with pytest.warns(UserWarning, match="1 folders that cannot be read: closed"):
        data.load(folder, 16)


def test_a_runs_own_pictures_are_no_images(folder):
    for name, left in (("runs/pretrain/small32", "vqvae.pt"), ("runs/train", "progress.csv")):
        put(folder / name / "samples.png")
        (folder / name / "config.json").write_text("{}")
        (folder / name / left).write_text("")
    names, left_out = find_images(folder)
    assert len(names) == 12
    assert sorted(left_out["folders of runs"]) == ["runs/pretrain/small32", "runs/train"]


# --- what tells a data set from others ---


def fingerprint(folder: Path, **options) -> str:
    return data.load(folder, 16, **options).fingerprint


def test_the_same_images_have_the_same_fingerprint(folder, monkeypatch):
    expected = fingerprint(folder)
    assert fingerprint(folder) == expected
    monkeypatch.chdir(folder.parent)
    assert fingerprint(Path(folder.name)) == expected
    faces: list[Images] = [data.load("faces", 32, seed, count=20) for seed in (0, 0, 1)]
    assert faces[0].fingerprint == faces[1].fingerprint != faces[2].fingerprint


def test_an_image_more_or_less_or_other_changes_the_fingerprint(folder):
    known = {fingerprint(folder), fingerprint(folder, seed=1), fingerprint(folder, flip=True)}
    put(folder / "0.png")
    known.add(fingerprint(folder))
    put(folder / "more.png")
    known.add(fingerprint(folder))
    (folder / "more.png").unlink()
    (folder / "2.png").unlink()
    known.add(fingerprint(folder))
    assert len(known) == 6

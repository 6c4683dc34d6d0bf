"""CelebA and LSUN bedrooms, in the layouts that they are published in."""

import gc
import hashlib
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import all_of, bedroom_files, image_folder
from PIL import Image
from torchvision.datasets import LSUN, CelebA

from pretrain import data
from pretrain.data.image_sets import open_lmdb
from pretrain.data.sources import celeba
from pretrain.recipes import RECIPES
from ral_env.images import read


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def celeba_files(root: Path) -> tuple[type[CelebA], dict[str, list[int]]]:
    """Twelve images of 178 x 218, each with another grey in its middle 140 x 140, in a white frame.

    Returns torchvision's reader, which knows the text files by these files' hashes, and the greys
    of each split.
    """
    place = root / "celeba"
    (place / "img_align_celeba").mkdir(parents=True)
    parts = [0] * 6 + [1] * 3 + [2] * 3
    np.random.default_rng(0).shuffle(parts)
    names = [f"{i:06}.jpg" for i in range(1, 13)]
    for number, name in enumerate(names):
        picture = np.full((218, 178, 3), 255, np.uint8)
        picture[39:179, 19:159] = 15 * number
        Image.fromarray(picture).save(place / "img_align_celeba" / name, quality=95)

    def table(name, columns, header=()):
        rows = [" ".join([n, *map(str, columns(i))]) for i, n in enumerate(names)]
        (place / name).write_text("\n".join([*header, *rows]) + "\n")

    table("list_eval_partition.txt", lambda i: [parts[i]])
    table("identity_CelebA.txt", lambda i: [i])
    table("list_bbox_celeba.txt", lambda i: [0, 0, 9, 9], ("12", "image_id x_1 y_1 width height"))
    table("list_landmarks_align_celeba.txt", lambda i: [1] * 10, ("12", "lefteye_x lefteye_y"))
    table("list_attr_celeba.txt", lambda i: [1, -1], ("12", "Bald Young"))
    ours = {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in place.glob("*.txt")}

    class Ours(CelebA):
        file_list = [(where, ours.get(name, md5), name) for where, md5, name in CelebA.file_list]

    return Ours, {
        name: [15 * n for n, part in enumerate(parts) if part == number]
        for number, name in enumerate(("train", "validation", "test"))
    }


@pytest.mark.parametrize("given", [".", "celeba"])
def test_celeba_comes_in_its_own_split_with_the_fields_crop(given, tmp_path):
    published, greys = celeba_files(tmp_path)
    images = celeba(tmp_path / given, 64, published=published)
    assert images.name == "CelebA, its own split, middle 140 pixels: 12 images"
    for name, expected in greys.items():
        found = images.part(name)[:].float()
        # The crop ends where the white frame begins: JPEG blurs it by some pixels.
        assert found[:, :, 8:-8, 8:-8].mean((1, 2, 3)).tolist() == pytest.approx(expected, abs=2)
        assert (found.mean((1, 2, 3)) - torch.tensor(expected)).abs().max() < 4
        assert pickle.loads(pickle.dumps(images.part(name)))[:1].shape == (1, 3, 64, 64)
    flipped = celeba(tmp_path, 64, count=4, flip=True, published=published)
    assert [len(part) for part in flipped.parts.values()] == [8, 3, 3]


def test_celeba_that_is_not_whole_says_what_to_download(tmp_path):
    published, _ = celeba_files(tmp_path)
    partition = tmp_path / "celeba" / "list_eval_partition.txt"
    text = partition.read_text()
    partition.unlink()
    with pytest.raises(ValueError, match=r"lacks list_eval_partition\.txt.*img_align_celeba\.zip"):
        data.load("celeba", 64, root=tmp_path)
    partition.write_text(text + "\n")
    with pytest.raises(ValueError, match="not the published one"):
        celeba(tmp_path, 64, published=published)
    with pytest.raises(ValueError, match=r"needs files.*--data.*DIR/celeba/img_align_celeba"):
        data.load("celeba", 64)


@pytest.mark.parametrize("source", ["celeba", "lsun-bedroom"])
def test_a_plain_folder_serves_for_a_published_set_and_the_name_says_so(source, folder):
    images = data.load(source, 16, root=folder)
    assert images.name == f"12 images of folder {folder.name}"
    assert np.array_equal(all_of(images), all_of(data.load(folder, 16)))
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="0 images to use.*download"):
        data.load(source, 16, root=folder / "empty")


def test_bedrooms_are_the_databases_images(tmp_path, monkeypatch):
    bedroom_files(tmp_path)
    monkeypatch.chdir(tmp_path)  # torchvision leaves a file in the working directory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # and does not close it
        theirs = {name: LSUN(str(tmp_path), [f"bedroom_{name}"]) for name in ("train", "val")}
        gc.collect()
    expected = {
        name: {read(image, 32).tobytes() for image, _ in found} for name, found in theirs.items()
    }
    for found in theirs.values():
        found.dbs[0].env.close()  # LMDB opens a database once
    images = data.load("lsun-bedroom", 32, root=tmp_path)
    assert images.name == "LSUN bedrooms, middle square: 43 images"
    ours = {name: {i.tobytes() for i in part[:].numpy()} for name, part in images.parts.items()}
    assert ours["validation"] == expected["val"]
    assert len(ours["train"]) == 38 and len(ours["test"]) == 2 and not ours["train"] & ours["test"]
    assert ours["train"] | ours["test"] == expected["train"]
    again = data.load("lsun-bedroom", 32, root=tmp_path, flip=True, count=5)
    assert [len(part) for part in again.parts.values()] == [10, 3, 2]
    assert torch.equal(again.part("train")[5:], again.part("train")[:5].flip(3))
    other = data.load("lsun-bedroom", 32, root=tmp_path, seed=1)
    assert not torch.equal(other.part("test")[:], images.part("test")[:])


def test_bedrooms_that_are_not_whole_say_what_to_download(tmp_path, monkeypatch):
    written = bedroom_files(tmp_path)
    (tmp_path / "bedroom_val_lmdb").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"no data\.mdb in .*bedroom_val_lmdb.*download\.py"):
        data.load("lsun-bedroom", 32, root=tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "bedroom_val_lmdb")
    lmdb = pytest.importorskip("lmdb")
    key = min(written["val"])
    environment = lmdb.open(str(tmp_path / "bedroom_val_lmdb"))
    with environment.begin(write=True) as transaction:
        transaction.put(key, b"no picture")
    environment.close()
    validation = data.load("lsun-bedroom", 32, root=tmp_path).part("validation")
    with pytest.warns(UserWarning, match=f"image {key.decode()} .*next image stands in"):
        assert torch.equal(validation[:1], validation[1:2])
    open_lmdb.cache_clear()
    (tmp_path / "bedroom_val_lmdb" / "data.mdb").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"bedroom_val_lmdb is no LMDB database"):
        data.load("lsun-bedroom", 32, root=tmp_path)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match=r"pip install 'ral-env\[pretrain\]'"):
        data.load("lsun-bedroom", 32, root=tmp_path)


def test_the_papers_recipes_ask_for_the_papers_data():
    for name, recipe in RECIPES.items():
        if name.startswith(("celeba", "bedroom")):
            expected = (
                "folder" if "hq" in name else "celeba" if "celeba" in name else "lsun-bedroom"
            )
            assert recipe.source == expected

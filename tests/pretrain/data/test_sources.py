"""Image sources: seeded, whole, refused in words where they cannot serve."""

import shutil
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from image_files import all_of, image_folder, training_files
from PIL import Image

from pretrain import data
from pretrain.data import tinted_faces
from ral_env.images import read


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def test_splits_are_disjoint_and_cover_all():
    for images in (data.load("faces", 32, count=50), data.load("digits", 32)):
        assert list(images.splits) == ["train", "validation", "tuning", "test"]
        ends = list(images.splits.values())
        assert ends[0][0] == 0 and ends[-1][1] == len(images.whole)
        assert all(a < b for a, b in ends)
        assert all(one[1] == next[0] for one, next in pairwise(ends))
        assert images.targets is not None
        for name, (a, b) in images.splits.items():
            assert len(images.part(name)) == len(images.targets[name]) == b - a
    with pytest.raises(ValueError, match="part 'valid', expected one of"):
        images.part("valid")


@pytest.mark.parametrize(("count", "validation", "tuning"), [(36, 3, 0), (48, 2, 2), (60, 3, 2)])
def test_half_of_the_validation_images_are_for_tuning_where_two_are_left(count, validation, tuning):
    images = data.load("tinted-faces", 32, count=count)
    assert [len(images.part("validation")), len(images.parts.get("tuning", ()))] == [
        validation, tuning,
    ]  # fmt: skip
    # Nothing else changes: the same images in the same order, and what is known of each.
    pixels, attributes, tints = tinted_faces(count, 32, 0)
    assert images.targets is not None and images.styles is not None
    assert np.array_equal(all_of(images), pixels)
    assert np.array_equal(np.concatenate(list(images.targets.values())), attributes)
    assert np.array_equal(np.concatenate(list(images.styles.values())), tints)
    for name, (first, last) in images.splits.items():
        assert len(images.targets[name]) == len(images.styles[name]) == last - first


def test_digits_are_the_real_ones():
    digits = data.load("digits", 32)
    assert all_of(digits).shape == (1797, 3, 32, 32)
    assert [b - a for a, b in digits.splits.values()] == [1200, 149, 148, 300]
    assert digits.targets is not None
    assert sorted(set(np.concatenate(list(digits.targets.values())))) == list(range(10))
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    small = found.images
    shrunk = np.array([i[0].reshape(8, 4, 8, 4).mean((1, 3)) for i in all_of(digits)[:20]]) / 16
    nearest = [np.abs(small - image).mean((1, 2)).min() for image in shrunk]
    assert max(nearest) < 1.5  # of 16 greys: each is one of the set


def test_digits_keep_their_own_classes():
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    small = data.load("digits", 8)
    classes = {
        (image * (255 / 16)).astype(np.uint8).tobytes(): target
        for image, target in zip(found.images, found.target, strict=True)
    }
    assert small.targets is not None
    targets = np.concatenate([small.targets[name] for name in small.parts])
    assert [classes.pop(image[0].tobytes()) for image in all_of(small)] == targets.tolist()
    assert not classes  # each once, so the parts are disjoint


def test_five_seeds_have_no_digit_for_testing_in_common():
    folds = [data.load("digits", 8, seed=seed) for seed in range(6)]
    tested = [{image.tobytes() for image in fold.part("test")[:].numpy()} for fold in folds]
    assert len(set.union(*tested[:5])) == sum(map(len, tested[:5]))
    assert tested[5] == tested[0]
    for fold, held_out in zip(folds, tested, strict=True):
        assert not held_out & {image.tobytes() for image in fold.part("train")[:].numpy()}
        assert sorted(image.tobytes() for image in all_of(fold)) == sorted(
            image.tobytes() for image in all_of(folds[0])
        )


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'ral-env\[pretrain\]'"):
        data.load("digits", 32)


def test_a_folder_is_read_with_all_below_it(folder):
    images = data.load(str(folder), 16)
    assert images.name == f"12 images of folder {folder.name}" and images.targets is None
    assert all_of(images).shape == (12, 3, 16, 16)
    # As files, not as images, they were opened by the reader that everything else uses.
    expected = {read(file, 16).tobytes() for file in folder.rglob("*.png")}
    assert {image.tobytes() for image in all_of(images)} == expected
    assert np.array_equal(all_of(images), all_of(data.load("folder", 16, root=folder)))
    assert not np.array_equal(all_of(images), all_of(data.load(folder, 16, seed=1)))


def test_broken_files_of_a_folder_are_left_out_counted_and_named(folder):
    whole = data.load(folder, 16)
    (folder / "broken.png").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / training_files(whole)[0]).read_bytes()[:60])
    with pytest.warns(
        UserWarning, match=r"12 images .*2 cannot be read: broken.png \(.*; cut.png \("
    ):
        found = data.load(folder, 16)
    assert found.splits == whole.splits
    for part in whole.parts:
        assert torch.equal(found.part(part)[:], whole.part(part)[:])


def test_flip_doubles_the_training_part_only(folder):
    plain, flipped = data.load(str(folder), 16), data.load(str(folder), 16, flip=True)
    train = plain.splits["train"][1]
    assert flipped.splits["train"] == (0, 2 * train)
    assert torch.equal(flipped.part("train")[train:], plain.part("train")[:].flip(3))
    assert torch.equal(flipped.part("train")[:train], plain.part("train")[:])
    for part in ("validation", "test"):
        assert torch.equal(plain.part(part)[:], flipped.part(part)[:])
    with pytest.raises(ValueError, match="digits"):
        data.load("digits", 32, flip=True)


def test_folders_that_cannot_serve_are_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="no folder"):
        data.load(str(tmp_path / "nowhere"), 32)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds 0 images to use, expected at least 10"):
        data.load(str(empty), 32)
    with pytest.raises(ValueError, match="5 images to use.*Not used: 7 more than the 5 asked for"):
        data.load(str(folder), 32, count=5)
    with pytest.raises(ValueError, match="at least 8"):
        data.load("faces", 4)
    with pytest.raises(ValueError, match="at least 10"):
        data.load("faces", 32, count=3)
    with pytest.raises(ValueError, match="'faces' need no files"):
        data.load("faces", 32, root=folder)
    with pytest.raises(ValueError, match="'folder' needs files"):
        data.load("folder", 32)


def test_a_folders_parts_share_no_image(folder):
    assert len({image.tobytes() for image in all_of(data.load(str(folder), 16))}) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [({"source": "faces", "flip": True}, "flip"), ({"source": "digits", "count": 0}, "count=0")],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.load(size=16, **options)


# --- classes ---


@pytest.fixture
def classes(tmp_path):
    """Images in the folders a, b and b/deep: all red in a, all green in b."""
    for i in range(40):
        place = tmp_path / ("a" if i % 4 else ("b/deep" if i % 8 else "b"))
        place.mkdir(parents=True, exist_ok=True)
        colour = (255, i, 0) if i % 4 else (0, 255, i)
        Image.new("RGB", (20, 20), colour).save(place / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("flip", [False, True])
def test_sub_folders_are_classes_where_they_are_asked_for(classes, flip):
    images = data.load(classes, 8, flip=flip, classes=True)
    assert images.target_kind == "classes" and images.targets is not None
    for split, part in images.parts.items():
        is_green = (part[:][:, 0] < 128).all((1, 2)).numpy()
        assert np.array_equal(images.targets[split], is_green.astype(np.int64))
    assert data.load(classes, 8).targets is None


def test_images_outside_sub_folders_have_no_class(classes):
    Image.new("RGB", (8, 8)).save(classes / "stray.png")
    with pytest.raises(ValueError, match=r"1 images lie outside of them, such as stray.png: move"):
        data.load(classes, 8, classes=True)


def test_one_class_is_too_few(classes):
    shutil.rmtree(classes / "b")
    with pytest.raises(ValueError, match=r"in \['a'\] only: expected at least 2 sub-folders"):
        data.load(classes, 8, classes=True)


def test_a_class_without_training_images_is_refused(classes):
    held_out = [len(data.load(classes, 8, classes=True).part(s)) for s in ("validation", "test")]
    assert held_out == [2, 2]
    (classes / "rare").mkdir()
    for seed in range(100):  # until the one image of the class is held out
        Image.new("RGB", (8, 8)).save(classes / "rare" / "one.png")
        try:
            data.load(classes, 8, seed=seed, classes=True)
        except ValueError as error:
            assert "no training images are in sub-folders rare of" in str(error)
            return
    raise AssertionError("it was never held out")


def test_sources_without_sub_folders_have_no_classes(tmp_path):
    with pytest.raises(ValueError, match="classes are sub-folders .* 'faces' need no files"):
        data.load("faces", 32, classes=True)
    (tmp_path / "celeba").mkdir()
    with pytest.raises(
        ValueError, match="classes=True, but 'celeba' as published .* has no sub-folders"
    ):
        data.load("celeba", 32, root=tmp_path, classes=True)

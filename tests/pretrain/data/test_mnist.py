"""MNIST as it is published: idx files, packed or not, in both layouts; crisp; refused in words."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from image_files import all_of, idx, mnist_files

from pretrain import data
from pretrain.data.idx_files import read_idx


def known_targets(images: data.Images) -> dict[str, np.ndarray]:
    assert images.targets is not None and images.target_kind == "classes"
    return dict(images.targets)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layout", [".", "raw", "MNIST/raw"])
def test_digits_come_in_every_layout_as_crisp_as_they_are(layout, packed, tmp_path):
    pixels, labels = mnist_files(tmp_path / layout, 40, packed=packed)
    images = data.load("mnist", 32, root=tmp_path)
    found = all_of(images)
    assert found.shape == (40, 3, 32, 32) and found.dtype == np.uint8
    for channel in range(3):
        assert np.array_equal(found[:, channel, 2:30, 2:30], pixels)
    found[:, :, 2:30, 2:30] = 0
    assert not found.any(), "the border is the background"
    assert np.array_equal(np.concatenate(list(known_targets(images).values())), labels)


@pytest.mark.parametrize(("size", "first"), [(28, 0), (31, 1), (64, 18)])
def test_other_sizes_have_other_borders(size, first, tmp_path):
    pixels, _ = mnist_files(tmp_path, 10)
    found = all_of(data.load("mnist", size, root=tmp_path))
    assert found.shape == (10, 3, size, size)
    assert np.array_equal(found[:, 0, first : first + 28, first : first + 28], pixels)


def test_without_the_test_files_the_training_file_is_cut_in_its_order(tmp_path):
    _, labels = mnist_files(tmp_path, 45)
    images = data.load("mnist", 32, seed=0, root=tmp_path)
    assert images.splits == {
        "train": (0, 37), "validation": (37, 39), "tuning": (39, 41), "test": (41, 45),
    }  # fmt: skip
    assert images.name == (
        "MNIST, not its own test split: 45 handwritten digits (LeCun, Cortes, Burges; CC BY-SA 3.0)"
    )
    for split, (first, last) in images.splits.items():
        assert np.array_equal(known_targets(images)[split], labels[first:last])
    assert np.array_equal(all_of(data.load("mnist", 32, seed=7, root=tmp_path)), all_of(images))


def test_with_them_the_test_split_is_the_published_one(tmp_path):
    pixels, labels = mnist_files(tmp_path, 60_000, side=1)
    test_pixels, test_labels = mnist_files(tmp_path, 10_000, side=1, part="t10k", seed=1)
    images = data.load("mnist", 8, root=tmp_path)
    assert images.name.startswith("MNIST, its own test split: 70,000 handwritten digits")
    ends = {"train": (0, 54_000), "validation": (54_000, 57_000), "tuning": (57_000, 60_000),
            "test": (60_000, 70_000)}  # fmt: skip
    assert images.splits == ends
    assert np.array_equal(images.part("test")[:][:, 0, 3:4, 3:4].numpy(), test_pixels)
    for split in ("validation", "tuning"):
        found = images.part(split)[:][:, 0, 3:4, 3:4].numpy()
        assert np.array_equal(found, pixels[slice(*ends[split])])
    targets = known_targets(images)
    assert np.array_equal(targets["test"], test_labels)
    assert np.array_equal(targets["train"], labels[:54_000])


def test_count_limits_the_training_split_only(tmp_path):
    _, labels = mnist_files(tmp_path, 40)
    images = data.load("mnist", 32, count=5, root=tmp_path)
    assert [len(part) for part in images.parts.values()] == [5, 2, 2, 4]
    assert np.array_equal(known_targets(images)["train"], labels[:5])


def test_a_download_that_was_unpacked_under_its_old_name_is_read(tmp_path):
    (tmp_path / "labels.gz").write_bytes(idx(np.arange(5, dtype=np.uint8)))
    assert read_idx(tmp_path / "labels.gz").tolist() == [0, 1, 2, 3, 4]


WHOLE = idx(np.zeros((3, 2, 2), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE[:-1], r"has 27 bytes \(unpacked\), expected 28 for the shape \(3, 2, 2\)"),
        (WHOLE + b"\0", r"has 29 bytes \(unpacked\), expected 28"),
        (WHOLE[:10], "has 10 bytes"),
        (WHOLE[:3], "no idx file of bytes: it begins with '00 00 08'"),
        (b"", "no idx file of bytes: it begins with ''"),
        (b"\x89PNG" + WHOLE, "begins with '89 50 4e 47', expected '00 00 08'"),
        (WHOLE[:2] + b"\x0d" + WHOLE[3:], "begins with '00 00 0d 03'"),  # floats
        (gzip.compress(WHOLE)[:-9], "cannot be read .*download it again"),
        (gzip.compress(WHOLE)[:12] + b"?" * 20, "cannot be read .*download it again"),
    ],
    ids=[
        "cut",
        "longer",
        "cut in its head",
        "cut in its magic",
        "empty",
        "picture",
        "floats",
        "cut when packed",
        "broken when packed",
    ],
)
def test_a_file_that_is_cut_or_something_else_is_named(content, message, tmp_path):
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte.gz .*{message}"):
        read_idx(file)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(ValueError, match=f"{message}.*MNIST: download train-images"):
        data.load("mnist", 32, root=tmp_path)


def rewritten(root: Path, name: str, array: np.ndarray) -> None:
    (root / name).write_bytes(idx(array))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(19, np.uint8), r"shape \(20, 28, 28\) .* the shape \(19,\), expected"),
        (np.zeros((20, 1), np.uint8), r"the shape \(20, 1\), expected .*\(n,\)"),
        (np.full(20, 10, np.uint8), "holds labels up to 10, expected 0 to 9"),
    ],
)
def test_labels_of_other_images_are_refused(labels, message, tmp_path):
    mnist_files(tmp_path, 20, packed=False)
    rewritten(tmp_path, "train-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match=message):
        data.load("mnist", 32, root=tmp_path)


def test_what_is_missing_is_said_with_what_to_download(tmp_path):
    with pytest.raises(ValueError, match="needs files.*--data.*MNIST: download train-images"):
        data.load("mnist", 32)
    with pytest.raises(ValueError, match="has no train-images-idx3-ubyte. MNIST: download"):
        data.load("mnist", 32, root=tmp_path)
    mnist_files(tmp_path, 20)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"lacks train-labels-idx1-ubyte \(or .*download"):
        data.load("mnist", 32, root=tmp_path)


def test_what_cannot_be_used_is_refused(tmp_path):
    mnist_files(tmp_path, 9)
    with pytest.raises(ValueError, match="holds 9 training digits, expected at least 10"):
        data.load("mnist", 32, root=tmp_path)
    with pytest.raises(ValueError, match="mirrors digits"):
        data.load("mnist", 32, flip=True, root=tmp_path)
    mnist_files(tmp_path, 10)
    with pytest.raises(ValueError, match=r"size=16 for digits of \(28, 28\) pixels"):
        data.load("mnist", 16, root=tmp_path)

"""Image sources: seeded, whole, and honest about what could not be read."""

import sys

import numpy as np
import pytest
from PIL import Image

from pretrain import data


def test_a_face_depends_on_its_seed_and_number_alone():
    some, attributes = data.faces(20, seed=3)
    more, more_attributes = data.faces(40, seed=3)
    assert np.array_equal(some, more[:20]) and np.array_equal(attributes, more_attributes[:20])
    assert not np.array_equal(some, data.faces(20, seed=4)[0])


@pytest.mark.parametrize("size", [32, 64, 128])
def test_faces_are_images_of_the_size_asked_for(size):
    images, attributes = data.faces(12, size)
    assert images.shape == (12, 3, size, size) and images.dtype == np.uint8
    assert attributes.shape == (12, len(data.FACE_ATTRIBUTES))
    assert np.abs(attributes).max() <= 1
    assert all(image.std() > 20 for image in images), "a picture, not a blank"
    pairs = np.abs(images[:, None].astype(int) - images[None]).mean((2, 3, 4))
    assert (pairs + 99 * np.eye(12)).min() > 5, "no two alike"


def test_the_same_face_at_two_sizes_is_the_same_face():
    small, large = data.faces(30, 32)[0], data.faces(30, 128)[0]
    shrunk = large.reshape(30, 3, 32, 4, 32, 4).mean((3, 5))
    assert np.abs(shrunk - small).mean() < 6


def test_attributes_say_what_is_seen():
    """The corner's colour tells the background's, linearly."""
    images, attributes = data.faces(200)
    corner = np.c_[images[:, :, 1, 1] / 255, np.ones(200)]
    at = [data.FACE_ATTRIBUTES.index(f"background_{c}") for c in ("red", "green", "blue")]
    weights = np.linalg.lstsq(corner[:150], attributes[:150, at], rcond=None)[0]
    error = attributes[150:, at] - corner[150:] @ weights
    assert (error.var(0) < 0.25 * attributes[:, at].var(0)).all()


def test_what_stands_far_apart_agrees():
    """Hat and shirt share a colour: that of the bottom row shows under the crown."""
    images, attributes = data.faces(300)
    hats = images[(attributes[:, data.FACE_ATTRIBUTES.index("hat")] > 0)].astype(float)
    shirt, crown = hats[:, :, 31, 16], hats[:, :, 6, 16]
    own = np.abs(shirt - crown).mean(1)
    others = np.abs(shirt - np.roll(crown, 1, 0)).mean(1)
    assert len(hats) > 40 and np.median(own) < 0.5 * np.median(others)


def test_splits_are_disjoint_and_cover_all():
    for images in (data.load("faces", 32, count=50), data.load("digits", 32)):
        ends = [images.splits[name] for name in ("train", "validation", "test")]
        assert ends[0][0] == 0 and ends[-1][1] == len(images.images)
        assert all(a < b for a, b in ends)
        assert ends[0][1] == ends[1][0] and ends[1][1] == ends[2][0]
        assert images.targets is not None and len(images.targets) == len(images.images)


def test_digits_are_the_real_ones():
    digits = data.load("digits", 32)
    assert digits.images.shape == (1797, 3, 32, 32)
    assert [b - a for a, b in digits.splits.values()] == [1200, 297, 300]
    assert sorted(set(digits.targets)) == list(range(10))
    from sklearn.datasets import load_digits

    small = load_digits().images
    shrunk = np.array([i[0].reshape(8, 4, 8, 4).mean((1, 3)) for i in digits.images[:20]]) / 16
    nearest = [np.abs(small - image).mean((1, 2)).min() for image in shrunk]
    assert max(nearest) < 1.5  # of 16 greys: each is one of the set


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "below").mkdir()
    for i in range(12):
        noise = rng.integers(0, 255, (40 + i, 60, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / ("below" if i % 2 else ".") / f"{i}.png")
    return tmp_path


def test_a_folder_is_read_with_all_below_it(folder):
    images = data.load(str(folder), 16)
    assert images.images.shape == (12, 3, 16, 16) and images.images.dtype == np.uint8
    assert images.skipped == [] and images.targets is None
    again = data.load(str(folder), 16)
    assert np.array_equal(images.images, again.images)
    assert not np.array_equal(images.images, data.load(str(folder), 16, seed=1).images)


def test_unreadable_files_are_skipped_counted_and_named(folder):
    (folder / "text.png").write_text("no picture")
    whole = folder / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    whole.write_bytes(whole.read_bytes()[:900])
    (folder / "notes.txt").write_text("not even an image's name")
    with pytest.warns(UserWarning, match=r"2 of 14 files .*cut\.jpg.*text\.png"):
        images = data.load(str(folder), 16)
    assert len(images.images) == 12 and len(images.skipped) == 2


def test_flip_doubles_the_training_part_only(folder):
    plain, flipped = data.load(str(folder), 16), data.load(str(folder), 16, flip=True)
    train = plain.splits["train"][1]
    assert flipped.splits["train"] == (0, 2 * train)
    assert np.array_equal(flipped.images[train : 2 * train], plain.images[:train, :, :, ::-1])
    for part in ("validation", "test"):
        a, b = (x.images[slice(*x.splits[part])] for x in (plain, flipped))
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="digits"):
        data.load("digits", 32, flip=True)


def test_folders_that_cannot_serve_are_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="no folder"):
        data.load(str(tmp_path / "nowhere"), 32)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="0 readable images"):
        data.load(str(empty), 32)
    with pytest.raises(ValueError, match="5 readable images"):
        data.load(str(folder), 32, count=5)
    with pytest.raises(ValueError, match="at least 8"):
        data.load("faces", 4)
    with pytest.raises(ValueError, match="at least 10"):
        data.load("faces", 32, count=3)


def test_a_picture_too_large_to_open_is_skipped_not_fatal(folder, monkeypatch):
    Image.new("RGB", (200, 200)).save(folder / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # Pillow refuses twice as many
    with pytest.warns(UserWarning, match=r"1 of 13 files .*huge\.png"):
        images = data.load(str(folder), 16)
    assert len(images.images) == 12


def test_a_folders_parts_share_no_image(folder):
    images = data.load(str(folder), 16).images
    assert len({image.tobytes() for image in images}) == 12


def test_digits_keep_their_own_classes():
    from sklearn.datasets import load_digits

    found, small = load_digits(), data.load("digits", 8)
    classes = {
        (image * (255 / 16)).astype(np.uint8).tobytes(): target
        for image, target in zip(found.images, found.target, strict=True)
    }
    assert small.targets is not None
    assert [classes.pop(image[0].tobytes()) for image in small.images] == small.targets.tolist()
    assert not classes  # each once, so the parts are disjoint


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'ral-env\[pretrain\]'"):
        data.load("digits", 32)


def test_a_face_past_a_batch_depends_on_its_number_alone():
    images, attributes = data.faces(600, 8)
    fewer, fewer_attributes = data.faces(520, 8)
    assert np.array_equal(images[:520], fewer)
    assert np.array_equal(attributes[:520], fewer_attributes)
    assert len({image.tobytes() for image in images}) == 600  # no repeats
    assert attributes.std(0).min() > 0.1  # each attribute varies


def person(**changes) -> dict[str, np.ndarray]:
    """Parameters of one upright bare face in even light, with some changed."""
    known = data._person(np.random.default_rng(0)) | {
        "turn": 0.0, "tilt": 0.0, "x": 0.0, "y": 0.0, "scale": 0.0, "light": 0.0,
        "openness": 1.0, "glasses": False, "beard": False, "hat": 0, "style": 0,
        "mouth_open": 0.0, "smile": 1.0, "background_rgb": np.array([10.0, 20, 30]),
    }  # fmt: skip
    return {key: np.array([value]) for key, value in (known | changes).items()}


@pytest.mark.parametrize(
    "change",
    [
        {"turn": 1.0}, {"tilt": 1.0}, {"x": 1.0}, {"y": 1.0}, {"scale": 1.0}, {"light": 1.0},
        {"openness": -1.0}, {"spacing": -1.0}, {"smile": -1.0}, {"mouth_open": 1.0},
        {"glasses": True}, {"beard": True}, {"hat": 1}, {"hat": 2},
        *({"style": i} for i in range(1, 6)),
        {"skin_rgb": np.array([9.0, 9, 9])}, {"eye_rgb": np.array([255.0, 0, 0])},
        {"shirt_rgb": np.array([9.0, 9, 9])}, {"background_rgb": np.array([9.0, 90, 9])},
    ],
    ids=lambda change: "-".join(f"{k}_{v}" if np.isscalar(v) else k for k, v in change.items()),
)  # fmt: skip
def test_each_attribute_shows_in_the_pixels(change):
    plain, changed = (data._paint(person(**known), 32).astype(int) for known in ({}, change))
    assert (np.abs(plain - changed).max(1) > 16).sum() >= 3


@pytest.mark.parametrize("style", [0, 2, 4, 5])  # the others are parted on one side
@pytest.mark.parametrize("hat", range(3))
def test_the_two_halves_of_an_upright_face_agree(style, hat):
    """Colours must be carried across the whole face, further than a local model sees."""
    image = data._paint(person(style=style, hat=hat, glasses=True, beard=True), 32).astype(int)
    assert np.abs(image - image[..., ::-1]).max() <= 1  # rounding
    assert np.abs(image - image[..., ::-1, :]).max() > 100  # it is no flat picture


@pytest.mark.parametrize(
    ("options", "message"),
    [({"source": "faces", "flip": True}, "flip"), ({"source": "digits", "count": 0}, "count=0")],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.load(size=16, **options)

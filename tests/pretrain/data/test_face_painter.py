"""The face painter: seeded faces whose parts agree and whose attributes show."""

import numpy as np
import pytest
import torch

from pretrain import data
from pretrain.data.face_painter import PaintedFaces, _Canvas, draw_person, face_attributes, paint


def test_a_face_depends_on_its_seed_and_number_alone():
    few, attributes = data.faces(20, seed=3)
    more, more_attributes = data.faces(40, seed=3)
    assert np.array_equal(few, more[:20]) and np.array_equal(attributes, more_attributes[:20])
    assert not np.array_equal(few, data.faces(20, seed=4)[0])


def test_faces_that_are_painted_when_asked_for_are_those_that_are_painted_at_once():
    images, attributes = data.faces(700, 16, seed=3)
    later = PaintedFaces(600, 100, 16, seed=3)
    assert len(later) == 100 and torch.equal(later[:], torch.from_numpy(images[600:]))
    order = torch.tensor([99, 0, 7, 0])
    assert torch.equal(later[order], torch.from_numpy(images[600 + order.numpy()]))
    assert later[5:5].shape == (0, 3, 16, 16)
    with pytest.raises(IndexError):
        later[torch.tensor([100])]
    assert np.array_equal(face_attributes(700, seed=3), attributes)


def test_ten_times_as_many_faces_are_for_training_and_not_for_measuring():
    parts = {n: data.load("faces", 8, count=n).splits for n in (24_000, 100_000)}
    for split in ("validation", "tuning", "test"):
        sizes = [last - first for first, last in (found[split] for found in parts.values())]
        assert sizes[0] == sizes[1]
    assert parts[100_000]["train"][1] == 95_000


@pytest.mark.parametrize("size", [8, 32, 100])
def test_painting_only_where_it_shows_leaves_no_pixel_out(size, monkeypatch):
    images = PaintedFaces(0, 300, size, seed=1)[:]
    monkeypatch.setattr(_Canvas, "near", lambda canvas, *ellipse: canvas)
    assert torch.equal(images, PaintedFaces(0, 300, size, seed=1)[:])
    alone = torch.cat([PaintedFaces(number, 1, size, seed=1)[:] for number in range(20)])
    assert torch.equal(images[:20], alone)


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
    same = np.abs(shirt - crown).mean(1)
    others = np.abs(shirt - np.roll(crown, 1, 0)).mean(1)
    assert len(hats) > 40 and np.median(same) < 0.5 * np.median(others)


def test_a_tinted_face_is_a_face_in_one_hue_that_its_style_names():
    images = data.load("tinted-faces", 16, count=160, seed=3)
    pixels = torch.cat([images.part(p)[:] for p in images.parts]).numpy().astype(np.float64) / 255
    assert images.styles is not None
    tints = np.concatenate(list(images.styles.values()))
    assert (np.bincount(tints) == 20).all(), "all equally often"
    red, green, blue = pixels.transpose(1, 0, 2, 3)
    i = 0.596 * red - 0.274 * green - 0.322 * blue
    q = 0.211 * red - 0.523 * green + 0.312 * blue
    found = np.arctan2(q.mean((1, 2)), i.mean((1, 2))) / (2 * np.pi / data.TINTS)
    assert np.abs((found - tints + 4) % 8 - 4).max() < 0.5, "nearer to its own hue than to others"
    # Brightness is the plain face's, but where a colour does not fit into RGB.
    plain, tinted = (np.tensordot([0.299, 0.587, 0.114], x, (0, 1)) for x in (
        data.faces(160, 16, seed=3)[0] / 255, pixels))  # fmt: skip
    assert np.abs(plain - tinted).mean() < 0.02


def test_a_face_past_a_batch_depends_on_its_number_alone():
    images, attributes = data.faces(600, 8)
    fewer, fewer_attributes = data.faces(520, 8)
    assert np.array_equal(images[:520], fewer)
    assert np.array_equal(attributes[:520], fewer_attributes)
    assert len({image.tobytes() for image in images}) == 600  # no repeats
    assert attributes.std(0).min() > 0.1  # each attribute varies


def person(**changes) -> dict[str, np.ndarray]:
    """Parameters of one upright bare face in even light, with some changed."""
    known = draw_person(np.random.default_rng(0)) | {
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
    plain, changed = (paint(person(**known), 32).astype(int) for known in ({}, change))
    assert (np.abs(plain - changed).max(1) > 16).sum() >= 3


@pytest.mark.parametrize("style", [0, 2, 4, 5])  # the others are parted on one side
@pytest.mark.parametrize("hat", range(3))
def test_the_two_halves_of_an_upright_face_agree(style, hat):
    """Colours must be carried across the whole face, further than a local model sees."""
    image = paint(person(style=style, hat=hat, glasses=True, beard=True), 32).astype(int)
    assert np.abs(image - image[..., ::-1]).max() <= 1  # rounding
    assert np.abs(image - image[..., ::-1, :]).max() > 100  # it is no flat picture

"""Image sources: seeded, whole, read when asked, honest about what could not be read."""

import gc
import hashlib
import io
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pretrain import vqvae
from pretrain.data import sources as data
from pretrain.recipes import RECIPES
from pretrain.vqvae import VQVAETraining
from ral_env.images import read
from ral_env.nets import VQVAEConfig


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


def all_of(images: data.Images) -> np.ndarray:
    return images.whole[:].numpy()


def test_splits_are_disjoint_and_cover_all():
    for images in (data.load("faces", 32, count=50), data.load("digits", 32)):
        ends = [images.splits[name] for name in ("train", "validation", "test")]
        assert ends[0][0] == 0 and ends[-1][1] == len(images.whole)
        assert all(a < b for a, b in ends)
        assert ends[0][1] == ends[1][0] and ends[1][1] == ends[2][0]
        assert images.targets is not None
        for name, (a, b) in images.splits.items():
            assert len(images.part(name)) == len(images.targets[name]) == b - a
    with pytest.raises(ValueError, match="part 'valid', expected one of"):
        images.part("valid")


def test_digits_are_the_real_ones():
    digits = data.load("digits", 32)
    assert all_of(digits).shape == (1797, 3, 32, 32)
    assert [b - a for a, b in digits.splits.values()] == [1200, 297, 300]
    assert digits.targets is not None
    assert sorted(set(np.concatenate(list(digits.targets.values())))) == list(range(10))
    from sklearn.datasets import load_digits

    small = load_digits().images
    shrunk = np.array([i[0].reshape(8, 4, 8, 4).mean((1, 3)) for i in all_of(digits)[:20]]) / 16
    nearest = [np.abs(small - image).mean((1, 2)).min() for image in shrunk]
    assert max(nearest) < 1.5  # of 16 greys: each is one of the set


# --- image sets ---


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "below").mkdir()
    for i in range(12):
        noise = rng.integers(0, 255, (40 + i, 60, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / ("below" if i % 2 else ".") / f"{i}.png")
    return tmp_path


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


@pytest.mark.parametrize("kind", ["faces", "folder", "flipped", "whole", "tensor"])
def test_image_sets_are_indexed_as_a_tensor_is(kind, folder):
    images = (
        data.load("faces", 16, count=60)
        if kind in ("faces", "tensor")
        else data.load(folder, 16, flip=kind == "flipped")
    )
    part = images.whole if kind in ("whole", "tensor") else images.part("train")
    everything = part[:]
    found = everything if kind == "tensor" else part
    assert everything.dtype == torch.uint8 and everything.shape == (len(part), 3, 16, 16)
    for index in (slice(2, 5), slice(7, None, 2), slice(5, 5), slice(8, 10**9),
                  torch.tensor([3, 0, 3]), torch.tensor([-1]),
                  torch.tensor([], dtype=torch.int64)):  # fmt: skip
        assert torch.equal(found[index], everything[index])
    with pytest.raises(IndexError):
        found[torch.tensor([len(part)])]
    if kind != "tensor":
        assert part.size == 16
        copy = pickle.loads(pickle.dumps(part))
        assert torch.equal(copy[:], everything), "what another process gets"


def test_a_folder_is_read_with_all_below_it(folder):
    images = data.load(str(folder), 16)
    assert images.name == f"12 images of folder {folder.name}" and images.targets is None
    assert all_of(images).shape == (12, 3, 16, 16)
    # As files, not as images, they were opened by the reader that everything else uses.
    expected = {read(file, 16).tobytes() for file in folder.rglob("*.png")}
    assert {image.tobytes() for image in all_of(images)} == expected
    assert np.array_equal(all_of(images), all_of(data.load("folder", 16, root=folder)))
    assert not np.array_equal(all_of(images), all_of(data.load(folder, 16, seed=1)))


def test_nothing_of_a_large_folder_is_read_before_it_is_asked_for(folder, monkeypatch):
    monkeypatch.setattr(data, "LOOKED_AT", 11)
    asked = []
    monkeypatch.setattr(data, "read", lambda file, *rest: asked.append(file) or read(file, *rest))
    train = data.load(folder, 16).part("train")
    assert not asked
    train[torch.tensor([3, 1])]
    assert [os.fsencode(file.relative_to(folder)) for file in asked] == list(train.names[[3, 1]])


def test_processes_that_read_ahead_read_the_same(folder):
    """A VQ-VAE learns the same from lazy images as from a tensor, whoever reads them."""
    images = data.load(folder, 16, flip=True)
    config = VQVAEConfig(16, 8, 4, layers=1, num_codes=8, code_dim=3)

    def weights(train, workers):
        settings = VQVAETraining(steps=4, batch=6, workers=workers)
        return vqvae.fit(config, train, images.part("validation"), settings)[0].state_dict()

    expected = weights(images.part("train")[:], 0)
    for workers in (0, 2):
        found = weights(images.part("train"), workers)
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_broken_files_of_a_folder_are_left_out_counted_and_named(folder):
    whole = data.load(folder, 16)
    (folder / "broken.png").write_text("no picture")
    (folder / "cut.png").write_bytes(
        (folder / os.fsdecode(whole.part("train").names[0])).read_bytes()[:60]
    )
    with pytest.warns(UserWarning, match=r"2 of 14 files .* broken.png \(.*; cut.png \("):
        found = data.load(folder, 16)
    assert found.splits == whole.splits
    for part in whole.parts:
        assert torch.equal(found.part(part)[:], whole.part(part)[:])


def test_a_file_that_cannot_be_read_gives_way_to_the_next_and_is_named(folder):
    whole = data.load(folder, 16).part("train")
    broken = folder / os.fsdecode(whole.names[3])
    expected = whole[torch.tensor([4, 4, 4])]
    for content in (b"no picture", broken.read_bytes()[:900]):
        broken.write_bytes(content)
        with pytest.warns(UserWarning, match=f"{broken.name} cannot be read .*next image stands"):
            assert torch.equal(whole[torch.tensor([3, 4, 3])], expected)
    for name in whole.names:
        (folder / os.fsdecode(name)).write_text("no picture")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(ValueError, match="10 images in a row cannot be read"),
    ):
        whole[:1]


def test_a_picture_too_large_to_open_gives_way_too(folder, monkeypatch):
    train = data.load(folder, 16).part("train")
    Image.new("RGB", (200, 200)).save(folder / os.fsdecode(train.names[0]))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # Pillow refuses twice as many
    with pytest.warns(UserWarning, match=r"cannot be read"):
        assert torch.equal(train[:1], train[1:2])


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
    with pytest.raises(ValueError, match="0 files"):
        data.load(str(empty), 32)
    with pytest.raises(
        ValueError, match="0 cannot be read and 5 are to be used: expected at least 10"
    ):
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


# --- published data sets, in the layouts that they are published in ---


def celeba_files(root: Path, monkeypatch) -> dict[str, list[int]]:
    """Twelve images of 178 x 218 whose middle 140 x 140 has a grey of its own, in a white frame;
    returns the greys of each part."""
    from torchvision.datasets import CelebA

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
    # torchvision knows the published files by their hashes.
    ours = {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in place.glob("*.txt")}
    known = [(where, ours.get(name, md5), name) for where, md5, name in CelebA.file_list]
    monkeypatch.setattr(CelebA, "file_list", known)
    return {
        name: [15 * n for n, part in enumerate(parts) if part == number]
        for number, name in enumerate(("train", "validation", "test"))
    }


@pytest.mark.parametrize("given", [".", "celeba"])
def test_celeba_comes_in_its_own_split_with_the_fields_crop(given, tmp_path, monkeypatch):
    greys = celeba_files(tmp_path, monkeypatch)
    images = data.load("celeba", 64, root=tmp_path / given)
    assert images.name == "CelebA, its own split, middle 140 pixels: 12 images"
    for name, expected in greys.items():
        found = images.part(name)[:].float()
        # The crop ends where the white frame begins: JPEG blurs it by some pixels.
        assert found[:, :, 8:-8, 8:-8].mean((1, 2, 3)).tolist() == pytest.approx(expected, abs=2)
        assert (found.mean((1, 2, 3)) - torch.tensor(expected)).abs().max() < 4
        assert pickle.loads(pickle.dumps(images.part(name)))[:1].shape == (1, 3, 64, 64)
    flipped = data.load("celeba", 64, root=tmp_path, flip=True, count=4)
    assert [len(part) for part in flipped.parts.values()] == [8, 3, 3]


def test_celeba_that_is_not_whole_says_what_to_download(tmp_path, monkeypatch):
    celeba_files(tmp_path, monkeypatch)
    partition = tmp_path / "celeba" / "list_eval_partition.txt"
    text = partition.read_text()
    partition.unlink()
    with pytest.raises(ValueError, match=r"lacks list_eval_partition\.txt.*img_align_celeba\.zip"):
        data.load("celeba", 64, root=tmp_path)
    partition.write_text(text + "\n")
    with pytest.raises(ValueError, match="not the published one"):
        data.load("celeba", 64, root=tmp_path)
    with pytest.raises(ValueError, match=r"needs files.*--data.*DIR/celeba/img_align_celeba"):
        data.load("celeba", 64)


@pytest.mark.parametrize("source", ["celeba", "lsun-bedroom"])
def test_a_plain_folder_serves_for_a_published_set_and_the_name_says_so(source, folder):
    images = data.load(source, 16, root=folder)
    assert images.name == f"12 images of folder {folder.name}"
    assert np.array_equal(all_of(images), all_of(data.load(folder, 16)))
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="0 files.*download"):
        data.load(source, 16, root=folder / "empty")


def bedroom_files(root: Path) -> dict[str, dict[bytes, bytes]]:
    """Databases of images of 256 x 340, as LSUN has them: their files by their keys."""
    lmdb = pytest.importorskip("lmdb")
    rng = np.random.default_rng(0)
    written: dict[str, dict[bytes, bytes]] = {}
    for name, count in (("train", 40), ("val", 3)):
        environment = lmdb.open(str(root / f"bedroom_{name}_lmdb"), map_size=2**24)
        written[name] = {}
        with environment.begin(write=True) as transaction:
            for i in range(count):
                noise = rng.integers(0, 255, (8, 10, 3), np.uint8).repeat(32, 0).repeat(34, 1)
                stream = io.BytesIO()
                Image.fromarray(noise).save(stream, "JPEG", quality=75)
                key = hashlib.sha1(f"{name}{i}".encode()).hexdigest().encode()
                written[name][key] = stream.getvalue()
                transaction.put(key, stream.getvalue())
        environment.close()
    return written


def test_bedrooms_are_the_databases_images(tmp_path, monkeypatch):
    from torchvision.datasets import LSUN

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
    own = {name: {i.tobytes() for i in part[:].numpy()} for name, part in images.parts.items()}
    assert own["validation"] == expected["val"]
    assert len(own["train"]) == 38 and len(own["test"]) == 2 and not own["train"] & own["test"]
    assert own["train"] | own["test"] == expected["train"]
    again = data.load("lsun-bedroom", 32, root=tmp_path, flip=True, count=5)
    assert [len(part) for part in again.parts.values()] == [10, 3, 2]
    assert torch.equal(again.part("train")[5:], again.part("train")[:5].flip(3))
    other = data.load("lsun-bedroom", 32, root=tmp_path, seed=1)
    assert not torch.equal(other.part("test")[:], images.part("test")[:])


def test_bedrooms_are_read_in_other_processes(tmp_path):
    bedroom_files(tmp_path)
    train = data.load("lsun-bedroom", 32, root=tmp_path).part("train")
    expected = train[:]  # opened in this process before the others are forked
    loader = DataLoader(
        train, batch_size=None, sampler=[slice(0, 20), slice(20, 38)], num_workers=2,
        generator=torch.Generator(),
    )  # fmt: skip
    assert torch.equal(torch.cat(list(loader)), expected)
    assert torch.equal(pickle.loads(pickle.dumps(train))[:], expected)


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
    data._opened.cache_clear()
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


# --- made images ---


def test_digits_keep_their_own_classes():
    from sklearn.datasets import load_digits

    found, small = load_digits(), data.load("digits", 8)
    classes = {
        (image * (255 / 16)).astype(np.uint8).tobytes(): target
        for image, target in zip(found.images, found.target, strict=True)
    }
    assert small.targets is not None
    targets = np.concatenate([small.targets[name] for name in small.parts])
    assert [classes.pop(image[0].tobytes()) for image in all_of(small)] == targets.tolist()
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

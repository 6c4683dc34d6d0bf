"""Image sets: indexed as a tensor is, read when asked, honest about what could not be read."""

import pickle
import struct
import zlib
from typing import Any, cast

import pytest
import torch
from image_files import bedroom_files, image_folder, training_files
from torch.utils.data import DataLoader

from pretrain import data, vqvae
from pretrain.configs import VQVAETraining
from pretrain.data import image_sets, sources
from ral_env.images import read
from ral_env.nets import VQVAEConfig

# A data loader warns of more processes than there are cores.
on_one_core_too = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


@pytest.mark.parametrize("kind", ["faces", "folder", "flipped", "slice", "whole", "tensor"])
def test_image_sets_are_indexed_as_a_tensor_is(kind, folder):
    images = (
        data.load("faces", 16, count=60)
        if kind in ("faces", "tensor")
        else data.load(folder, 16, flip=kind == "flipped")
    )
    part = images.whole if kind in ("whole", "tensor") else images.part("train")
    part = image_sets.Slice(part, 1, 9) if kind == "slice" else part
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


def test_nothing_of_a_large_folder_is_read_before_it_is_asked_for(folder):
    """Files that cannot be read would be warned of, and warnings are errors."""
    contents = {file: file.read_bytes() for file in folder.rglob("*.png")}
    for file in contents:
        file.write_text("no picture")
    images = sources.folder(folder, 16, checked=11)
    names, train = training_files(images), images.part("train")
    asked = [folder / names[3], folder / names[1]]
    for file in asked:
        file.write_bytes(contents[file])
    found = train[torch.tensor([3, 1])]
    assert [image.tobytes() for image in found.numpy()] == [read(f, 16).tobytes() for f in asked]


@on_one_core_too
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


def test_a_file_that_cannot_be_read_gives_way_to_the_next_and_is_named(folder):
    images = data.load(folder, 16)
    names, whole = training_files(images), images.part("train")
    broken = folder / names[3]
    expected = whole[torch.tensor([4, 4, 4])]
    for content in (b"no picture", broken.read_bytes()[:900]):
        broken.write_bytes(content)
        with pytest.warns(UserWarning, match=f"{broken.name} cannot be read .*next image stands"):
            assert torch.equal(whole[torch.tensor([3, 4, 3])], expected)
    for name in names:
        (folder / name).write_text("no picture")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(ValueError, match="10 images in a row cannot be read"),
    ):
        whole[:1]


def huge_png() -> bytes:
    """A PNG that claims 20,000 x 20,000 pixels: more than Pillow agrees to open."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def test_a_picture_too_large_to_open_gives_way_too(folder):
    images = data.load(folder, 16)
    train = images.part("train")
    (folder / training_files(images)[0]).write_bytes(huge_png())
    with pytest.warns(UserWarning, match=r"cannot be read \(.*decompression bomb"):
        assert torch.equal(train[:1], train[1:2])


@on_one_core_too
def test_bedrooms_are_read_in_other_processes(tmp_path):
    bedroom_files(tmp_path)
    train = data.load("lsun-bedroom", 32, root=tmp_path).part("train")
    expected = train[:]  # opened in this process before the others are forked
    loader = DataLoader(
        cast(Any, train), batch_size=None, sampler=[slice(0, 20), slice(20, 38)], num_workers=2,
        generator=torch.Generator(),
    )  # fmt: skip
    assert torch.equal(torch.cat(list(loader)), expected)
    assert torch.equal(pickle.loads(pickle.dumps(train))[:], expected)

"""Small image files in the layouts that data sets are published in."""

import gzip
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.data import Images
from pretrain.data.image_sets import Files


def all_of(images: Images) -> np.ndarray:
    """The images of all splits, uint8 (N, 3, S, S)."""
    return images.whole[:].numpy()


def training_files(images: Images) -> list[str]:
    """Names of a folder's files whose images are the training split, in its order."""
    train = images.part("train")
    assert isinstance(train, Files)
    return [os.fsdecode(name) for name in train.names]


def image_folder(root: Path) -> Path:
    """Twelve noise images of 60 x 40 to 60 x 51, half of them in a folder below."""
    rng = np.random.default_rng(0)
    (root / "below").mkdir()
    for i in range(12):
        noise = rng.integers(0, 255, (40 + i, 60, 3), np.uint8)
        Image.fromarray(noise).save(root / ("below" if i % 2 else ".") / f"{i}.png")
    return root


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


def idx(array: np.ndarray) -> bytes:
    """A uint8 array in MNIST's idx format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def mnist_files(
    root: Path, count: int, side: int = 28, part: str = "train", packed: bool = True, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Noise images (count, side, side) and labels from 0 to 9 (count,), as MNIST's files of a part
    (``train`` or ``t10k``), which overwrite others."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side), np.uint8)
    labels = rng.integers(0, 10, count, np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        file = root / f"{part}-{name}-ubyte"
        if packed:
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(idx(array), 1))
        else:
            file.write_bytes(idx(array))
    return images, labels

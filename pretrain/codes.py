"""Stage 2's data: the codes of all images, in one file that is written and read a part at a time.

``codes.npy`` holds flat codes (N, length), uint8 or uint16, and ``codes.npy.json`` beside it says
of which VQ-VAE and images they are, and which rows are written. While several processes write,
each of the others keeps a ``codes.npy.RANK.json`` of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from agents.training.files import Row, write_whole
from agents.training.processes import Processes
from pretrain.data import Pixels
from pretrain.vqvae import chunk, encode
from ral_env.bundle import codes_dtype
from ral_env.layout import CodeLayout
from ral_env.nets import VQVAE

Span = tuple[int, int]  # first row, last + 1


def extract(
    vqvae: VQVAE,
    images: Pixels,
    file: str | os.PathLike[str],
    *,
    batch: int | None = None,
    device: str | torch.device = "cpu",
    processes: Processes | None = None,
    workers: int = 0,
    log: Callable[[Row], None] | None = None,
    label: str = "",
) -> np.ndarray:
    """Write the codes of all images to a file; go on where a cut run had come to.

    A row is said to be written only when it is on disk, so the run may be killed at any time: with
    the same ``batch`` and device the file that comes out is the same, to the byte. It is also the
    same for any number of processes, each of which writes a contiguous share of the rows.

    Args:
        vqvae: on the device and in eval mode afterwards.
        images: uint8 (N, 3, S, S).
        file: ends in ``.npy``.
        batch: images encoded at a time; None is 512 of 32 pixels, in proportion.
        device: where to compute, if ``processes`` does not say it.
        processes: those that share the work; None is those that ``torchrun`` has started.
        workers: processes that read images ahead, for each process.
        log: called up to ten times with ``step`` (images of this process that are done),
            ``seconds`` and ``images_per_second``.
        label: shows a progress bar of that name; none if empty.

    Returns:
        Flat codes (N, length), top first: a read-only memory map, uint8 for up to 256 codes, else
        uint16. Whole once every process has returned.

    Raises:
        ValueError: if there are no images, ``file`` is there and of another VQ-VAE or other images,
            or nothing beside it says of which.
    """
    file = Path(file)
    count, config = len(images), vqvae.config
    batch = batch or (chunk(images) if count else 1)
    if count < 1 or batch < 1:
        raise ValueError(f"{count} images, batch={batch}: expected at least 1 of both")
    processes = processes or Processes(device)
    vqvae.to(processes.device).eval()
    layout = CodeLayout(config.grids, config.num_codes)
    identity = {"vqvae": weights_hash(vqvae), "images": count, "sample": _sample_hash(images)}
    if processes.rank == 0:
        _begin(file, identity, (count, layout.length), codes_dtype(config.num_codes))
    processes.barrier()
    done = _written(file, identity)
    own = _own(count, batch, processes)
    missing = [span for span in own if not any(a <= span[0] and span[1] <= b for a, b in done)]
    # Not through a memory map: its pages would count as this process's memory, and a full disk
    # would end it without a word.
    stored = np.load(file, mmap_mode="r")
    dtype, start, width = stored.dtype, stored.offset, stored.nbytes // count
    loader = DataLoader(
        images,  # type: ignore[arg-type]  # it is indexed with what the sampler gives: slices
        batch_size=None,
        sampler=[slice(*span) for span in missing],
        num_workers=workers,
        generator=torch.Generator(),  # leaves the global one as it is
    )
    began, finished = time.perf_counter(), 0
    bar = tqdm(
        total=sum(b - a for a, b in own),
        initial=sum(b - a for a, b in own) - sum(b - a for a, b in missing),
        desc=label,
        unit="image",
        disable=not label or processes.rank > 0,
    )
    with bar, file.open("r+b") as stream:
        for number, (span, part) in enumerate(zip(missing, loader, strict=True), start=1):
            codes = encode(vqvae, part).cpu().numpy().astype(dtype)
            stream.seek(start + span[0] * width)
            stream.write(codes.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
            done = _merged([*done, span])
            _say(file, processes.rank, identity, done)
            finished += len(codes)
            bar.update(len(codes))
            if log and processes.rank == 0 and number % -(-len(missing) // 10) == 0:
                seconds = time.perf_counter() - began
                log({"step": finished, "seconds": seconds, "images_per_second": finished / seconds})
    processes.barrier()
    if processes.rank == 0:
        _say(file, 0, identity, _written(file, identity))
        for side in _sides(file):
            if side != _side(file, 0):
                side.unlink()
    return stored


class Grids:
    """A level's codes in a file, as int64 grids (n, h, w): ``grids[index]`` reads them.

    They serve as training codes where a tensor (N, h, w) does. Indices are an integer, a slice or
    an int64 tensor (n,).
    """

    def __init__(self, file: str | os.PathLike[str], layout: CodeLayout, level: int, rows: Span):
        # What a copy in another process is made of: a pickled memory map carries its data along.
        self._of = (file, layout, level, rows)
        self.stored = layout.unflatten(np.load(file, mmap_mode="r")[slice(*rows)])[level]

    def __reduce__(self) -> Any:
        return Grids, self._of

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        found = self.stored[index.numpy() if isinstance(index, Tensor) else index]
        return torch.from_numpy(np.array(found, dtype=np.int64))


def weights_hash(net: nn.Module) -> str:
    """SHA-256 of names, shapes and values of all that a net's state holds, wherever it is."""
    found = hashlib.sha256()
    for name, value in net.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _sample_hash(images: Pixels) -> str:
    """SHA-256 of the first image and the last: other images of the same number are other data."""
    found = hashlib.sha256()
    for rows in (slice(0, 1), slice(len(images) - 1, len(images))):
        found.update(images[rows].contiguous().numpy().tobytes())
    return found.hexdigest()


def _own(count: int, batch: int, processes: Processes) -> list[Span]:
    """The batches of a process. They are cut alike for any number of processes."""
    batches = -(-count // batch)
    first, last = (batches * (processes.rank + i) // processes.count for i in (0, 1))
    return [(n * batch, min(count, (n + 1) * batch)) for n in range(first, last)]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


# --- side files ---


def _side(file: Path, rank: int) -> Path:
    return file.with_name(f"{file.name}.{rank}.json" if rank else f"{file.name}.json")


def _sides(file: Path) -> list[Path]:
    return [p for p in file.parent.glob("*.json") if p.name.startswith(f"{file.name}.")]


def _begin(file: Path, identity: dict[str, Any], shape: tuple[int, int], dtype: Any) -> None:
    """See that the file is there: of these images, or new. Its side file is there before it."""
    if file.exists():
        if not _sides(file):
            raise ValueError(
                f"{file} exists, and no {_side(file, 0).name} says of which VQ-VAE and images: "
                "choose another file, or remove it"
            )
        _written(file, identity)
        return
    for side in _sides(file):
        side.unlink()
    file.parent.mkdir(parents=True, exist_ok=True)
    _say(file, 0, identity, [])
    write_whole(file, lambda f: np.lib.format.open_memmap(f, "w+", dtype, shape).flush())


def _say(file: Path, rank: int, identity: dict[str, Any], done: list[Span]) -> None:
    said = json.dumps(identity | {"done": done})
    write_whole(_side(file, rank), lambda fresh: fresh.write_text(said))


def _written(file: Path, identity: dict[str, Any]) -> list[Span]:
    """The rows that any process has written."""
    done: list[Span] = []
    for side in _sides(file):
        try:
            found = json.loads(side.read_text())
            done += [(first, last) for first, last in found["done"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{side} cannot be read ({error!r}): remove it and {file} to begin anew"
            ) from error
        other = [name for name, value in identity.items() if found.get(name) != value]
        if other:
            told = {"vqvae": "another VQ-VAE", "images": f"{found.get('images')} images",
                    "sample": "other images"}  # fmt: skip
            raise ValueError(
                f"{file} has codes of {' and '.join(told[name] for name in other)}, expected this "
                f"VQ-VAE's of these {identity['images']} images: choose another file, or remove "
                f"it and {file.name}*.json to begin anew"
            )
    return _merged(done)

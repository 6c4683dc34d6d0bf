"""Stage 2: the codes of all images, in one file that is written and read a part at a time."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from agents.training.files import Row
from agents.training.processes import Processes
from agents.training.progress import progress_bar
from pretrain.code_file import CodeFile, Span
from pretrain.data import Images, Pixels
from pretrain.data.images import consecutive, tuning_size
from pretrain.pixels import chunk_size
from pretrain.stages import Pretraining
from pretrain.vqvae import encode
from ral_env.bundle import SPLITS, codes_dtype
from ral_env.layout import CodeLayout
from ral_env.nets import VQVAE


class StoredGrid:
    """A level's codes in a file, as int64 grids (n, h, w): ``grids[index]`` reads them.

    They serve as training codes where a tensor (N, h, w) does. Indices are an integer, a slice or
    an int64 tensor (n,).

    Args:
        file: Flat codes (N, length), a ``.npy``.
        layout: Says which of a row's codes are the level's.
        level: Number of the level, 0 for the coarsest.
        rows: First and last + 1 row.
    """

    def __init__(self, file: str | os.PathLike[str], layout: CodeLayout, level: int, rows: Span):
        # A copy in another process is made from these: a pickled memory map carries its data along.
        self._arguments = (file, layout, level, rows)
        self.stored = layout.unflatten(np.load(file, mmap_mode="r")[slice(*rows)])[level]

    def __reduce__(self) -> Any:
        return StoredGrid, self._arguments

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        found = self.stored[index.numpy() if isinstance(index, Tensor) else index]
        return torch.from_numpy(np.array(found, dtype=np.int64))


@dataclass(frozen=True)
class SplitCodes:
    """The real codes of a bundle, flat and as grids.

    Args:
        flat: All rows (N, length), coarsest level first.
        splits: First and last + 1 row of train, validation, tuning and test; there may be no
            tuning split.
        grids: For each split int64 grids (n, h, w), one per level, coarsest first. They need not
            be in memory: those of training images are :class:`StoredGrid`.
    """

    flat: np.ndarray
    splits: dict[str, Span]
    grids: dict[str, list[Any]]

    @classmethod
    def of_samples(cls, grids: Sequence[Tensor], layout: CodeLayout) -> SplitCodes:
        """Samples of an oracle (N, h, w), one grid per level.

        They are split 10 : 1 : 2 into train, validation and test; half of the validation samples
        are for tuning, see :func:`pretrain.data.images.tuning_size`.
        """
        count = len(grids[0])
        train, held_out = count * 10 // 13, count * 11 // 13 - count * 10 // 13
        tuning = tuning_size(held_out)
        sizes = {"train": train, "validation": held_out - tuning}
        sizes |= {"tuning": tuning} if tuning else {}
        splits = consecutive(sizes | {"test": count - train - held_out})
        return cls(
            layout.flatten([grid.numpy() for grid in grids]),
            splits,
            {name: [grid[slice(*rows)] for grid in grids] for name, rows in splits.items()},
        )

    def at_most(self, most: Sequence[int] | None) -> tuple[np.ndarray, dict[str, Span]]:
        """The first flat codes of each split, and their splits.

        Args:
            most: Largest numbers of train, validation and test codes; the second is that of tuning
                codes, too. None keeps all.
        """
        if most is None:
            return self.flat, self.splits
        numbers: dict[str, int] = dict(zip(SPLITS, most, strict=True))
        numbers["tuning"] = numbers["validation"]
        parts = {
            name: self.flat[slice(*rows)][: numbers[name]] for name, rows in self.splits.items()
        }
        sizes = {name: len(part) for name, part in parts.items()}
        return np.concatenate(list(parts.values())), consecutive(sizes)


def extract_codes(run: Pretraining, vqvae: VQVAE, images: Images) -> SplitCodes:
    """The stage: write the codes of all images to ``codes.npy`` in the work folder."""
    file = run.folder.path("codes.npy")
    flat = extract(
        vqvae,
        images.whole,
        file,
        processes=run.folder.processes,
        workers=run.recipe.vqvae_training.workers,
        label="codes",
    )
    vqvae.cpu()
    layout = CodeLayout(vqvae.config.grids, vqvae.config.num_codes)
    splits = images.splits
    grids: dict[str, list[Any]] = {
        name: layout.as_grids(flat[slice(*rows)])
        for name, rows in splits.items()
        if name != "train"
    }
    grids["train"] = [
        StoredGrid(file, layout, n, splits["train"]) for n in range(len(layout.levels))
    ]
    return SplitCodes(flat, splits, grids)


def remove_codes(run: Pretraining) -> None:
    """Remove the file from the work folder: the bundle has the codes."""
    for name in ("codes.npy", "codes.npy.json"):
        run.folder.path(name).unlink()


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
    """Write the codes of all images to a file; go on where a run was cut.

    Rows count as written only when they are on disk, so the run may be killed at any time: with
    the same ``batch`` and device the file that comes out is the same, to the byte. It is also the
    same for any number of processes, each of which writes a contiguous share of the rows.

    Args:
        vqvae: The net; on the device and in eval mode afterwards.
        images: uint8 images (N, 3, S, S).
        file: The file to write; its name ends in ``.npy``.
        batch: Number of images that are encoded at a time, see :func:`chunk_size` if None.
        device: Where to compute, if ``processes`` does not say it.
        processes: Those that share the work, by default those that ``torchrun`` has started.
        workers: Number of processes that read images ahead, for each process.
        log: Called up to ten times with ``step`` (number of images that this process has done),
            ``seconds`` and ``images_per_second``.
        label: Name of the progress bar; none is shown if empty.

    Returns:
        Flat codes (N, length), coarsest level first: a read-only memory map, uint8 for up to 256
        codes, else uint16. Whole once every process has returned.

    Raises:
        ValueError: If there are no images, ``file`` is there and of another VQ-VAE or other images,
            or nothing beside it says of which.
    """
    count, config = len(images), vqvae.config
    batch = batch or (chunk_size(images) if count else 1)
    if count < 1 or batch < 1:
        raise ValueError(f"{count} images, batch={batch}: expected at least 1 of both")
    processes = processes or Processes(device)
    vqvae.to(processes.device).eval()
    layout = CodeLayout(config.grids, config.num_codes)
    identity = {"vqvae": weights_hash(vqvae), "images": count, "sample": _sample_hash(images)}
    store = CodeFile(Path(file), identity, processes.rank)
    if processes.rank == 0:
        store.create((count, layout.length), codes_dtype(config.num_codes))
    processes.barrier()
    stored = store.open()
    share = _share(count, batch, processes)
    _write_codes(vqvae, images, store, share, workers, log, label, processes)
    processes.barrier()
    if processes.rank == 0:
        store.merge()
    return stored


def _write_codes(
    vqvae: VQVAE,
    images: Pixels,
    store: CodeFile,
    share: Sequence[Span],
    workers: int,
    log: Callable[[Row], None] | None,
    label: str,
    processes: Processes,
) -> None:
    """Encode and write what is still missing of a process's share."""
    missing = store.missing(share)
    loader = DataLoader(
        cast(Any, images),  # not a Dataset, but indexed with the slices that the sampler gives
        batch_size=None,
        sampler=[slice(*span) for span in missing],
        num_workers=workers,
        generator=torch.Generator(),  # leaves the global one as it is
    )
    to_do, all_rows = (sum(last - first for first, last in spans) for spans in (missing, share))
    name = label if processes.rank == 0 else ""
    bar = progress_bar(all_rows, name, "image", all_rows - to_do)
    began, finished = time.perf_counter(), 0
    with bar:
        for number, (span, part) in enumerate(zip(missing, loader, strict=True), start=1):
            codes = encode(vqvae, part).cpu().numpy()
            store.write(span, codes)
            finished += len(codes)
            bar.update(len(codes))
            if log and processes.rank == 0 and number % -(-len(missing) // 10) == 0:
                seconds = time.perf_counter() - began
                log({"step": finished, "seconds": seconds, "images_per_second": finished / seconds})


def _share(count: int, batch: int, processes: Processes) -> list[Span]:
    """The batches that a process encodes. They are cut alike for any number of processes."""
    batches = -(-count // batch)
    first, last = (batches * (processes.rank + i) // processes.count for i in (0, 1))
    return [(n * batch, min(count, (n + 1) * batch)) for n in range(first, last)]


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

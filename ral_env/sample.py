"""``ral sample``: images that a bundle's priors write, as a picture and as codes."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import gymnasium as gym
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import ral_env
from ral_env import migrations
from ral_env.bundle import Bundle
from ral_env.envs.options import torch_device
from ral_env.files import check_writable, write_bytes
from ral_env.nets import PixelCNN, backends, joint
from ral_env.nets.graph import GraphSampler
from ral_env.nets.resample import resample, score
from ral_env.picture import contact_sheet, to_bytes
from ral_env.ranges import COUNT, SEED, check_values
from ral_env.tasks import expect_ours

BACKENDS = ("auto", "native", "eager", "graph", "compiled")
CAPTURED = ("graph", "compiled")


def draw(
    bundle: Bundle,
    count: int,
    batch: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    backend: str = "auto",
    precision: str = "float32",
) -> list[Tensor]:
    """Sample whole canvases, one int64 tensor (count, h, w) for each level, coarsest first.

    Args:
        bundle: its priors sample, on the device that they are on.
        count: number of canvases.
        batch: number of canvases that are written together.
        temperature: divides the logits; 0 takes the likeliest code.
        generator: source of all randomness, on that device.
        backend: ``native`` or ``eager`` (:mod:`ral_env.nets.backends`), which the priors then keep;
            the steps of :class:`GraphSampler`, ``graph`` or ``compiled``; or ``auto``, which leaves
            it to the priors.
        precision: ``float32``, or for :class:`GraphSampler` ``bfloat16``.

    Raises:
        ValueError: if the backend has no such precision, or cannot take these priors.
    """
    layout, device = bundle.layout, next(bundle.priors[0].parameters()).device
    samplers = _samplers(bundle.priors, batch, backend, precision)
    parts = []
    for first in tqdm(range(0, count, batch), desc="canvases", unit="batch", disable=None):
        # Captured steps are of one size of batch: the last one's rest is thrown away.
        size = batch if backend in CAPTURED else min(batch, count - first)
        empty = layout.empty_grids(size, device)
        parts.append(joint.sample(samplers, empty, temperature, generator))
    return [torch.cat(level)[:count] for level in zip(*parts, strict=True)]


def select_by_score(
    bundle: Bundle, grids: Sequence[Tensor], candidates: int, generator: torch.Generator | None
) -> list[Tensor]:
    """Of every ``candidates`` canvases keep one: sampling importance resampling.

    The weights are exp(score) by the bundle's discriminator, which was trained against its prior;
    see :mod:`ral_env.nets.resample`. An image costs ``candidates`` times as much as a sample.

    Args:
        bundle: its discriminator and codec score, on the device of the codes.
        grids: int64 codes (N * candidates, h, w), a grid a level.
        candidates: number of canvases that one is kept of.
        generator: source of the choice, on that device.

    Returns:
        int64 (N, h, w) a level.

    Raises:
        ValueError: if the discriminator's score is no log density ratio.
    """
    # Bundles of pretraining name the loss in the first field, those of a fine-tuning in the second.
    trainings = (bundle.recipe.get(name) for name in ("discriminator_training", "discriminator"))
    losses = (known.get("loss") for known in trainings if isinstance(known, Mapping))
    loss = next(filter(None, losses), "logistic")
    if loss != "logistic":
        raise ValueError(
            f"the discriminator of {bundle!r} was trained with the loss {loss!r}: images are "
            "selected by exp(score), which needs one of the loss 'logistic'"
        )
    kind = bundle.discriminator_input
    scores = score(bundle.discriminator, bundle.vqvae, grids, kind)
    return resample(grids, scores, candidates, generator)


def _samplers(priors: Sequence[Any], batch: int, backend: str, precision: Any) -> list[Any]:
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}, expected one of {BACKENDS}")
    if backend not in CAPTURED:
        if precision != "float32":
            raise ValueError(
                f"backend={backend!r} with precision={precision!r}, expected 'float32'"
            )
        for prior in priors if backend != "auto" else ():
            backends.choose(prior, cast(backends.Backend, backend))
        return list(priors)
    if not all(isinstance(prior, PixelCNN) for prior in priors):
        raise ValueError(f"backend={backend!r} takes PixelCNNs only, expected backend='auto'")
    return [GraphSampler(prior, batch, precision, backend == "compiled") for prior in priors]


def command(
    env: str = "RALFaces32-v0",
    bundle: str | None = None,
    count: int = 64,
    batch: int = 64,
    temperature: float = 1.0,
    select: int = 1,
    seed: int = 0,
    device: str = "cpu",
    backend: Literal["auto", "native", "eager", "graph", "compiled"] = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    out: str = "samples.png",
) -> None:
    """Sample images from a bundle's priors.

    Three files are written: a PNG of all images, and under the same name their codes as NPZ
    (``level_0`` is the coarsest level, int16 (N, h, w)) and these settings as JSON.

    Args:
        env: Id of the environment whose bundle is sampled.
        bundle: Name or path of a bundle to take instead.
        count: Number of images.
        batch: Number of images that are sampled together; it changes which noise an image gets.
        temperature: Temperature of sampling; 0 takes the likeliest code, always the same image.
        select: Number of canvases that are drawn for each image, of which the bundle's
            discriminator selects one; it takes that many times as long.
        seed: Seed of the samples.
        device: Device that the networks run on, cpu or cuda.
        backend: How sampling steps run. auto is exact and runs anywhere: by code that was compiled
            when the package was installed (native), or by torch's operations (eager). graph replays
            CUDA graphs; compiled lets Inductor write them first, which takes minutes and pays for
            many batches.
        precision: Number format of the backends graph and compiled; bfloat16 is not exact.
        out: Name of the PNG file.
    """
    settings = dict(locals())
    check_values(
        settings, count=COUNT, batch=COUNT, select=COUNT, temperature="[0, inf)", seed=SEED
    )
    torch_device(device)
    path = Path(out)
    if path.is_dir() or path.suffix.lower() != ".png":
        raise ValueError(f"out={out!r}, expected the name of a PNG file")
    check_writable(path)
    expect_ours(env)
    made: Bundle = gym.make(env, bundle=bundle).unwrapped.bundle  # type: ignore[attr-defined]
    if not made.priors:
        raise ValueError(f"the bundle of {env} has no priors to sample from: choose another")
    for net in (made.vqvae, made.discriminator, *made.priors):
        net.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    start = time.perf_counter()
    drawn = count * select
    grids = draw(made, drawn, min(batch, drawn), temperature, generator, backend, precision)
    if select > 1:
        grids = select_by_score(made, grids, select, generator)
    written = [grid.cpu().numpy().astype(np.int16) for grid in grids]  # waits for the device
    seconds = time.perf_counter() - start
    with torch.no_grad():
        parts = zip(*(grid.split(50) for grid in grids), strict=True)
        images = np.concatenate([to_bytes(made.vqvae.decode(part)) for part in parts])

    levels: dict[str, Any] = {f"level_{i}": codes for i, codes in enumerate(written)}
    npz, png = io.BytesIO(), io.BytesIO()
    np.savez_compressed(npz, **levels)
    Image.fromarray(contact_sheet(images)).save(png, "PNG")
    write_bytes(path.with_suffix(".npz"), npz.getvalue())
    write_bytes(path, png.getvalue())
    figures = {"dataset": made.dataset, "seconds": round(seconds, 3), "canvases_drawn": drawn}
    versions = {"ral-env": ral_env.__version__, "torch": torch.__version__}
    text = json.dumps(settings | figures | versions, indent=2)
    write_bytes(path.with_suffix(".json"), text.encode())
    print(
        f"{count} images of {made.layout.length} codes in {seconds:.2f} s, "
        f"{seconds / -(-drawn // batch) / made.layout.length * 1e3:.2f} ms a code of a batch"
    )
    if select > 1:
        print(f"each is one of {select}: {drawn} canvases were drawn, {select} times the cost")
    print(f"wrote {path}, {path.stem}.npz, {path.stem}.json, on {made.dataset}")


def main(argv: list[str] | None = None) -> None:
    """``ral sample``; ``argv`` None takes the arguments of the process."""
    from jsonargparse import auto_cli

    argv = migrations.options(sys.argv[1:] if argv is None else argv, "sample")
    auto_cli(command, args=argv, prog="ral sample", as_positional=False)


if __name__ == "__main__":
    main()

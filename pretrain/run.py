"""``ral pretrain``: images in, a bundle out. The stages, in order."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from agents import mle
from agents.training import Training
from pretrain import data, discriminator, features, vqvae
from pretrain.codes import Grids, extract
from pretrain.recipes import RECIPES, Recipe
from ral_env import bundle
from ral_env.layout import CodeLayout
from ral_env.nets import PixelCNN, PixelCNNConfig, joint

# split -> int64 grids (N, h, w), one a level; those of real images to train on are on disk.
Codes = dict[str, list[Any]]


def _show(stage: str, total: int):
    """A progress bar for a stage; its ``log`` shows a row of figures and keeps it."""
    bar = tqdm(total=total, desc=stage, unit="step")
    rows: list[dict[str, float]] = []

    def log(row: dict[str, float], net: Any = None) -> None:
        rows.append(row)
        bar.update(int(row["step"]) - bar.n)
        shown = {k: f"{v:.4g}" for k, v in row.items() if k not in ("step", "seconds")}
        bar.write(f"{stage} {int(row['step'])}: " + ", ".join(f"{k} {v}" for k, v in shown.items()))

    return bar, rows, log


def _rounded(net: Any, half: bool) -> Any:
    """What will be loaded again, so that every later stage and figure is of that net."""
    return net.half().float() if half else net


def _fit_priors(
    stage: str,
    configs: Sequence[PixelCNNConfig],
    codes: Codes,
    trainings: Sequence[Training],
    seed: int,
    half: bool,
) -> tuple[list[PixelCNN], list[list[dict[str, float]]]]:
    """A prior a level, each by itself, and their learning curves."""
    priors, curves = [], []
    for level, (config, training) in enumerate(zip(configs, trainings, strict=True)):
        torch.manual_seed(seed)
        prior = PixelCNN(config)
        train, validation = codes["train"], codes["validation"]
        bar, rows, log = _show(f"{stage} {level}" if len(configs) > 1 else stage, training.steps)
        with bar:
            mle.fit(
                prior,
                train[level],
                validation[level],
                training,
                seed=seed,
                log=log,
                conditions=(train[level - 1], validation[level - 1]) if level else None,
            )
        priors.append(_rounded(prior, half))
        curves.append(rows)
    return priors, curves


def unigram_nats(train: mle.Grids, validation: Tensor, num_codes: int) -> float:
    """Nats per code of the validation codes under the train codes' frequencies: a baseline."""
    counts = torch.ones(num_codes, dtype=torch.int64)
    for first in range(0, len(train), 2**14):
        counts += torch.bincount(train[first : first + 2**14].flatten(), minlength=num_codes)
    return -(counts / counts.sum()).log()[validation].mean().item()


def _splits(sizes: Sequence[int] | np.ndarray) -> dict[str, tuple[int, int]]:
    """First and last + 1 row of train, validation and test, one after another."""
    ends = np.cumsum(sizes).tolist()
    return dict(zip(bundle.SPLITS, zip([0, *ends], ends, strict=False), strict=True))


def pretrain(
    recipe: Recipe, out: Path, folder: str | None = None, seed: int = 0, flip: bool = False
) -> Path:
    """Run every stage of a recipe and write the bundle ``out``.

    Args:
        folder: of images, or the root of the recipe's published data set (see
            :func:`pretrain.data.load`); overrides the source of recipes that make their images.
        seed: of everything; the same seed makes the same bundle on the same machine.
        flip: add mirrored training images; not of images that are made.

    Returns:
        The bundle's path.

    Raises:
        ValueError: if the recipe needs a folder and none is given, or the folder holds no images;
            says what to download.
    """
    start = time.perf_counter()
    if recipe.features and folder is not None:
        recipe = dataclasses.replace(recipe, features=None)  # a folder has no labels to learn
    size = recipe.vqvae.image_size
    source = "folder" if folder and recipe.source in data.MADE else recipe.source
    images = data.load(source, size, seed=seed, count=recipe.count or None, flip=flip, root=folder)
    pixels, splits = images.parts, images.splits

    bar, vqvae_rows, log = _show("vqvae", recipe.vqvae_training.steps)
    with bar:
        net, _ = vqvae.fit(
            recipe.vqvae,
            pixels["train"],
            pixels["validation"],
            recipe.vqvae_training,
            seed,
            log=log,
        )
    net = _rounded(net, recipe.half)
    layout = CodeLayout(recipe.vqvae.grids, recipe.vqvae.num_codes)
    store = out.with_name(f".{out.name}.codes.npy")
    workers = recipe.vqvae_training.workers
    bar, _, log = _show("codes", len(images.whole))
    with bar:
        flat = extract(net, images.whole, store, workers=workers, log=log)
    codes: Codes = {n: mle.as_grids(layout, flat[slice(*splits[n])]) for n in bundle.SPLITS[1:]}
    codes["train"] = [Grids(store, layout, n, splits["train"]) for n in range(len(layout.levels))]
    metrics: dict = {
        "reconstruction": vqvae_rows[-1]["reconstruction"],
        "codebook": vqvae.usage(flat[slice(*splits["train"])], recipe.vqvae),
    }

    feature_net = None
    if recipe.features is not None and images.targets is not None:
        targets = {name: torch.as_tensor(own) for name, own in images.targets.items()}
        classes = images.target_kind == "classes"
        outputs = int(targets["train"].max()) + 1 if classes else targets["train"].shape[1]
        bar, _, log = _show("features", recipe.feature_steps)
        feature_net, metrics["features"] = features.fit(
            dataclasses.replace(recipe.features, outputs=outputs),
            net,
            pixels["train"],
            targets["train"],
            pixels["validation"],
            targets["validation"],
            steps=recipe.feature_steps,
            seed=seed,
            log=log,
        )
        feature_net = _rounded(feature_net, recipe.half)
        bar.close()
        print("features", metrics["features"])

    oracles, dataset = [], images.name
    if recipe.oracles:
        oracles, curves = _fit_priors(
            "oracle", recipe.oracles, codes, recipe.oracle_trainings, seed, recipe.half
        )
        generator = torch.Generator().manual_seed(seed + 1)
        sampled = joint.draw(oracles, recipe.oracle_samples, generator)
        edges = [recipe.oracle_samples * n // 13 for n in (0, 10, 11, 13)]
        codes = {
            name: [grid[a:b] for grid in sampled]
            for name, a, b in zip(bundle.SPLITS, edges[:-1], edges[1:], strict=True)
        }
        flat = layout.flatten([grid.numpy() for grid in sampled])
        splits = _splits(np.diff(edges))
        entropy = -joint.total_log_prob(oracles, codes["test"]).mean().item()
        metrics["oracle"] = {"entropy": entropy, "curves": curves}
        dataset = f"samples of an oracle prior of {images.name}"

    priors, curves = _fit_priors(
        "prior", recipe.priors, codes, recipe.prior_trainings, seed, recipe.half
    )
    best = [min(row["validation_nats_per_code"] for row in rows) for rows in curves]
    unigram = [
        unigram_nats(train, validation, layout.num_codes)
        for train, validation in zip(codes["train"], codes["validation"], strict=True)
    ]
    metrics["priors"] = {
        "validation_nats_per_code": best,
        "unigram_nats_per_code": unigram,
        "test_nats": -joint.total_log_prob(priors, codes["test"]).mean().item(),
        "curves": curves,
    }
    print("priors", {k: v for k, v in metrics["priors"].items() if k != "curves"})

    bar, _, log = _show("discriminator", recipe.discriminator_steps)
    with bar:
        judge, scale, metrics["discriminator"] = discriminator.fit(
            recipe.discriminator,
            recipe.discriminator_input,
            net,
            priors,
            codes["train"],
            codes["validation"],
            recipe.discriminator_training,
            fakes=recipe.fakes,
            batch=recipe.discriminator_batch,
            most_steps=recipe.discriminator_steps,
            seed=seed,
            log=log,
        )
    metrics["seconds"] = time.perf_counter() - start

    if recipe.keep:
        kept = [
            flat[splits[name][0] : splits[name][1]][:most]
            for name, most in zip(bundle.SPLITS, recipe.keep, strict=True)
        ]
        flat, splits = np.concatenate(kept), _splits([len(part) for part in kept])
    path = bundle.save(
        out,
        vqvae=net,
        discriminator=judge,
        discriminator_input=recipe.discriminator_input,
        reward_scale=scale,
        priors=priors,
        codes=flat,
        splits=splits,
        dataset=dataset,
        recipe={"command": f"ral pretrain --recipe {recipe.name} --seed {seed}"}
        | json.loads(json.dumps(dataclasses.asdict(recipe))),
        metrics=metrics,
        oracles=oracles,
        features=feature_net,
        half=recipe.half,
    )
    for file in (store, store.with_name(f"{store.name}.json")):
        file.unlink()
    return path


def command(
    recipe: Literal[tuple(RECIPES)],  # type: ignore
    out: str | None = None,
    data: str | None = None,
    seed: int = 0,
    flip: bool = False,
    threads: int = 1,
) -> None:
    """Train a VQ-VAE, a prior and a discriminator on images and write them as a bundle.

    Args:
        recipe: what to train, by name.
        out: the bundle's folder; runs/pretrain/RECIPE if not given.
        data: a folder of images, or the root of CelebA or LSUN as they are published; needed by
            the recipes of the paper's data sets.
        seed: of everything.
        flip: add mirrored training images.
        threads: of torch; the small nets are fastest with one.
    """
    torch.set_num_threads(threads)
    path = pretrain(
        RECIPES[recipe], Path(out or f"runs/pretrain/{recipe}"), folder=data, seed=seed, flip=flip
    )
    size = sum(f.stat().st_size for f in path.iterdir()) / 1e6
    print(f"wrote {path} ({size:.2f} MB); use it with gym.make(ID, bundle={str(path)!r})")


def main(argv: list[str] | None = None) -> None:
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral pretrain", as_positional=False)


if __name__ == "__main__":
    main()

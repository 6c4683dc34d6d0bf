"""``ral pretrain``: images in, a bundle out. The stages, in order."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from agents import mle
from pretrain import data, discriminator, features, vqvae
from pretrain.recipes import RECIPES, Recipe
from ral_env import bundle
from ral_env.nets import PixelCNN, PixelCNNConfig


def _show(stage: str, total: int):
    """A progress bar for a stage; its ``log`` shows a row of figures and keeps it."""
    bar = tqdm(total=total, desc=stage, unit="step")
    rows: list[dict[str, float]] = []

    def log(row: dict[str, float]) -> None:
        rows.append(row)
        bar.update(int(row["step"]) - bar.n)
        shown = {k: f"{v:.4g}" for k, v in row.items() if k not in ("step", "seconds")}
        bar.write(f"{stage} {int(row['step'])}: " + ", ".join(f"{k} {v}" for k, v in shown.items()))

    return bar, rows, log


def _fit_prior(
    stage: str, config: PixelCNNConfig, codes: dict[str, Tensor], training: mle.MLETraining, seed
) -> tuple[PixelCNN, list[dict[str, float]]]:
    torch.manual_seed(seed)
    prior = PixelCNN(config)
    bar, rows, log = _show(stage, training.steps)
    with bar:
        mle.fit(prior, codes["train"], codes["validation"], training, seed=seed, log=log)
    return prior, rows


def unigram_nats(codes: dict[str, Tensor], num_codes: int) -> float:
    """Nats per code of the validation codes under the train codes' frequencies: a baseline."""
    counts = torch.bincount(codes["train"].flatten(), minlength=num_codes) + 1
    return -(counts / counts.sum()).log()[codes["validation"]].mean().item()


def pretrain(
    recipe: Recipe, out: Path, folder: str | None = None, seed: int = 0, flip: bool = False
) -> Path:
    """Run every stage of a recipe and write the bundle ``out``.

    Args:
        folder: of images, for recipes whose source is ``folder``; overrides the source of others.
        seed: of everything; the same seed makes the same bundle on the same machine.
        flip: add mirrored training images (folders only).

    Returns:
        The bundle's path.

    Raises:
        ValueError: if the recipe needs a folder and none is given, or the folder holds no images.
    """
    start = time.perf_counter()
    if recipe.source == "folder" and folder is None:
        raise ValueError(
            f"recipe {recipe.name!r} needs images: give the folder that holds them with --data"
        )
    if recipe.features and folder is not None:
        recipe = dataclasses.replace(recipe, features=None)  # a folder has no labels to learn
    size = recipe.vqvae.image_size
    images = data.load(
        folder or recipe.source, size, seed=seed, count=recipe.count or None, flip=flip
    )
    pixels = {name: torch.as_tensor(images.images[a:b]) for name, (a, b) in images.splits.items()}

    bar, vqvae_rows, log = _show("vqvae", recipe.vqvae_training.steps)
    with bar:
        net, _ = vqvae.fit(
            recipe.vqvae, pixels["train"], pixels["validation"], recipe.vqvae_training, seed, log
        )
    flat = {name: vqvae.extract(net, part) for name, part in pixels.items()}
    grid = recipe.prior.grid
    codes = {name: mle.as_codes(part, grid) for name, part in flat.items()}
    metrics: dict = {
        "reconstruction": vqvae_rows[-1]["reconstruction"],
        "codebook": vqvae.usage(flat["train"], recipe.vqvae.num_codes),
    }

    feature_net = None
    if recipe.features is not None and images.targets is not None:
        targets = {n: torch.as_tensor(images.targets[a:b]) for n, (a, b) in images.splits.items()}
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
        bar.close()
        print("features", metrics["features"])

    oracle, dataset = None, images.name
    if recipe.oracle is not None:
        oracle, oracle_rows = _fit_prior(
            "oracle", recipe.oracle, codes, recipe.oracle_training, seed
        )
        generator = torch.Generator().manual_seed(seed + 1)
        sampled = mle.draw(oracle, recipe.oracle_samples, generator)
        train, validation = (recipe.oracle_samples * n // 13 for n in (10, 11))
        codes = {
            "train": sampled[:train],
            "validation": sampled[train:validation],
            "test": sampled[validation:],
        }
        entropy = mle.mean_nll(oracle, codes["test"])
        metrics["oracle"] = {"entropy": entropy, "curve": oracle_rows}
        dataset = f"samples of an oracle prior of {images.name}"

    prior, prior_rows = _fit_prior("prior", recipe.prior, codes, recipe.prior_training, seed)
    metrics["prior"] = {
        "validation_nats_per_code": min(r["validation_nats_per_code"] for r in prior_rows),
        "test_nats": mle.mean_nll(prior, codes["test"]),
        "unigram_nats_per_code": unigram_nats(codes, recipe.vqvae.num_codes),
        "curve": prior_rows,
    }
    print("prior", {k: v for k, v in metrics["prior"].items() if k != "curve"})

    bar, _, log = _show("discriminator", 2000)
    with bar:
        judge, scale, metrics["discriminator"] = discriminator.fit(
            recipe.discriminator,
            recipe.discriminator_input,
            net,
            prior,
            codes["train"],
            codes["validation"],
            recipe.discriminator_training,
            seed=seed,
            log=log,
        )
    metrics["seconds"] = time.perf_counter() - start

    order = ("train", "validation", "test")
    ends = np.cumsum([len(codes[name]) for name in order]).tolist()
    return bundle.save(
        out,
        vqvae=net,
        discriminator=judge,
        discriminator_input=recipe.discriminator_input,
        reward_scale=scale,
        priors=[prior],
        codes=[torch.cat([codes[name] for name in order]).numpy()],
        splits={name: [end - len(codes[name]), end] for name, end in zip(order, ends, strict=True)},
        dataset=dataset,
        recipe={"command": f"ral pretrain --recipe {recipe.name} --seed {seed}"}
        | json.loads(json.dumps(dataclasses.asdict(recipe))),
        metrics=metrics,
        oracle=oracle,
        features=feature_net,
    )


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
        data: a folder of images; needed by the recipes of the paper's data sets.
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

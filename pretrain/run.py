"""``ral pretrain``: images in, a bundle out. The stages, in order; a run that was cut goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

import ral_env
from agents.training.files import Row, write_whole
from agents.training.fit import fit_prior
from agents.training.optimise import Training
from agents.training.processes import Processes
from pretrain import data, discriminator, distance, features, vqvae
from pretrain.codes import Grids, extract
from pretrain.overrides import EVERY_LEVEL, help_text, override
from pretrain.recipes import RECIPES, Recipe
from ral_env import bundle
from ral_env.layout import CodeLayout
from ral_env.nets import VQVAE, Mixture, MixtureConfig, PixelCNN, PixelCNNConfig, joint
from ral_env.picture import mean_child_vectors, paint

# split -> int64 grids (N, h, w), one a level; those of real images to train on are on disk.
Codes = dict[str, list[Any]]
BLOCK = 2**14  # canvases of codes that are counted at a time
SHOWN = 8  # pictures in a line


class _Run:
    """A run's folder: what was asked for, where each stage stands, its figures and pictures."""

    def __init__(self, folder: Path, asked: dict[str, Any], processes: Processes):
        self.folder, self.processes = folder, processes
        self.first = processes.rank == 0
        asked = json.loads(json.dumps(asked))
        file = folder / "config.json"
        if file.exists():
            was = json.loads(file.read_text())
            other = sorted(_differences({k: was.get(k) for k in asked}, asked))
            if other:
                raise ValueError(
                    f"{folder} holds a run that was asked for something else ("
                    f"{'; '.join(other[:5])}): ask for the same to go on with it, choose another "
                    "folder with --work, or remove it"
                )
        elif self.first:
            folder.mkdir(parents=True, exist_ok=True)
            versions = {
                "ral_env": ral_env.__version__,
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "python": platform.python_version(),
            }
            _write(file, json.dumps(asked | {"versions": versions}, indent=2) + "\n")

    def checkpoint(self, stage: str) -> Path:
        return self.folder / f"{stage}.pt"

    def say(self, *words: Any) -> None:
        if self.first:
            print(*words)

    def once(self, stage: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a short stage makes (tensors and figures); the next time it is read from disk."""
        file = self.checkpoint(stage)
        if file.exists():
            return torch.load(file, weights_only=True)
        made = make()
        if self.first:
            write_whole(file, lambda fresh: torch.save(made, fresh))
        return made

    def log(self, stage: str, show: Callable[[Any], Tensor] | None = None) -> Callable[..., None]:
        """Keeps a stage's rows as CSV and in TensorBoard, and what ``show`` draws of its net."""
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self.folder / stage))

        def log(rows: list[Row], net: Any = None) -> None:
            names = list(dict.fromkeys(name for row in rows for name in row))
            with (self.folder / f"{stage}.csv").open("w", newline="") as stream:
                table = csv.DictWriter(stream, names)
                table.writeheader()
                table.writerows(rows)
            step = int(rows[-1]["step"])
            for name, value in rows[-1].items():
                writer.add_scalar(name, value, step)
            if show is not None:
                sheet = show(net)
                writer.add_image("pictures", sheet, step)
                to_pil_image(sheet).save(self.folder / f"{stage}.png")
            writer.flush()

        return log


def _write(file: Path, text: str) -> None:
    write_whole(file, lambda fresh: fresh.write_text(text))


def _differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(was, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*was, *now])
        return [
            line
            for key in keys
            for line in _differences(was.get(key), now.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        return [line for i, (a, b) in pairs for line in _differences(a, b, f"{path}.{i}")]
    return [] if was == now else [f"{path}: {was!r} then, {now!r} now"]


def _rounded(net: Any, half: bool) -> Any:
    """What will be loaded again, so that every later stage and figure is of that net."""
    return net.half().float() if half else net


def _sheet(*lines: Tensor) -> Tensor:
    """Lines of uint8 images (n, 3, S, S) as one picture, uint8 (3, H, W)."""
    return make_grid(torch.cat(lines), nrow=len(lines[0]), padding=2, pad_value=255)


# --- baselines: what a prior must beat ---


def unigram_nats(train: Grids, validation: Tensor, num_codes: int) -> float:
    """Nats per code of the validation codes under the train codes' frequencies."""
    counts = torch.ones(num_codes)
    for first in range(0, len(train), BLOCK):
        counts += torch.bincount(train[first : first + BLOCK].flatten(), minlength=num_codes)
    return -(counts / counts.sum()).log()[validation].mean().item()


def previous_row_nats(
    train: Grids, validation: Tensor, num_codes: int, weight: float = 10.0
) -> float:
    """Nats per code under the train codes' frequencies given the code in the row above.

    Args:
        weight: the frequencies whatever stands above (with which first rows have to do) count as
            much as so many observations.
    """
    pairs = torch.zeros(num_codes * num_codes)
    counts = torch.ones(num_codes)
    for first in range(0, len(train), BLOCK):
        part = train[first : first + BLOCK]
        counts += torch.bincount(part.flatten(), minlength=num_codes)
        above = (part[:, :-1] * num_codes + part[:, 1:]).flatten()
        pairs += torch.bincount(above, minlength=num_codes * num_codes)
    alone = counts / counts.sum()
    table = pairs.view(num_codes, num_codes)
    given = (table + weight * alone) / (table.sum(1, keepdim=True) + weight)
    nats = torch.cat(
        [
            -alone.log()[validation[:, 0]].flatten(),
            -given.log()[validation[:, :-1], validation[:, 1:]].flatten(),
        ]
    )
    return nats.mean().item()


# --- stages ---


def _fit_vqvae(
    run: _Run, recipe: Recipe, pixels: Mapping[str, Any], seed: int, device: str
) -> tuple[VQVAE, dict[str, Any]]:
    few = pixels["validation"][:SHOWN]

    @torch.no_grad()
    def show(net: VQVAE) -> Tensor:
        x = vqvae.to_float(few.to(net.codebooks.device))
        decoded = ((net.decode(net.encode(x)) + 1) * 127.5).round().byte()
        return _sheet(few, decoded.cpu())

    net, rows = vqvae.fit(
        recipe.vqvae,
        pixels["train"],
        pixels["validation"],
        recipe.vqvae_training,
        seed,
        log=run.log("vqvae", show) if run.first else None,
        label="vqvae",
        checkpoint=run.checkpoint("vqvae"),
        device=device,
    )
    best = min(rows, key=lambda row: row["reconstruction"])
    for level in range(recipe.vqvae.levels):
        name = f"perplexity_{level}" if level else "perplexity"
        if best[name] < recipe.vqvae.num_codes / 8:
            warnings.warn(
                f"the codebook of level {level} has collapsed: its perplexity is "
                f"{best[name]:.1f} of {recipe.vqvae.num_codes} codes. Try fewer codes, a larger "
                "batch, a smaller codebook_decay, revive_below=2 or more, or more images",
                stacklevel=2,
            )
    metrics = {"reconstruction": best["reconstruction"], "vqvae_curve": rows}
    return _rounded(net, recipe.half), metrics


def _fit_priors(
    run: _Run,
    stage: str,
    configs: Sequence[PixelCNNConfig],
    codes: Codes,
    trainings: Sequence[Training],
    net: VQVAE,
    *,
    seed: int,
    half: bool,
    device: str,
    styles: Mapping[str, Tensor] | None = None,
) -> tuple[list[Any], list[list[Row]]]:
    """A prior a level, each by itself, and their learning curves. ``styles``: for a mixture."""
    priors: list[Any] = []
    curves = []
    train, validation = codes["train"], codes["validation"]
    usually = (
        mean_child_vectors(net, [grid[:200] for grid in validation]) if len(configs) > 1 else None
    )

    def show(prior: PixelCNN | Mixture) -> Tensor:
        """Samples of the levels that are trained, this one included; finer ones left open."""
        place = next(prior.parameters()).device
        generator = torch.Generator(place).manual_seed(seed)
        nets = [*(p.to(place) for p in priors), prior]
        grids = [g.cpu() for g in joint.draw(nets, SHOWN, generator)]
        for config in configs[len(nets) :]:
            grids.append(torch.full((SHOWN, *config.grid), config.num_codes))
        images = paint(net, grids, configs[0].num_codes, usually)
        return _sheet(torch.from_numpy(images).permute(0, 3, 1, 2))

    for level, (config, training) in enumerate(zip(configs, trainings, strict=True)):
        torch.manual_seed(seed)
        conditions = (train[level - 1], validation[level - 1]) if level else None
        if isinstance(config, MixtureConfig):
            assert styles is not None
            prior, conditions = Mixture(config), (styles["train"], styles["validation"])
        else:
            prior = PixelCNN(config)
        name = f"{stage}_{level}"
        rows = fit_prior(
            prior,
            train[level],
            validation[level],
            training,
            conditions=conditions,
            seed=seed,
            log=run.log(name, show) if run.first else None,
            label=name,
            checkpoint=run.checkpoint(name),
            device=device,
        )
        best = min(rows, key=lambda row: row["validation_nats_per_code"])
        last = rows[-1]["validation_nats_per_code"]
        if last > 1.02 * best["validation_nats_per_code"]:
            warnings.warn(
                f"{name} overfits: validation was best at step {best['step']:.0f} with "
                f"{best['validation_nats_per_code']:.4f} nats per code (those weights are kept) "
                f"and {last:.4f} at the end. Try more dropout, weight_decay, a smaller net, fewer "
                "steps (patience stops by itself), or more images",
                stacklevel=2,
            )
        priors.append(_rounded(prior.cpu(), half))
        curves.append(rows)
    return priors, curves


def _fit_features(
    run: _Run, recipe: Recipe, images: data.Images, net: VQVAE, seed: int
) -> tuple[Any, dict[str, float]]:
    assert recipe.features is not None and images.targets is not None
    targets = {name: torch.as_tensor(own) for name, own in images.targets.items()}
    classes = images.target_kind == "classes"
    outputs = int(targets["train"].max()) + 1 if classes else targets["train"].shape[1]
    config = dataclasses.replace(recipe.features, outputs=outputs)

    def make() -> dict[str, Any]:
        trained, found = features.fit(
            config,
            net,
            images.part("train"),
            targets["train"],
            images.part("validation"),
            targets["validation"],
            steps=recipe.feature_steps,
            seed=seed,
            label="features" if run.first else "",
        )
        return {"weights": trained.state_dict(), "metrics": found}

    made = run.once("features", make)
    found = features.FeatureNet(config).eval()
    found.load_state_dict(made["weights"])
    run.say("features", made["metrics"])
    return _rounded(found, recipe.half), made["metrics"]


def _styles(recipe: Recipe, images: data.Images) -> dict[str, Tensor] | None:
    """What a mixture is told of each image, as grids of one cell."""
    mixtures = [config for config in recipe.oracles if isinstance(config, MixtureConfig)]
    if not mixtures:
        return None
    if images.styles is None:
        raise ValueError(
            f"the oracle of recipe {recipe.name!r} is a mixture and has to be told each image's "
            f"style, but {images.name} have none: leave --data out, or choose another recipe"
        )
    count = 1 + max(int(own.max()) for own in images.styles.values())
    if any(count != config.styles for config in mixtures):
        raise ValueError(
            f"oracle.styles={mixtures[0].styles}, expected {count}: as many as the {images.name} "
            "have"
        )
    return {part: torch.from_numpy(own).view(-1, 1, 1) for part, own in images.styles.items()}


def split_samples(grids: Sequence[Tensor]) -> tuple[Codes, dict[str, tuple[int, int]]]:
    """An oracle's samples, 10 : 1 : 2 into train, validation and test; and their rows."""
    edges = [len(grids[0]) * n // 13 for n in (0, 10, 11, 13)]
    parts = zip(bundle.SPLITS, pairwise(edges), strict=True)
    codes: Codes = {name: [grid[a:b] for grid in grids] for name, (a, b) in parts}
    return codes, _splits(np.diff(edges))


def _splits(sizes: Sequence[int] | np.ndarray) -> dict[str, tuple[int, int]]:
    """First and last + 1 row of train, validation and test, one after another."""
    ends = np.cumsum(sizes).tolist()
    return dict(zip(bundle.SPLITS, zip([0, *ends], ends, strict=False), strict=True))


def pretrain(
    recipe: Recipe,
    out: Path,
    folder: str | None = None,
    seed: int = 0,
    flip: bool = False,
    work: Path | None = None,
    device: str = "cpu",
    inception: str | None = None,
    command: str = "",
) -> Path:
    """Run every stage of a recipe and write the bundle ``out``.

    Under ``torchrun`` all processes call it: they share the training and the extraction.

    Args:
        folder: of images, or the root of the recipe's published data set (see
            :func:`pretrain.data.load`); overrides the source of recipes that make their images.
        seed: of everything; the same seed makes the same bundle on the same machine.
        flip: add mirrored training images; not of images that are made.
        work: folder of all that the run leaves beside the bundle: config.json, metrics.json, and
            for each stage a checkpoint, a CSV, a PNG and TensorBoard events. If it holds a run that
            was cut, that goes on. OUT.work if not given.
        device: where to train: ``cpu`` or ``cuda``.
        inception: file of the Inception network's weights; see
            :func:`pretrain.distance.reconstruction`.
        command: what the bundle says that it was made with.

    Returns:
        The bundle's path.

    Raises:
        ValueError: if the recipe needs a folder and none is given, or the folder holds no images
            (says what to download), or its oracle needs styles that the images do not have, or
            ``work`` holds a run of another recipe.
    """
    start = time.perf_counter()
    if recipe.features and folder is not None:
        recipe = dataclasses.replace(recipe, features=None)  # a folder has no labels to learn
    size = recipe.vqvae.image_size
    source = "folder" if folder and recipe.source in data.MADE else recipe.source
    images = data.load(source, size, seed=seed, count=recipe.count or None, flip=flip, root=folder)
    pixels, splits = images.parts, images.splits
    styles = _styles(recipe, images)
    processes = Processes(device)
    asked = {"recipe": dataclasses.asdict(recipe), "seed": seed, "flip": flip, "data": folder}
    place = _Run(work or out.with_name(f"{out.name}.work"), asked, processes)

    net, metrics = _fit_vqvae(place, recipe, pixels, seed, device)
    layout = CodeLayout(recipe.vqvae.grids, recipe.vqvae.num_codes)
    store = place.folder / "codes.npy"
    flat = extract(
        net,
        images.whole,
        store,
        processes=processes,
        workers=recipe.vqvae_training.workers,
        label="codes",
    )
    net.cpu()
    codes: Codes = {n: layout.as_grids(flat[slice(*splits[n])]) for n in bundle.SPLITS[1:]}
    codes["train"] = [Grids(store, layout, n, splits["train"]) for n in range(len(layout.levels))]
    metrics["codebook"] = vqvae.usage(flat[slice(*splits["train"])], recipe.vqvae)

    feature_net = None
    if recipe.features is not None and images.targets is not None:
        feature_net, metrics["features"] = _fit_features(place, recipe, images, net, seed)
    metrics["reconstruction_distance"] = place.once(
        "distance",
        lambda: distance.reconstruction(net, pixels["test"], feature_net, inception),
    )
    place.say("reconstruction distance", metrics["reconstruction_distance"])

    oracles, dataset = [], images.name
    options: dict[str, Any] = {"seed": seed, "half": recipe.half, "device": device}
    if recipe.oracles:
        oracles, curves = _fit_priors(
            place,
            "oracle",
            recipe.oracles,
            codes,
            recipe.oracle_trainings,
            net,
            styles=styles,
            **options,
        )
        generator = torch.Generator().manual_seed(seed + 1)
        sampled = place.once(
            "oracle_codes", lambda: {"grids": joint.draw(oracles, recipe.oracle_samples, generator)}
        )["grids"]
        codes, splits = split_samples(sampled)
        flat = layout.flatten([grid.numpy() for grid in sampled])
        entropy = -joint.total_log_prob(oracles, codes["test"]).mean().item()
        metrics["oracle"] = {"entropy": entropy, "curves": curves}
        dataset = f"samples of an oracle prior of {images.name}"

    priors, curves = _fit_priors(
        place, "prior", recipe.priors, codes, recipe.prior_trainings, net, **options
    )
    pairs = list(zip(codes["train"], codes["validation"], strict=True))
    metrics["priors"] = {
        "validation_nats_per_code": [
            min(row["validation_nats_per_code"] for row in rows) for rows in curves
        ],
        "previous_row_nats_per_code": [
            previous_row_nats(train, validation, layout.num_codes) for train, validation in pairs
        ],
        "unigram_nats_per_code": [
            unigram_nats(train, validation, layout.num_codes) for train, validation in pairs
        ],
        "test_nats": -joint.total_log_prob(priors, codes["test"]).mean().item(),
        "curves": curves,
    }
    place.say("priors", {k: v for k, v in metrics["priors"].items() if k != "curves"})

    def judge() -> dict[str, Any]:
        trained, scale, found = discriminator.fit(
            recipe.discriminator,
            recipe.discriminator_input,
            net,
            priors,
            codes["train"],
            codes["validation"],
            recipe.discriminator_training,
            fakes=recipe.fakes,
            batch=recipe.discriminator_batch,
            max_steps=recipe.discriminator_steps,
            seed=seed,
            label="discriminator" if place.first else "",
        )
        return {"weights": trained.state_dict(), "scale": scale, "metrics": found}

    made = place.once("discriminator", judge)
    judged = discriminator.PatchGAN(recipe.discriminator).eval()
    judged.load_state_dict(made["weights"])
    metrics["discriminator"] = made["metrics"]
    metrics["seconds"] = time.perf_counter() - start
    if place.first:
        _write(place.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")

    if recipe.keep:
        kept = [
            flat[splits[name][0] : splits[name][1]][:most]
            for name, most in zip(bundle.SPLITS, recipe.keep, strict=True)
        ]
        flat, splits = np.concatenate(kept), _splits([len(part) for part in kept])
    if place.first:
        bundle.save(
            out,
            vqvae=net,
            discriminator=judged,
            discriminator_input=recipe.discriminator_input,
            reward_scale=made["scale"],
            priors=priors,
            codes=flat,
            splits=splits,
            dataset=dataset,
            recipe={"command": command or f"ral pretrain --recipe {recipe.name} --seed {seed}"}
            | json.loads(json.dumps(dataclasses.asdict(recipe))),
            metrics=metrics,
            oracles=oracles,
            features=feature_net,
            half=recipe.half,
        )
        for file in (store, store.with_name(f"{store.name}.json")):
            file.unlink()  # the bundle has them
    processes.barrier()
    return out


def make(
    recipe: str,
    changes: Sequence[str] = (),
    out: str | None = None,
    work: str | None = None,
    data: str | None = None,
    seed: int = 0,
    flip: bool = False,
    inception: str | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Train a VQ-VAE, priors and a discriminator on images and write them as a bundle.

    The same command again goes on with a run that was cut. Under ``torchrun --nproc-per-node N -m
    pretrain.run`` it trains on several GPUs, or machines.

    Args:
        recipe: what to train, by name.
        changes: fields of the recipe, PATH=VALUE each.
        out: the bundle's folder; WORK/bundle if not given.
        work: folder of checkpoints, figures and pictures; runs/pretrain/RECIPE if not given.
        data: a folder of images, or the root of CelebA or LSUN as they are published; needed by
            the recipes of the paper's data sets.
        seed: of everything.
        flip: add mirrored training images.
        inception: weights of the Inception network, for the reconstructions' FID.
        device: cpu or cuda.
        threads: of torch; the small nets are fastest with one.
    """
    torch.set_num_threads(threads)
    folder = Path(work or f"runs/pretrain/{recipe}")
    said = f"ral pretrain --recipe {recipe} --seed {seed}"
    said += "".join([" --data DIR" * bool(data), " --flip true" * flip])
    said += " --set " + " ".join(changes) if changes else ""
    path = pretrain(
        override(RECIPES[recipe], changes),
        Path(out) if out else folder / "bundle",
        folder=data,
        seed=seed,
        flip=flip,
        work=folder,
        device=device,
        inception=inception,
        command=said,
    )
    if Processes(device).rank == 0:
        size = sum(f.stat().st_size for f in path.iterdir()) / 1e6
        print(f"wrote {path} ({size:.2f} MB); use it with gym.make(ID, bundle={str(path)!r})")


def main(argv: list[str] | None = None) -> None:
    """Images in, a bundle out: VQ-VAE, codes, priors, discriminator."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral pretrain", description=make.__doc__)
    parser.add_argument("--recipe", choices=list(RECIPES), required=True, help="what to train")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="PATH=VALUE",
        help="change fields of the recipe: vqvae.hidden=64 prior.hidden=256; "
        f"{', '.join(EVERY_LEVEL)} stand for those of all levels; `--set help` lists all",
    )
    parser.add_function_arguments(
        make, skip={"recipe", "changes"}, as_group=False, as_positional=False
    )
    arguments = vars(parser.parse_args(sys.argv[1:] if argv is None else argv))
    changes = arguments.pop("set")
    if changes == ["help"]:
        print(help_text(RECIPES[arguments["recipe"]]))
        return
    make(changes=changes, **arguments)


if __name__ == "__main__":
    main()

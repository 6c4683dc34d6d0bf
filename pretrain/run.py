"""Images in, a bundle out: the stages of pretraining, in order. A run that was cut goes on."""

from __future__ import annotations

import dataclasses
import json
import platform
import runpy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ral_env
from agents.training.processes import Processes
from agents.training.run_folder import RunFolder
from pretrain import data
from pretrain.base import load_base, provenance
from pretrain.checks import check_disk, check_packages, check_recipe
from pretrain.codes import SplitCodes, extract_codes, remove_codes
from pretrain.configs import Recipe
from pretrain.discriminator import Trained, train_discriminators
from pretrain.distance import check_inception, measure_distance
from pretrain.features import stored_features, train_feature_nets
from pretrain.kept_stages import BUNDLE, changed
from pretrain.oracle import Styles, known_styles, make_oracle
from pretrain.priors import make_priors
from pretrain.stages import Pretraining
from pretrain.vqvae import train_vqvae, usage
from ral_env import bundle
from ral_env.files import check_writable, sha256, write_bytes
from ral_env.nets import VQVAE, FeatureNet, FeatureNetConfig

FOLDER_CLASSES = FeatureNetConfig(hidden=12, outputs=0, name="classes of the folder, 32-d")
VERSION = "1"  # of the bundles that are made here


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
    classes: bool = False,
) -> Path:
    """Run every stage of a recipe and write the bundle ``out``.

    Under ``torchrun`` all processes call it: they share the training and the extraction.

    Args:
        recipe: What is trained, and how.
        out: Folder of the bundle.
        folder: A folder of images, or the root of the recipe's published data set (see
            :func:`pretrain.data.load`). It takes the place of images that a recipe makes.
        seed: Seed of everything; the same seed makes the same bundle on the same machine.
        flip: Whether to add mirrored training images; not for images that are made.
        work: Folder of all that the run leaves beside the bundle: config.json, metrics.json, and
            for each stage a checkpoint, a CSV, a PNG and TensorBoard events. If it holds a run that
            was cut, that goes on; of other settings, with the stages that do not depend on them,
            see :mod:`pretrain.kept_stages`. OUT.work if None.
        device: Where to train: ``cpu`` or ``cuda``.
        inception: File of the Inception network's weights; see
            :func:`pretrain.distance.reconstruction`.
        command: The command that made the bundle, for its manifest.
        classes: Whether the sub-folders of ``folder`` are classes, which a feature net learns to
            tell. Without, nothing is known of a folder's images, and the bundle's only feature net
            is the one that learns without labels.

    Returns:
        The bundle's path.

    Raises:
        ValueError: If the recipe needs a folder and none is given, or the folder holds no images
            (the message says what to download), or the oracle needs styles that the images do not
            have, or settings of the recipe do not go together, or ``out`` is no bundle. If ``work``
            holds a run of other images or another VQ-VAE, or one that another process is at, or
            ``out`` a bundle that the run in ``work`` made with other settings. If the recipe does
            not fit its base, see :func:`pretrain.base.load_base`. All of this is found before the
            first step.
        DiskError: If ``out`` or ``work`` cannot be written to, or has no room.
    """
    start = time.perf_counter()
    out = bundle.absolute(out)
    work = out.with_name(f"{out.name}.work") if work is None else bundle.absolute(work)
    weights = None if inception is None else check_inception(inception)
    processes = Processes(device)
    check_recipe(recipe, processes.count)
    check_packages()
    bundle.check_place(out)
    check_writable(out, folder=True)
    base = load_base(recipe, folder)
    images = _load_images(recipe, folder, seed, flip, classes)
    recipe = _with_features(recipe, images, classes)
    styles = known_styles(recipe, images)
    asked = {
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "flip": flip,
        "data": folder,
        "data_fingerprint": images.fingerprint,
        "inception": None if weights is None else sha256(weights),
        "base_digest": None if base is None else base.digest,
    }
    run = dataclasses.replace(_begin(recipe, asked, work, out, device, processes), base=base)
    with run.folder:
        if run.folder.writes:
            check_disk(recipe, images, out, work)
        words = command or f"ral pretrain --recipe {recipe.name} --seed {seed}"
        _run_stages(run, out, images, styles, weights, words, start)
    return out


def _run_stages(
    run: Pretraining,
    out: Path,
    images: data.Images,
    styles: Styles | None,
    inception: Path | None,
    command: str,
    start: float,
) -> None:
    """All stages, in their order, and the bundle; seconds are counted from ``start``."""
    recipe = run.recipe
    vqvae, metrics = train_vqvae(run, images)
    codes = extract_codes(run, vqvae, images)
    metrics["codebook"] = usage(codes.flat[slice(*codes.splits["train"])], recipe.vqvae)
    feature_nets, metrics["features"] = train_feature_nets(run, images, vqvae)
    first = next(iter(feature_nets.values()), None)
    metrics["reconstruction_distance"] = measure_distance(run, images, vqvae, first, inception)
    oracles, dataset = (), images.name
    if recipe.oracles:
        oracles, codes, metrics["oracle"] = make_oracle(run, vqvae, codes, styles)
        dataset = f"samples of an oracle prior of {images.name}"
    priors, metrics["priors"] = make_priors(run, vqvae, codes)
    discriminators, metrics["discriminators"] = train_discriminators(run, vqvae, priors, codes)
    metrics["seconds"] = time.perf_counter() - start

    if run.folder.writes:
        _write(
            run,
            out,
            codes,
            metrics,
            command,
            vqvae=vqvae,
            discriminators=discriminators,
            priors=priors,
            oracles=oracles,
            feature_nets=feature_nets,
            dataset=dataset,
        )
    run.folder.processes.barrier()


def _load_images(
    recipe: Recipe, folder: str | None, seed: int, flip: bool, classes: bool
) -> data.Images:
    source = "folder" if folder and recipe.source in data.MADE else recipe.source
    count = recipe.count or None
    return data.load(source, recipe.vqvae.image_size, seed, count, flip, folder, classes)


def _with_features(recipe: Recipe, images: data.Images, classes: bool) -> Recipe:
    """The recipe with a feature net for what these images are known to show, where it is known."""
    if classes:
        return dataclasses.replace(recipe, features=FOLDER_CLASSES)
    return recipe if images.targets is not None else dataclasses.replace(recipe, features=None)


def _begin(
    recipe: Recipe,
    asked: dict[str, Any],
    work: Path,
    out: Path,
    device: str,
    processes: Processes,
) -> Pretraining:
    """A run in its work folder, which holds nothing yet or a run of the same images.

    Of a run that was asked for something else, those stages are kept that do not depend on it.
    """

    def stages_anew(was: dict[str, Any], now: dict[str, Any]) -> dict[str, list[str]]:
        anew = changed(was, now)
        if BUNDLE in anew and "vqvae" not in anew and out.exists():
            raise ValueError(
                f"{out} holds a bundle, and the run in {work} would replace it by one of other "
                f"settings ({'; '.join(next(iter(anew.values()))[:5])}): choose another folder for "
                "the bundle (--out), or remove it"
            )
        return anew

    versions = {
        "ral_env": ral_env.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    place = RunFolder(
        work,
        asked,
        kind="pretrain",
        resume=None,
        option="--work",
        notes={"versions": versions},
        processes=processes,
        changed=stages_anew,
    )
    place.write_config()
    processes.barrier()  # what begins anew is set aside
    return Pretraining(recipe, asked["seed"], device, place)


def _write(
    run: Pretraining,
    out: Path,
    codes: SplitCodes,
    metrics: dict[str, Any],
    command: str,
    *,
    vqvae: VQVAE,
    discriminators: dict[str, Trained],
    feature_nets: dict[str, FeatureNet],
    **parts: Any,
) -> None:
    """metrics.json in the work folder, and the bundle, which then has the codes."""
    text = json.dumps(metrics, indent=2) + "\n"
    write_bytes(run.folder.path("metrics.json"), text.encode())
    flat, splits = codes.at_most(run.recipe.keep)
    (kind, (discriminator, scale)), *others = discriminators.items()
    recipe = {"command": command} | json.loads(json.dumps(dataclasses.asdict(run.recipe)))
    bundle.save(
        out,
        vqvae=vqvae,
        codes=flat,
        splits=splits,
        discriminator=discriminator,
        discriminator_input=kind,
        reward_scale=scale,
        other_discriminators=dict(others),
        feature_nets=feature_nets,
        test_features=stored_features(feature_nets, vqvae, codes),
        version=VERSION,
        recipe=recipe | (provenance(run.base) if run.base else {}),
        metrics=metrics,
        half=run.recipe.half,
        **parts,
    )
    remove_codes(run)


if __name__ == "__main__":  # `python -m pretrain.run` is the command, too
    runpy.run_module("pretrain", run_name="__main__", alter_sys=True)

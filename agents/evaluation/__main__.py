"""``ral evaluate``: priors of bundles side by side, and images that anyone's model wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from agents.evaluation import frontier_picture
from agents.evaluation.comparison import Comparison, Settings, check_codecs
from agents.evaluation.image_folder import is_image_folder
from ral_env import bundle as bundles
from ral_env.files import check_writable, write_bytes
from ral_env.tasks import TASKS


def evaluate(
    names: Sequence[str],
    settings: Settings,
    picture: str = "runs/evaluate/frontier.png",
    out: str = "",
) -> None:
    """Evaluate priors of bundles, and folders of images, against the reals of the first bundle.

    Args:
        names: Names or paths of bundles, or environment ids; all must have the VQ-VAE of the
            first, as those that `ral train` leaves have. Folders of images may come after it.
        settings: What is measured.
        picture: PNG file of the frontier's curves.
        out: JSON file to write the figures to.
    """
    folders = [name for name in names if is_image_folder(name)]
    for name in folders:
        if (there := bundles.named(name)) is not None and Path(name).name == name:
            raise ValueError(
                f"{name!r} is the name of a bundle and a folder of images here: write "
                f"{str(there)!r} for the one, {os.path.join(os.curdir, name)!r} for the other"
            )
    loaded = {name: _load(name) for name in names if name not in folders}
    if not loaded:
        raise ValueError(
            f"{names[0]!r} is a folder of images: name the bundle too whose real images they are "
            f"to be measured against, as in `ral evaluate RALDigits-v0 {names[0]}`"
        )
    first = next(iter(loaded.values()))
    check_codecs(list(loaded.values()))
    for name, one in loaded.items():
        if not one.priors and not folders:
            raise ValueError(f"{name!r} has no priors to sample from: leave it out")
    for file in ([picture] if settings.temperatures else []) + ([out] if out else []):
        check_writable(Path(file))
    comparison = Comparison(first, settings)
    for name, one in loaded.items():
        comparison.add_bundle(name, one)
    for folder in folders:
        comparison.add_images(folder)
    print(comparison.text())
    if comparison.frontiers:
        real = comparison.rows[comparison.real_label]
        frontier_picture.save(comparison.frontiers, picture, real, comparison.nll_bound)
        print(f"\nThe frontier's curves: {picture}")
    if out:
        text = json.dumps({"bundles": list(names)} | comparison.record(), indent=2)
        write_bytes(Path(out), f"{text}\n".encode())


def _load(name: str) -> bundles.Bundle:
    task = TASKS.get(name.rpartition(":")[2])
    return bundles.load(name) if task is None else bundles.for_task(task)


def main(argv: list[str] | None = None) -> None:
    """Evaluate priors of bundles, and folders of images, against the reals of the first bundle.

    It prints a row for each bundle, and before them one for as many real training codes, which is
    as near to the held-out ones as a prior can hope to come. Judges are fresh classifiers that
    learn to tell samples from real canvases: "judge AUC" is 0.5 where they cannot. The frontier, a
    second table and a picture, compares the bundles at all temperatures. Folders of images, which
    anyone's model wrote, are a third table.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral evaluate", description=main.__doc__)
    parser.add_argument(
        "bundle",
        nargs="+",
        help="names or paths of bundles, or environment ids, all with the VQ-VAE of the first; and "
        "folders of images",
    )
    parser.add_class_arguments(Settings, as_group=False)
    parser.add_argument(
        "--picture",
        default="runs/evaluate/frontier.png",
        help="PNG file of the frontier's curves (default: %(default)s)",
    )
    parser.add_argument("--out", default="", help="JSON file to write the figures to")
    given = vars(parser.parse_args(argv))
    names, picture, out = (given.pop(name) for name in ("bundle", "picture", "out"))
    evaluate(names, Settings(**given), picture, out)


if __name__ == "__main__":
    main()

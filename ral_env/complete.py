"""``ral complete``: keep the upper rows of an image and let the priors write the rest."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import ral_env  # noqa: F401  registers the ids
from ral_env import images
from ral_env.files import check_writable, write_bytes
from ral_env.nets import joint
from ral_env.picture import tiled
from ral_env.ranges import COUNT, SEED, check_values
from ral_env.tasks import expect_ours

HIDDEN = 128  # grey of the rows that are not kept
TILE, TITLE, PAD = 128, 22, 2  # pixels: an image's least side, the strip of titles, gaps


@dataclass(frozen=True)
class Completion:
    """An image and its completions.

    Attributes:
        rows: rows of the coarsest grid that were kept.
        original: uint8 (3, S, S), the image.
        reconstruction: uint8 (3, S, S), decoded from the codes of the whole image.
        kept: uint8 (3, S, S), decoded from the rows that the priors were given; the rest is grey.
        images: uint8 (n, 3, S, S), the completions.
        codes: int16 (n, length), the codes of the completions. Their kept rows are the same in all
            completions and on every level.
        rewards: float64 (n,), what the environment paid for each: by default the mean normalised
            score, from -1 to 1, real is high.
    """

    rows: int
    original: np.ndarray
    reconstruction: np.ndarray
    kept: np.ndarray
    images: np.ndarray
    codes: np.ndarray
    rewards: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Titles and pictures uint8 (3, S, S), from left to right."""
        written = {f"completion {i}": image for i, image in enumerate(self.images, start=1)}
        return {
            "original": self.original,
            "reconstruction": self.reconstruction,
            "kept": self.kept,
            **written,
        }


def complete(
    envs: Any,
    image: np.ndarray,
    rows: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    peek: bool = False,
) -> Completion:
    """Complete one image several times: once in every canvas of a vector environment.

    The codes of a row depend on pixels below it, because the encoder is convolutional: codes of the
    whole image would tell of the rows that are hidden. Before the image is encoded, those rows are
    therefore replaced by the mirror image of the rows above, unless ``peek`` is set.

    Args:
        envs: ``gym.make_vec(ID, num_envs=n, autoreset_mode="disabled")``.
        image: uint8 (3, S, S) of the environment's size: :func:`ral_env.images.read` gives it.
        rows: rows of the coarsest grid to keep, from the top; None keeps half.
        temperature: temperature of sampling.
        seed: seed of the samples.
        peek: take the codes of the whole image, as the paper does.

    Raises:
        ValueError: if the image has another shape or dtype, no row would be kept or written, or the
            bundle's codec cannot encode.
    """
    envs = envs.unwrapped
    bundle, layout, size = envs.bundle, envs.layout, envs.bundle.image_size
    if image.shape != (3, size, size) or image.dtype != np.uint8:
        raise ValueError(
            f"the image is {image.dtype} {image.shape}, expected uint8 (3, {size}, {size}): "
            "ral_env.images.read(file, size) gives that"
        )
    kept_rows = layout.rows // 2 if rows is None else rows
    if kept_rows not in range(1, layout.rows):
        raise ValueError(
            f"rows={kept_rows}, expected 1 to {layout.rows - 1}: the coarsest grid has "
            f"{layout.rows} rows, and one or more must be left to write"
        )

    if not hasattr(bundle.vqvae, "encode"):
        raise ValueError(
            f"{type(bundle.vqvae).__name__} has no encode(images), which completing an image needs"
        )

    def encode(pixels: np.ndarray) -> list[torch.Tensor]:
        return bundle.vqvae.encode(torch.from_numpy(pixels)[None].float() / 127.5 - 1)

    edge = size * kept_rows // layout.rows
    visible = np.pad(image[:, :edge], ((0, 0), (0, size - edge), (0, 0)), mode="symmetric")
    given = encode(image if peek else visible)
    canvas, _ = envs.reset(options={"start": "continue", "rows": kept_rows, "codes": given})
    grids = joint.sample(
        bundle.priors,
        layout.unflatten(torch.from_numpy(canvas.astype(np.int64))),
        temperature,
        torch.Generator().manual_seed(seed),
    )
    codes = layout.flatten(grids)
    _, rewards, _, _, _ = envs.complete(codes)

    kept = envs.images(layout.flatten(given))[0].copy()
    kept[:, edge:] = HIDDEN
    return Completion(
        rows=kept_rows,
        original=image,
        reconstruction=envs.images(layout.flatten(encode(image)))[0],
        kept=kept,
        images=envs.images(codes),
        codes=codes.numpy().astype(np.int16),
        rewards=rewards,
    )


def sheet(lines: Sequence[Mapping[str, np.ndarray]]) -> Image.Image:
    """One picture of many: a line for each mapping of titles to pictures uint8 (3, S, S).

    The titles of the first line stand above the columns. Small pictures are enlarged without
    smoothing, every pixel to a square.
    """
    tiles = np.stack([tile for line in lines for tile in line.values()])
    scale = -(-TILE // tiles.shape[-1])
    tiles = tiles.repeat(scale, 2).repeat(scale, 3)
    grid = tiled(tiles, len(lines[0]), PAD, 255)
    drawn = Image.new("RGB", (grid.shape[1], grid.shape[0] + TITLE), "white")
    drawn.paste(Image.fromarray(grid), (0, TITLE))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(15)
    for column, title in enumerate(lines[0]):
        left = PAD + column * (tiles.shape[-1] + PAD)
        pen.text((left, TITLE / 2 + 1), title, "black", font, anchor="lm")
    return drawn


def command(
    image: Sequence[str],
    rows: int | None = None,
    count: int = 4,
    env: str = "RALFaces32-v0",
    bundle: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    peek: bool = False,
    out: str = "completion.png",
) -> list[Completion]:
    """Keep the upper rows of images and let a bundle's priors write the rest.

    Args:
        image: Image files. Of an image that is not square the middle is taken.
        rows: Number of rows to keep, counted on the coarsest grid. By default half of them.
        count: Number of completions per image.
        env: Id of the environment.
        bundle: Name or path of a bundle to run it on instead of the one it names.
        temperature: Temperature of sampling.
        seed: Seed of the samples.
        peek: Whether to encode the whole image, as in the paper: codes at the edge then tell of
            the rows that are hidden.
        out: Name of the PNG file.

    Returns:
        A completion for each file; the PNG has a line for each.
    """
    check_values(locals(), count=COUNT, temperature="[0, inf)", seed=SEED)
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"out={out!r} is a folder, expected the name of a PNG file")
    check_writable(path)
    expect_ours(env)
    envs: Any = gym.make_vec(env, num_envs=count, bundle=bundle, autoreset_mode="disabled")
    size = envs.unwrapped.bundle.image_size
    pixels = [images.read(file, size) for file in image]  # before any work is done
    done = [complete(envs, one, rows, temperature, seed, peek) for one in pixels]
    png = io.BytesIO()
    sheet([one.columns() for one in done]).save(png, "PNG")
    write_bytes(path, png.getvalue())

    total = envs.unwrapped.layout.rows
    print(f"{done[0].rows} of {total} rows kept; mean normalised scores, 1 is real:")
    for file, one in zip(image, done, strict=True):
        print(f"{file}: " + ", ".join(f"{reward:+.3f}" for reward in one.rewards))
    print(f"wrote {path}, on {envs.unwrapped.bundle.dataset}")
    envs.close()
    return done


def main(argv: Sequence[str] | None = None) -> None:
    """Keep the upper rows of images and let a bundle's priors write the rest."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="ral complete", description=main.__doc__)
    parser.add_argument(
        "--image",
        nargs="+",
        required=True,
        help="Image files. Of an image that is not square the middle is taken.",
    )
    parser.add_argument(
        "-n", "--count", type=int, default=4, help="Number of completions per image."
    )
    parser.add_function_arguments(
        command, skip={"image", "count"}, as_group=False, as_positional=False
    )
    command(**parser.parse_args(argv))


if __name__ == "__main__":
    main()

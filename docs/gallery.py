"""Draw the README's pictures, all of them unpicked: ``python docs/gallery.py [FOLDER] [NAME ...]``.

``gallery`` has a line an id, its prior's first samples of seed 0 at temperature 1, and below them
faces of which a prior was given the upper half. ``gain`` is MNIST before and after learning in
rounds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

import style

from pretrain.data.face_painter import PaintedFaces
from ral_env import bundle as bundles
from ral_env.complete import complete
from ral_env.nets import joint
from ral_env.picture import tiled, to_bytes
from ral_env.sample import draw
from ral_env.tasks import TASKS

FOLDER = Path(__file__).parent
IDS = ("RALMNIST-v0", "RALFaces32-v0", "RALCelebA64-v0", "RALCelebA128Top-v0", "RALCelebA128-v0",
       "RALCelebA256-v0")  # fmt: skip
WIDTH, GAP = 1060, 4
LEAST = 64  # pixels a side: what is smaller is shown twice as large
HELD_OUT = 90_000_000  # number of the first face that is completed: none learnt from it


def samples(env: str) -> np.ndarray:
    """A line of samples, uint8 (n, 3, S, S)."""
    task = TASKS[env]
    bundle = bundles.load(bundles.SHIPPED / (task.stand_in or task.bundle))
    count = WIDTH // max(task.image_size, LEAST)
    grids = draw(bundle, count, count, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return to_bytes(bundle.vqvae.decode(grids))


def completions(env: str, faces: int = 2, each: int = 3) -> np.ndarray:
    """A line: a held-out face's upper half and its completions, some faces one after another."""
    size = TASKS[env].image_size
    envs = gym.make_vec(f"ral_env:{env}", num_envs=each, autoreset_mode="disabled")
    shown = []
    for number, image in enumerate(PaintedFaces(HELD_OUT, faces, size)[:].numpy()):
        made = complete(envs, image, seed=number)
        shown += [made.kept, *made.images]
    return np.stack(shown)


def line(images: np.ndarray) -> np.ndarray:
    """Images in a line of the gallery's width, uint8 (H, WIDTH, 3)."""
    times = max(1, LEAST // images.shape[-1])
    large = images.repeat(times, 2).repeat(times, 3)
    fits = (WIDTH - GAP) // (large.shape[-1] + GAP)
    made = tiled(large[:fits], fits, GAP, 255)
    left = (WIDTH - made.shape[1]) // 2
    right = WIDTH - made.shape[1] - left
    return np.pad(made, ((0, 0), (left, right), (0, 0)), constant_values=255)


def gallery() -> Image.Image:
    """What the priors paint at each size."""
    lines = [samples(env) for env in IDS] + [completions("RALCelebA128Top-v0")]
    return Image.fromarray(np.concatenate([line(images) for images in lines]))


def gain() -> Figure:
    """Real digits, the prior's, and what it makes of the same noise after learning in rounds."""
    before, after = (bundles.load(name) for name in ("mnist", "mnist-ral"))

    def drawn(priors: Any) -> list[torch.Tensor]:
        return joint.draw(priors, 64, torch.Generator().manual_seed(0))

    columns = {
        "real digits": before.layout.as_grids(before.split("test")[:64]),
        "maximum likelihood": drawn(before.priors),
        "after learning in rounds": drawn(after.priors),
    }
    made, axes = style.figure(2.9, len(columns))
    for axis, (title, grids) in zip(axes[0], columns.items(), strict=True):
        with torch.no_grad():
            images = to_bytes(before.vqvae.decode(grids))
        style.draw_picture(axis, tiled(images, 8, 2, 96), title)
    return made


PICTURES = {"gallery": gallery, "gain": gain}

if __name__ == "__main__":
    style.write_asked(PICTURES, FOLDER, sys.argv[1:])

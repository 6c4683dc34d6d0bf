"""Where images come from: procedural faces, real handwritten digits, or any folder of images."""

from __future__ import annotations

import colorsys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ral_env.images import read

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True)
class Images:
    """Images with their split.

    Args:
        name: what results say the data set is.
        images: uint8 (N, 3, S, S), in the order train, validation, test.
        splits: first and last + 1 index of each part.
        targets: int64 classes (N,), float32 attributes (N, A) in [-1, 1], or None.
        target_kind: ``classes``, ``attributes`` or None.
        skipped: files of a folder that could not be read.
    """

    name: str
    images: np.ndarray
    splits: dict[str, tuple[int, int]]
    targets: np.ndarray | None = None
    target_kind: str | None = None
    skipped: list[str] = field(default_factory=list)


def load(
    source: str | Path,
    size: int,
    seed: int = 0,
    count: int | None = None,
    flip: bool = False,
) -> Images:
    """Images of a source, square, ``size`` pixels a side.

    Args:
        source: ``faces``, ``digits``, or the path of a folder.
        seed: of the faces, or of a folder's split. The digits' split is always the same.
        count: faces to draw, 24,000 if None; images of a folder to use at most.
        flip: double a folder's training part with mirror images; folders only.

    Raises:
        ValueError: if the source is unknown, holds no images, or cannot be flipped.
    """
    if size < 8:
        raise ValueError(f"size={size}, expected at least 8 pixels")
    if count is not None and count < 1:
        raise ValueError(f"count={count}, expected at least 1, or None")
    if source == "faces":
        if flip:
            raise ValueError("flip=True is for folders: draw more faces (count) instead")
        total = 24_000 if count is None else count
        if total < 10:
            raise ValueError(f"count={total}, expected at least 10 faces, to split them in three")
        pixels, attributes = faces(total, size, seed)
        return Images(f"procedural faces, {size} px", pixels, _parts(total, 1 / 12, 1 / 8),
                      attributes, "attributes")  # fmt: skip
    if source == "digits":
        if flip:
            raise ValueError("flip=True mirrors digits into what are no digits: leave it out")
        return digits(size)
    return folder(Path(source), size, seed, count, flip)


def _parts(total: int, validation: float, test: float) -> dict[str, tuple[int, int]]:
    first, second = max(1, round(total * validation)), max(1, round(total * test))
    train = total - first - second
    return {"train": (0, train), "validation": (train, train + first),
            "test": (train + first, total)}  # fmt: skip


# --- real handwritten digits ---


def digits(size: int) -> Images:
    """scikit-learn's 1,797 handwritten digits (8x8, 17 greys), enlarged smoothly.

    Test set of the UCI "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998;
    CC BY 4.0). Split 1,200 / 297 / 300 by a fixed shuffle.

    Raises:
        ValueError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ValueError(
            "the digits come with scikit-learn: pip install 'ral-env[pretrain]'"
        ) from error
    found: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))
    small = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in found.images]
    grey = np.stack([np.asarray(s.resize((size, size), Image.Resampling.BICUBIC)) for s in small])
    return Images(
        "scikit-learn's handwritten digits",
        np.repeat(grey[order, None], 3, axis=1),
        {"train": (0, 1200), "validation": (1200, 1497), "test": (1497, 1797)},
        found.target[order].astype(np.int64),
        "classes",
    )


# --- any folder ---


def folder(root: Path, size: int, seed: int, count: int | None, flip: bool) -> Images:
    """Every image below a folder: centre-cropped to a square, resized (antialiased), RGB.

    Files that cannot be read are left out, with a warning that counts and names them. Split
    90 / 5 / 5 by a seeded shuffle of the sorted names.

    Raises:
        ValueError: if there is no such folder, or fewer than ten readable images in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: expected 'faces', 'digits' or a folder of images")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    order = np.random.default_rng(seed).permutation(len(files))
    pixels, skipped = [], []
    for index in order:
        if count is not None and len(pixels) == count:
            break
        try:
            pixels.append(read(files[index], size))
        except ValueError as error:
            skipped.append(f"{files[index].relative_to(root)} ({error.__cause__})")
    if skipped:
        skipped.sort()
        shown = "; ".join(skipped[:10]) + ("; ..." if len(skipped) > 10 else "")
        warnings.warn(
            f"{len(skipped)} of {len(files)} files in {root} could not be read and were skipped: "
            f"{shown}",
            stacklevel=2,
        )
    if len(pixels) < 10:
        raise ValueError(
            f"{root} holds {len(pixels)} readable images with the endings {', '.join(SUFFIXES)} "
            f"({len(skipped)} unreadable): expected at least 10"
        )
    images = np.stack(pixels)
    parts = _parts(len(images), 0.05, 0.05)
    if flip:
        train = parts["train"][1]
        images = np.concatenate([images[:train], images[:train, :, :, ::-1], images[train:]])
        parts = {name: (a + train * (a > 0), b + train) for name, (a, b) in parts.items()}
    return Images(f"{len(pixels)} images of folder {root.resolve().name}", images, parts,
                  skipped=skipped)  # fmt: skip


# --- procedural faces ---

STYLES = ("bald", "short", "fringe", "long", "mohawk", "afro")
HATS = ("none", "cap", "beanie")
# What a feature net is asked to tell; all in [-1, 1].
FACE_ATTRIBUTES = (
    "turn", "tilt", "x", "y", "scale", "skin", "hair_red", "hair_green", "hair_blue",
    "eye_red", "eye_green", "eye_blue", "openness", "spacing", "smile", "mouth_open",
    "background_red", "background_green", "background_blue", "shirt_red", "shirt_green",
    "shirt_blue", "light", "glasses", "beard", "hat", *(f"style_{s}" for s in STYLES),
)  # fmt: skip

_SKIN = np.array([[255, 224, 196], [241, 194, 155], [214, 160, 115], [165, 110, 72], [98, 62, 42]])
_HAIR = np.array([[38, 28, 24], [92, 58, 34], [222, 184, 92], [178, 74, 36], [190, 190, 196],
                  [92, 70, 170], [32, 132, 120]])  # fmt: skip
_EYES = np.array([[70, 130, 210], [60, 150, 90], [110, 70, 40], [40, 40, 46]])


def faces(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cartoon faces, drawn from parameters. Face i depends on (seed, i) alone.

    Things that stand far apart agree: both eyes' colour, hair on both sides of the face and the
    brows, skin of head, ears and neck, hat and shirt, and the side that the light comes from.

    Returns:
        uint8 images (count, 3, size, size), and float32 attributes (count, A) in [-1, 1], in the
        order of :data:`FACE_ATTRIBUTES`.
    """
    images = np.empty((count, 3, size, size), np.uint8)
    attributes = np.empty((count, len(FACE_ATTRIBUTES)), np.float32)
    together = max(1, 512 * 32**2 // size**2)  # as many as fit the processor's cache
    for first in range(0, count, together):
        index = range(first, min(first + together, count))
        drawn = [_person(np.random.default_rng([seed, i])) for i in index]
        people = {key: np.array([p[key] for p in drawn]) for key in drawn[0]}
        images[index.start : index.stop] = _paint(people, size)
        attributes[index.start : index.stop] = _attributes(people)
    return images, attributes


def _person(rng: np.random.Generator) -> dict:
    """Parameters of one face."""
    tone = rng.uniform(0, 4)
    low = min(int(tone), 3)
    hue, background = rng.uniform(0, 1), rng.uniform(0, 1)
    style = int(rng.choice(6, p=[0.08, 0.24, 0.2, 0.26, 0.08, 0.14]))
    return {
        "turn": rng.uniform(-1, 1), "tilt": rng.uniform(-1, 1),
        "x": rng.uniform(-1, 1), "y": rng.uniform(-1, 1), "scale": rng.uniform(-1, 1),
        "skin": tone / 2 - 1,
        "skin_rgb": _SKIN[low] + (tone - low) * (_SKIN[low + 1] - _SKIN[low]),
        "hair_rgb": np.clip(_HAIR[rng.integers(len(_HAIR))] + rng.normal(0, 6, 3), 0, 255),
        "eye_rgb": _EYES[rng.integers(len(_EYES))],
        "shirt_rgb": np.array(colorsys.hsv_to_rgb(hue, 0.65, 0.85)) * 255,
        "background_rgb": np.array(colorsys.hsv_to_rgb(background, 0.35, 0.92)) * 255,
        "openness": rng.uniform(-1, 1), "spacing": rng.uniform(-1, 1),
        "smile": rng.uniform(-1, 1), "mouth_open": max(0.0, rng.uniform(-1, 1)),
        "light": rng.uniform(-1, 1), "style": style,
        "glasses": rng.random() < 0.25, "beard": rng.random() < 0.22,
        "hat": int(rng.choice(3, p=[0.74, 0.14, 0.12])),
    }  # fmt: skip


def _attributes(p: dict) -> np.ndarray:
    colours = {
        f"{part}_{name}": p[f"{part}_rgb"][:, i] / 127.5 - 1
        for part in ("hair", "eye", "background", "shirt")
        for i, name in enumerate(("red", "green", "blue"))
    }
    styles = {f"style_{s}": 2.0 * (p["style"] == i) - 1 for i, s in enumerate(STYLES)}
    known = p | colours | styles
    known |= {key: 2.0 * (p[key] > 0) - 1 for key in ("glasses", "beard", "hat")}
    return np.stack([known[name] for name in FACE_ATTRIBUTES], 1).astype(np.float32)


def _paint(p: dict, size: int) -> np.ndarray:
    """Parameters (n,) each to uint8 (n, 3, size, size): soft-edged shapes, back to front."""
    n = len(p["turn"])
    p = {k: v.reshape(n, 1, 1) if v.ndim == 1 else v.astype(np.float32) for k, v in p.items()}
    p = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in p.items()}
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    column, row = axis[None, None, :], axis[None, :, None]
    angle, zoom = 0.16 * p["tilt"], 1 + 0.1 * p["scale"]
    cx, cy = 0.1 * p["x"], 0.04 + 0.07 * p["y"]
    dx, dy = (column - cx) / zoom, (row - cy) / zoom
    x = np.cos(angle) * dx + np.sin(angle) * dy  # the head's own axes, y down
    y = -np.sin(angle) * dx + np.cos(angle) * dy
    pixel = 2 / size
    canvas = np.empty((n, 3, size, size), np.float32)
    turn = 0.12 * p["turn"]

    def ellipse(x0, y0, a, b, x=x, y=y):
        """Coverage of an ellipse, in [0, 1]."""
        distance = np.sqrt(((x - x0) / a) ** 2 + ((y - y0) / b) ** 2) - 1
        return np.clip(0.5 - distance * np.minimum(a, b) / pixel, 0, 1)

    def below(line, y=y):
        return np.clip(0.5 + (y - line) / pixel, 0, 1)

    def paint(colour, coverage):
        colour = np.asarray(colour, np.float32).reshape(-1, 3, 1, 1)
        coverage = np.broadcast_to(coverage, (n, size, size))[:, None]
        canvas[:] += (colour - canvas) * coverage

    skin, hair, shirt = p["skin_rgb"], p["hair_rgb"], p["shirt_rgb"]
    style = [p["style"] == i for i in range(len(STYLES))]
    _, short, fringe, long, mohawk, afro = style
    fade = 1 - 0.22 * (row + 1) / 2  # lighter above
    canvas[:] = p["background_rgb"][:, :, None, None] * fade[:, None]

    # Behind the head.
    paint(hair, long * ellipse(0, 0.12, 0.74, 0.86) * (1 - below(0.72)))
    paint(hair, afro * ellipse(0, -0.18, 0.86, 0.74))
    # Neck and shirt; the body does not tilt.
    body = column - cx
    paint(0.86 * skin, ellipse(0, 0.75, 0.24, 0.42, body, row))
    paint(shirt, ellipse(0, 1.22, 0.86, 0.44, body, row))
    # Ears and head.
    for side in (-1, 1):
        paint(0.92 * skin, ellipse(side * 0.56 - turn, 0.06, 0.11, 0.16))
    head = ellipse(0, 0, 0.56, 0.68)
    paint(skin, head)
    paint(0.75 * hair, p["beard"] * head * below(0.26 + 0.25 * np.abs(x - turn)))
    # Hair in front.
    top = ellipse(0, -0.1, 0.62, 0.68)
    paint(hair, short * top * (1 - below(-0.34 + 0.1 * x * np.sign(turn + 1e-6))))
    paint(hair, fringe * top * (1 - below(-0.22 - 0.12 * np.cos(9 * x))))
    paint(hair, fringe * top * (1 - below(0.1)) * (np.abs(x) > 0.47))
    paint(hair, long * top * (1 - below(-0.36 + 0.5 * np.abs(x - 0.15 * np.sign(turn + 1e-6)))))
    paint(hair, mohawk * ellipse(0.5 * turn, -0.62, 0.16, 0.34))
    paint(hair, afro * top * (1 - below(-0.32)))
    # Eyes and brows; a turned head shows them to one side.
    apart, eye_y = 0.23 + 0.03 * p["spacing"], -0.04
    height = 0.085 + 0.035 * p["openness"]
    for side in (-1, 1):
        ex = side * apart + turn
        white = ellipse(ex, eye_y, 0.125, height)
        paint((250, 250, 250), white)
        paint(p["eye_rgb"], white * ellipse(ex + 0.35 * turn, eye_y, 0.08, 0.08))
        paint((15, 15, 20), white * ellipse(ex + 0.35 * turn, eye_y, 0.035, 0.04))
        paint(0.6 * hair, ellipse(ex, eye_y - 0.19, 0.14, 0.03))
    # Nose and mouth.
    paint(0.78 * skin, ellipse(1.35 * turn, 0.16, 0.06, 0.085))
    mouth_y, wide = 0.4, 0.22
    curve = mouth_y - 0.07 * p["smile"] * (((x - turn) / wide) ** 2 - 0.5) * 2
    lips = np.clip(0.5 - (np.abs(y - curve) - 0.028) / pixel, 0, 1) * (np.abs(x - turn) < wide)
    paint((176, 52, 62), lips)
    opened = p["mouth_open"]
    paint((90, 20, 30), (opened > 0.3) * ellipse(turn, mouth_y, 0.13, 0.03 + 0.08 * opened))
    # Glasses: two rings and a bridge.
    for side in (-1, 1):
        ex = side * apart + turn
        ring = ellipse(ex, eye_y, 0.2, 0.18) - ellipse(ex, eye_y, 0.145, 0.125)
        paint((30, 30, 36), p["glasses"] * ring)
    paint((30, 30, 36), p["glasses"] * ellipse(turn, eye_y, 0.07, 0.03))
    # A hat has the shirt's colour.
    crown = ellipse(0, -0.34, 0.64, 0.56)
    paint(shirt, (p["hat"] == 1) * crown * (1 - below(-0.4)))
    paint(0.7 * shirt, (p["hat"] == 1) * ellipse(0.9 * turn, -0.38, 0.66, 0.075))
    paint(shirt, (p["hat"] == 2) * ellipse(0, -0.4, 0.66, 0.56) * (1 - below(-0.3)))
    paint((245, 245, 245), (p["hat"] == 2) * ellipse(0, -0.95, 0.14, 0.12))
    # Light from one side, over everything.
    person = np.clip(canvas * (1 + 0.22 * (p["light"] * x)[:, None]), 0, 255)
    return np.round(person).astype(np.uint8)

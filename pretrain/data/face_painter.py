"""The face painter: cartoon faces that are drawn from parameters, plain or in one tint each."""

from __future__ import annotations

import colorsys
import copy
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from pretrain.data.image_sets import ImageSet, listed

STYLES = ("bald", "short", "fringe", "long", "mohawk", "afro")
TINTS = 8  # hues, evenly around the circle
# What a feature net learns to tell; all in [-1, 1].
FACE_ATTRIBUTES = (
    "turn", "tilt", "x", "y", "scale", "skin", "hair_red", "hair_green", "hair_blue",
    "eye_red", "eye_green", "eye_blue", "openness", "spacing", "smile", "mouth_open",
    "background_red", "background_green", "background_blue", "shirt_red", "shirt_green",
    "shirt_blue", "light", "glasses", "beard", "hat", *(f"style_{s}" for s in STYLES),
)  # fmt: skip

# RGB, 0 to 255.
_SKIN = np.array([[255, 224, 196], [241, 194, 155], [214, 160, 115], [165, 110, 72], [98, 62, 42]])
_HAIR = np.array([[38, 28, 24], [92, 58, 34], [222, 184, 92], [178, 74, 36], [190, 190, 196],
                  [92, 70, 170], [32, 132, 120]])  # fmt: skip
_EYES = np.array([[70, 130, 210], [60, 150, 90], [110, 70, 40], [40, 40, 46]])
_WHITE, _PUPIL, _FRAME = (250, 250, 250), (15, 15, 20), (30, 30, 36)
_LIPS, _THROAT, _BOBBLE = (176, 52, 62), (90, 20, 30), (245, 245, 245)
# YIQ: the weights of red, green and blue in Y, and of I and Q in red, green and blue.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CHROMA = np.array([[0.956, -0.272, -1.106], [0.619, -0.647, 1.703]], np.float32)

People = dict[str, np.ndarray]  # parameters by name, of n faces: (n,), or (n, 3) of a colour


def faces(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cartoon faces, drawn from parameters. Face i depends on (seed, i) alone.

    Things that stand far apart agree: both eyes' colour, hair on both sides of the face and the
    brows, skin of head, ears and neck, hat and shirt, and the side that the light comes from.

    Args:
        count: Number of faces.
        size: Height and width in pixels.
        seed: Seed of the parameters.

    Returns:
        uint8 images (count, 3, size, size), and float32 attributes (count, A) in [-1, 1], in the
        order of :data:`FACE_ATTRIBUTES`.
    """
    images = PaintedFaces(0, count, size, seed)
    return images[:].numpy(), face_attributes(count, seed)


def face_attributes(count: int, seed: int = 0) -> np.ndarray:
    """float32 (count, A) in [-1, 1]: :data:`FACE_ATTRIBUTES` of the faces from the first on."""
    return _attributes(_people(range(count), seed))


class PaintedFaces(ImageSet):
    """The images of :func:`faces`, painted when they are asked for: they need no memory.

    Args:
        first: Number of the first face.
        count: Number of faces.
        size: Height and width in pixels.
        seed: Seed of the parameters.
    """

    def __init__(self, first: int, count: int, size: int, seed: int = 0):
        self.numbers, self.size, self.seed = range(first, first + count), size, seed

    def identity(self) -> bytes:
        """The numbers of its faces, their size and their seed."""
        return f"{self.numbers} of {self.size} pixels, seed {self.seed}".encode()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, indices: slice | Tensor) -> Tensor:
        chosen = [self.numbers[index] for index in listed(indices, len(self))]
        images = np.empty((len(chosen), 3, self.size, self.size), np.uint8)
        together = max(1, 512 * 32**2 // self.size**2)  # as many as fit the processor's cache
        for start in range(0, len(chosen), together):
            part = chosen[start : start + together]
            images[start : start + len(part)] = paint(_people(part, self.seed), self.size)
        return torch.from_numpy(images)


def _people(numbers: Iterable[int], seed: int) -> People:
    drawn = [draw_person(np.random.default_rng([seed, number])) for number in numbers]
    return {key: np.array([person[key] for person in drawn]) for key in drawn[0]}


def tinted_faces(
    count: int, size: int = 32, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cartoon faces in one of 8 tints each: the whole picture has one hue.

    The hue is that of everything but black and white, so a picture that changes it midway is wrong,
    and looks it. It says nothing of the face: no tint is harder than another.

    Args:
        count: Number of faces.
        size: Height and width in pixels.
        seed: Seed of the faces; the tints follow one another.

    Returns:
        uint8 images (count, 3, size, size); float32 attributes (count, A + 2) in [-1, 1], those of
        :func:`faces` and the cosine and sine of the hue; int64 tints (count,) from 0 to 7.
    """
    images, attributes = faces(count, size, seed)
    tints = np.arange(count) % TINTS  # face i depends on (seed, i) alone
    hues = 2 * np.pi * tints / TINTS
    circle = np.stack([np.cos(hues), np.sin(hues)], 1).astype(np.float32)
    for first in range(0, count, 2048):
        part = slice(first, first + 2048)
        images[part] = _tinted(images[part], circle[part])
    return images, np.concatenate([attributes, circle], 1), tints


def _tinted(images: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Each image's brightness in one hue (n, 2), a direction in the I-Q plane of YIQ."""
    luma = np.tensordot(images / np.float32(255), _LUMA, (1, 0))  # (n, S, S)
    chroma = 1.2 * luma * (1 - luma)
    offsets = (hue @ _CHROMA)[:, :, None, None]  # of red, green and blue
    tinted = luma[:, None] + chroma[:, None] * offsets
    return (tinted.clip(0, 1) * 255).round().astype(np.uint8)


def draw_person(rng: np.random.Generator) -> dict:
    """Parameters of one face, drawn in a fixed order: numbers, and colours as arrays (3,)."""
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
        # 0 is no hat, 1 a cap, 2 a beanie.
        "hat": int(rng.choice(3, p=[0.74, 0.14, 0.12])),
    }  # fmt: skip


def _attributes(p: People) -> np.ndarray:
    colours = {
        f"{part}_{name}": p[f"{part}_rgb"][:, i] / 127.5 - 1
        for part in ("hair", "eye", "background", "shirt")
        for i, name in enumerate(("red", "green", "blue"))
    }
    styles = {f"style_{s}": 2.0 * (p["style"] == i) - 1 for i, s in enumerate(STYLES)}
    known = p | colours | styles
    known |= {key: 2.0 * (p[key] > 0) - 1 for key in ("glasses", "beard", "hat")}
    return np.stack([known[name] for name in FACE_ATTRIBUTES], 1).astype(np.float32)


def paint(people: People, size: int) -> np.ndarray:
    """Parameters of n faces to uint8 (n, 3, size, size): soft-edged shapes, back to front."""
    p = {k: v.reshape(-1, 1, 1) if v.ndim == 1 else v for k, v in people.items()}
    p = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in p.items()}
    p = {k: v.astype(np.float32) if v.ndim == 2 else v for k, v in p.items()}
    canvas = _Canvas(p, size)
    style = {name: p["style"] == number for number, name in enumerate(STYLES)}
    canvas.of(style["long"], _paint_hair_behind)
    canvas.of(style["afro"], _paint_afro_behind)
    _paint_body(canvas)
    _paint_head(canvas)
    canvas.of(p["beard"], _paint_beard)
    canvas.of(style["short"], _paint_short_hair)
    canvas.of(style["fringe"], _paint_fringe)
    canvas.of(style["long"], _paint_long_hair)
    canvas.of(style["mohawk"], _paint_mohawk)
    canvas.of(style["afro"], _paint_afro)
    _paint_eyes(canvas)
    _paint_nose_and_lips(canvas)
    canvas.of(p["mouth_open"] > 0.3, _paint_throat)
    canvas.of(p["glasses"], _paint_glasses)
    canvas.of(p["hat"] == 1, _paint_cap)
    canvas.of(p["hat"] == 2, _paint_beanie)
    # Light from one side, over everything.
    lit = np.clip(canvas.pixels * (1 + 0.22 * (p["light"] * canvas.x)[:, None]), 0, 255)
    return np.round(lit).astype(np.uint8)


class _Canvas:
    """n pictures and the coordinates of their pixels; coordinates run from -1 to 1, y downwards.

    Painting is most of the time that learning from faces takes, so nothing is computed where it
    would not show: shapes are drawn on the part of the canvas that they touch (:meth:`near`), and
    on the pictures of those people who have them (:meth:`of`).

    Attributes:
        people: Parameters of the n faces.
        pixels: float32 (n, 3, rows, columns), 0 to 255: the background at first.
        x, y: Coordinates in the head's system, which moves, tilts and grows with it.
        body_x, body_y: Coordinates of the body, which does not tilt.
        turn: How far a turned head moves its features sideways.
        apart: Distance of the eyes from the middle.
    """

    def __init__(self, people: People, size: int):
        p = self.people = people
        n = len(p["turn"])
        self.axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        column, row = self.axis[None, None, :], self.axis[None, :, None]
        self.angle, self.zoom = 0.16 * p["tilt"], 1 + 0.1 * p["scale"]
        self.centre = 0.1 * p["x"], 0.04 + 0.07 * p["y"]
        cx, cy = self.centre
        dx, dy = (column - cx) / self.zoom, (row - cy) / self.zoom
        self.x = np.cos(self.angle) * dx + np.sin(self.angle) * dy
        self.y = -np.sin(self.angle) * dx + np.cos(self.angle) * dy
        self.body_x, self.body_y = column - cx, row
        self.turn = 0.12 * p["turn"]
        self.apart = 0.23 + 0.03 * p["spacing"]
        self.pixel = 2 / size
        self.pixels = np.empty((n, 3, size, size), np.float32)
        fade = 1 - 0.22 * (row + 1) / 2  # lighter above
        self.pixels[:] = p["background_rgb"][:, :, None, None] * fade[:, None]

    def of(self, have: np.ndarray, draw: Callable[[_Canvas], None]) -> None:
        """Draw on the pictures of those people alone who have it: bool (n, 1, 1)."""
        who = np.flatnonzero(have)
        if not len(who):
            return
        part = copy.copy(self)
        part.people = {name: values[who] for name, values in self.people.items()}
        part.pixels, part.x, part.y = self.pixels[who], self.x[who], self.y[who]
        part.turn, part.apart = self.turn[who], self.apart[who]
        part.angle, part.zoom = self.angle[who], self.zoom[who]
        part.centre = self.centre[0][who], self.centre[1][who]
        draw(part)
        self.pixels[who] = part.pixels

    def near(self, x0, y0, a, b) -> _Canvas:
        """The part of the canvas that an ellipse touches in any picture: what is painted there is
        painted here."""
        touched = 1 + self.pixel / np.minimum(a, b)  # twice as far as its soft edge reaches
        a, b = a * touched, b * touched
        cos, sin = np.cos(self.angle), np.abs(np.sin(self.angle))
        x = self.centre[0] + self.zoom * (cos * x0 - np.sin(self.angle) * y0)
        y = self.centre[1] + self.zoom * (np.sin(self.angle) * x0 + cos * y0)
        columns = self._between(x, self.zoom * (cos * a + sin * b))
        rows = self._between(y, self.zoom * (sin * a + cos * b))
        part = copy.copy(self)
        part.x, part.y = self.x[:, rows, columns], self.y[:, rows, columns]
        part.pixels = self.pixels[:, :, rows, columns]
        return part

    def _between(self, middle: np.ndarray, reach: np.ndarray) -> slice:
        first, last = np.searchsorted(self.axis, [np.min(middle - reach), np.max(middle + reach)])
        return slice(first, last)

    def ellipse(self, x0, y0, a, b, x=None, y=None):
        """Coverage in [0, 1] of an ellipse with centre (x0, y0) and half axes a and b."""
        x, y = self.x if x is None else x, self.y if y is None else y
        distance = np.sqrt(((x - x0) / a) ** 2 + ((y - y0) / b) ** 2) - 1
        return np.clip(0.5 - distance * np.minimum(a, b) / self.pixel, 0, 1)

    def below(self, line):
        """Coverage in [0, 1] of what is below a line, a height that may depend on x."""
        return np.clip(0.5 + (self.y - line) / self.pixel, 0, 1)

    def paint(self, colour, coverage) -> None:
        """Lay a colour, (3,) or (n, 3), over what is there; ``coverage`` 1 hides it."""
        colour = np.asarray(colour, np.float32).reshape(-1, 3, 1, 1)
        self.pixels[:] += (colour - self.pixels) * coverage[:, None]

    def paint_ellipse(self, colour, x0, y0, a, b) -> None:
        """Lay a colour over an ellipse."""
        part = self.near(x0, y0, a, b)
        part.paint(colour, part.ellipse(x0, y0, a, b))


def _paint_hair_behind(canvas: _Canvas) -> None:
    back = canvas.ellipse(0, 0.12, 0.74, 0.86)
    canvas.paint(canvas.people["hair_rgb"], back * (1 - canvas.below(0.72)))


def _paint_afro_behind(canvas: _Canvas) -> None:
    canvas.paint_ellipse(canvas.people["hair_rgb"], 0, -0.18, 0.86, 0.74)


def _paint_body(canvas: _Canvas) -> None:
    """Neck and shirt."""
    p, body = canvas.people, {"x": canvas.body_x, "y": canvas.body_y}
    canvas.paint(0.86 * p["skin_rgb"], canvas.ellipse(0, 0.75, 0.24, 0.42, **body))
    canvas.paint(p["shirt_rgb"], canvas.ellipse(0, 1.22, 0.86, 0.44, **body))


_HEAD = 0, 0, 0.56, 0.68


def _paint_head(canvas: _Canvas) -> None:
    """Ears and head."""
    skin = canvas.people["skin_rgb"]
    for side in (-1, 1):
        canvas.paint_ellipse(0.92 * skin, side * 0.56 - canvas.turn, 0.06, 0.11, 0.16)
    canvas.paint_ellipse(skin, *_HEAD)


def _paint_beard(canvas: _Canvas) -> None:
    canvas = canvas.near(*_HEAD)
    jaw = canvas.below(0.26 + 0.25 * np.abs(canvas.x - canvas.turn))
    canvas.paint(0.75 * canvas.people["hair_rgb"], canvas.ellipse(*_HEAD) * jaw)


_HAIR_IN_FRONT = 0, -0.1, 0.62, 0.68


def _paint_hair_above(canvas: _Canvas, line) -> None:
    """Hair in front of the head, above a line."""
    above = canvas.ellipse(*_HAIR_IN_FRONT) * (1 - canvas.below(line))
    canvas.paint(canvas.people["hair_rgb"], above)


def _paint_short_hair(canvas: _Canvas) -> None:
    canvas = canvas.near(*_HAIR_IN_FRONT)
    _paint_hair_above(canvas, -0.34 + 0.1 * canvas.x * np.sign(canvas.turn + 1e-6))


def _paint_fringe(canvas: _Canvas) -> None:
    canvas = canvas.near(*_HAIR_IN_FRONT)
    _paint_hair_above(canvas, -0.22 - 0.12 * np.cos(9 * canvas.x))
    sides = (1 - canvas.below(0.1)) * (np.abs(canvas.x) > 0.47)
    canvas.paint(canvas.people["hair_rgb"], canvas.ellipse(*_HAIR_IN_FRONT) * sides)


def _paint_long_hair(canvas: _Canvas) -> None:
    canvas = canvas.near(*_HAIR_IN_FRONT)
    parting = 0.15 * np.sign(canvas.turn + 1e-6)
    _paint_hair_above(canvas, -0.36 + 0.5 * np.abs(canvas.x - parting))


def _paint_mohawk(canvas: _Canvas) -> None:
    canvas.paint_ellipse(canvas.people["hair_rgb"], 0.5 * canvas.turn, -0.62, 0.16, 0.34)


def _paint_afro(canvas: _Canvas) -> None:
    _paint_hair_above(canvas.near(*_HAIR_IN_FRONT), -0.32)


_EYE_Y = -0.04


def _paint_eyes(canvas: _Canvas) -> None:
    """Eyes and brows; a turned head shows them to one side."""
    p, turn, height = canvas.people, canvas.turn, 0.085 + 0.035 * canvas.people["openness"]
    for side in (-1, 1):
        x = side * canvas.apart + turn
        eye = canvas.near(x, _EYE_Y, 0.125, height)
        white = eye.ellipse(x, _EYE_Y, 0.125, height)
        eye.paint(_WHITE, white)
        eye.paint(p["eye_rgb"], white * eye.ellipse(x + 0.35 * turn, _EYE_Y, 0.08, 0.08))
        eye.paint(_PUPIL, white * eye.ellipse(x + 0.35 * turn, _EYE_Y, 0.035, 0.04))
        canvas.paint_ellipse(0.6 * p["hair_rgb"], x, _EYE_Y - 0.19, 0.14, 0.03)


_MOUTH_Y = 0.4


def _paint_nose_and_lips(canvas: _Canvas) -> None:
    p, wide = canvas.people, 0.22
    canvas.paint_ellipse(0.78 * p["skin_rgb"], 1.35 * canvas.turn, 0.16, 0.06, 0.085)
    # The lips' ends are 0.07 from their middle, and they are 0.028 thick: the box has room.
    mouth = canvas.near(canvas.turn, _MOUTH_Y, wide, 0.15)
    x, y = mouth.x - mouth.turn, mouth.y
    curve = _MOUTH_Y - 0.07 * p["smile"] * ((x / wide) ** 2 - 0.5) * 2
    line = np.clip(0.5 - (np.abs(y - curve) - 0.028) / mouth.pixel, 0, 1)
    mouth.paint(_LIPS, line * (np.abs(x) < wide))


def _paint_throat(canvas: _Canvas) -> None:
    opened = canvas.people["mouth_open"]
    canvas.paint_ellipse(_THROAT, canvas.turn, _MOUTH_Y, 0.13, 0.03 + 0.08 * opened)


def _paint_glasses(canvas: _Canvas) -> None:
    """Two rings and a bridge."""
    for side in (-1, 1):
        x = side * canvas.apart + canvas.turn
        eye = canvas.near(x, _EYE_Y, 0.2, 0.18)
        ring = eye.ellipse(x, _EYE_Y, 0.2, 0.18) - eye.ellipse(x, _EYE_Y, 0.145, 0.125)
        eye.paint(_FRAME, ring)
    canvas.paint_ellipse(_FRAME, canvas.turn, _EYE_Y, 0.07, 0.03)


def _paint_cap(canvas: _Canvas) -> None:
    """Of the shirt's colour, with its peak."""
    shirt, crown = canvas.people["shirt_rgb"], (0, -0.34, 0.64, 0.56)
    top = canvas.near(*crown)
    top.paint(shirt, top.ellipse(*crown) * (1 - top.below(-0.4)))
    canvas.paint_ellipse(0.7 * shirt, 0.9 * canvas.turn, -0.38, 0.66, 0.075)


def _paint_beanie(canvas: _Canvas) -> None:
    """Of the shirt's colour, with a bobble."""
    crown = 0, -0.4, 0.66, 0.56
    top = canvas.near(*crown)
    top.paint(canvas.people["shirt_rgb"], top.ellipse(*crown) * (1 - top.below(-0.3)))
    canvas.paint_ellipse(_BOBBLE, 0, -0.95, 0.14, 0.12)

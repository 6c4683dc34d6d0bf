"""What the page may ask for: a function a question, whose answer depends on its arguments alone.

A question's arguments come as JSON. A dict is answered as JSON, bytes are a file. A bad argument is
a ValueError, whose words the page shows.
"""

from __future__ import annotations

import base64
import inspect
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ral_env import film, images
from ral_env.complete import complete as complete_image
from ral_env.complete import sheet
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.files import read_rows
from ral_env.picture import contact_sheet
from ral_env.ranges import SEED, check_values
from ral_env.viewer import paintings
from ral_env.viewer.sources import REAL, Library, Nets, Source

TEMPERATURE = "[0, 10]"
MOST = 16  # canvases that one question has painted
CANDIDATES = 5  # codes that are shown of those that may come next
FRAME_PIXELS = 2**23  # of the frames of one answer
FILM_FRAMES = 80  # of a GIF, about

Answer = dict[str, Any] | bytes


def sources(library: Library) -> Answer:
    """What there is to open."""
    return library.offered()


def source(library: Library, *, source: str) -> Answer:
    """What a source is."""
    found = library.open(source)
    layout = found.layout
    return {
        "source": source,
        "dataset": found.bundle.dataset,
        "edition": found.bundle.edition,
        "note": found.note,
        "image_size": found.bundle.image_size,
        "levels": layout.levels,
        "num_codes": layout.num_codes,
        "min_rows": found.scorer.min_rows,
        "policies": [{"name": n, "title": title} for n, title in found.policies().items()],
        "real": len(found.bundle.split("test")),
        "is_run": found.run is not None,
    }


def painting(
    library: Library, *, source: str, policy: str, seed: int = 0, temperature: float = 1.0
) -> Answer:
    """A canvas that a policy has painted, or a real one, and what is known of each of its cells.

    ``entropies`` and ``nats`` are the policy's, of a real picture the MLE prior's.
    """
    found, seed, temperature = library.open(source), _seed(seed), _temperature(temperature)
    nets = _nets(found, policy)
    if policy == REAL:
        canvas = paintings.real(found, seed)
    else:
        empty = np.full(found.layout.length, found.layout.empty, np.int16)
        canvas = paintings.sample(found, nets, empty, 1, seed, temperature)[0]
    answer = {"codes": canvas.tolist(), "reward": float(paintings.rewards(found, canvas[None])[0])}
    if nets:
        entropies, nats = paintings.surprise(found, nets, canvas, temperature)
        answer |= {"entropies": _rounded(entropies), "nats": _rounded(nats)}
    return answer


def frames(
    library: Library, *, source: str, codes: list[int], steps: list[int] | None = None
) -> Answer:
    """A PNG of frames, one below the other: of the canvas as it is, or as it was at some steps."""
    found = library.open(source)
    canvas = _canvas(found, codes)
    size = found.bundle.image_size
    most = max(1, FRAME_PIXELS // size**2)
    if steps is not None and not (isinstance(steps, list) and 1 <= len(steps) <= most):
        raise ValueError(f"steps={steps!r}, expected a list of 1 to {most} steps")
    at = [_whole("step", step, 0, found.layout.length) for step in steps or ()]
    shown = [paintings.upto(found.layout, canvas, step) for step in at] or [canvas]
    return paintings.png(np.concatenate([paintings.frame(found, each) for each in shown]))


def candidates(
    library: Library,
    *,
    source: str,
    policy: str,
    codes: list[int],
    cell: int,
    temperature: float = 1.0,
) -> Answer:
    """The five most probable codes of a cell given those before it, with patches; and all of them.

    If the cell holds a code, ``written`` is that code.
    """
    found, canvas = library.open(source), _canvas(library.open(source), codes)
    cell = _whole("cell", cell, 0, found.layout.length - 1)
    if (paintings.upto(found.layout, canvas, cell)[:cell] == found.layout.empty).any():
        raise ValueError(f"cell={cell}, expected one before which no cell is empty")
    nets = _nets(found, policy)
    if not nets:
        raise ValueError(f"the bundle of {source} has no priors: nothing is expected of a cell")
    probabilities = paintings.expected(found, nets, canvas, cell, _temperature(temperature))
    likeliest = np.argsort(-probabilities, kind="stable")[:CANDIDATES]
    patches = paintings.patches(found, canvas, cell, likeliest)
    written = int(canvas[cell])
    level, row, column = paintings.place(found.layout, cell)
    return {
        "level": level, "row": row, "column": column,
        "written": None if written == found.layout.empty else written,
        "probabilities": _rounded(probabilities, 5),
        "candidates": [
            {"code": int(code), "patch": _url(patch)}
            for code, patch in zip(likeliest, patches, strict=True)
        ],
    }  # fmt: skip


def scores(library: Library, *, source: str, codes: list[int], rows: int) -> Answer:
    """The score map of the first rows, and of each cell; see :func:`paintings.scores`."""
    found = library.open(source)
    canvas = _canvas(found, codes)
    rows = _whole("rows", rows, found.scorer.min_rows, found.layout.rows)
    if (canvas[found.layout.head(rows)] == found.layout.empty).any():
        raise ValueError(f"rows={rows}, expected rows that are written")
    score_map, cells = paintings.scores(found, canvas, rows)
    return {"map": _rounded(score_map), "cells": _rounded(cells)}


def complete(
    library: Library,
    *,
    source: str,
    picture: bytes,
    name: str = "the picture",
    policy: str = "mle",
    rows: int | None = None,
    count: int = 4,
    seed: int = 0,
    temperature: float = 1.0,
) -> Answer:
    """Completions of a picture, as ``ral complete`` makes them; errors call the file ``name``."""
    found = library.open(source)
    pixels = images.read(picture, found.bundle.image_size, name=name)
    bundle = _with(found, policy)
    envs = LatentCanvasVectorEnv(_whole("count", count, 1, MOST), bundle, autoreset_mode="disabled")
    done = complete_image(envs, pixels, rows, _temperature(temperature), _seed(seed))
    # Decoded one by one, as everywhere here; in a batch a pixel may round to the next grey.
    shown = [paintings.frame(found, codes).transpose(2, 0, 1) for codes in done.codes]
    done = replace(done, images=np.stack(shown))
    drawn = io.BytesIO()
    sheet([done.columns()]).save(drawn, "PNG")
    return {
        "rows": done.rows,
        "of": found.layout.rows,
        "pictures": [
            {"title": title, "url": _url(tile.transpose(1, 2, 0))}
            for title, tile in done.columns().items()
        ],
        "rewards": _rounded(done.rewards),
        "codes": done.codes.tolist(),
        "sheet": _data(drawn.getvalue()),
    }


def real_picture(library: Library, *, source: str, number: int = 0) -> Answer:
    """A PNG of a real picture."""
    found = library.open(source)
    return paintings.png(paintings.frame(found, paintings.real(found, _seed(number))))


def contact(
    library: Library,
    *,
    source: str,
    policy: str,
    count: int = MOST,
    seed: int = 0,
    temperature: float = 1.0,
) -> Answer:
    """A PNG of a policy's pictures, or of real ones; the same seed is the same noise."""
    found, count, seed = library.open(source), _whole("count", count, 1, MOST), _seed(seed)
    nets = _nets(found, policy)
    if policy == REAL:
        canvases = np.stack([paintings.real(found, seed * count + i) for i in range(count)])
    else:
        empty = np.full(found.layout.length, found.layout.empty, np.int16)
        canvases = paintings.sample(found, nets, empty, count, seed, _temperature(temperature))
    shown = np.stack([paintings.frame(found, canvas) for canvas in canvases])
    return paintings.png(contact_sheet(shown.transpose(0, 3, 1, 2)))


def curves(library: Library, *, source: str) -> Answer:
    """The figures that a run has logged so far: a list a column, None where there was none."""
    run = library.open(source).run
    file = run / "progress.csv" if run else None
    rows = read_rows(file) if file and file.is_file() else []
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {"columns": {name: [_finite(row.get(name)) for row in rows] for name in names}}


def start(library: Library, *, source: str, rows: int, seed: int = 0) -> Answer:
    """A canvas to play on: the first rows are those of a real picture, all else is empty."""
    found = library.open(source)
    head = found.layout.head(_whole("rows", rows, 0, found.layout.rows - 1))
    canvas = np.where(head, paintings.real(found, _seed(seed)), found.layout.empty)
    return {"codes": canvas.tolist()}


def finish(
    library: Library,
    *,
    source: str,
    policy: str,
    codes: list[int],
    count: int = 8,
    seed: int = 0,
    temperature: float = 1.0,
) -> Answer:
    """What a canvas comes to if a policy writes its empty cells, ``count`` times: codes, rewards.

    A canvas without empty cells comes to what it is.
    """
    found = library.open(source)
    canvas = _canvas(found, codes)
    done = canvas[None]
    if (canvas == found.layout.empty).any():
        nets, count = _nets(found, policy), _whole("count", count, 1, MOST)
        done = paintings.sample(found, nets, canvas, count, _seed(seed), _temperature(temperature))
    return {"codes": done.tolist(), "rewards": _rounded(paintings.rewards(found, done))}


def palette(library: Library, *, source: str, level: int = 0, above: int = 0) -> Answer:
    """A PNG of the patches of all codes of a level, one below the other."""
    found = library.open(source)
    level = _whole("level", level, 0, len(found.layout.levels) - 1)
    above = _whole("above", above, 0, found.layout.num_codes - 1)
    return paintings.png(np.concatenate(paintings.palette(found, level, above)))


def picture(library: Library, *, source: str, codes: list[int]) -> Answer:
    """A PNG of a canvas, pixel for pixel what the page shows."""
    found = library.open(source)
    return paintings.png(paintings.frame(found, _canvas(found, codes)))


def npy(library: Library, *, source: str, codes: list[list[int]]) -> Answer:
    """An npy file of canvases, int16 (n, length); cells that are not written hold num_codes."""
    found = library.open(source)
    if not isinstance(codes, list) or not codes:
        raise ValueError("codes: expected a list of canvases")
    return paintings.npy(np.stack([_canvas(found, each) for each in codes]))


def gif(library: Library, *, source: str, codes: list[int], fps: float = 12) -> Answer:
    """A film of how a canvas is written."""
    found = library.open(source)
    canvas, length = _canvas(found, codes), found.layout.length
    check_values({"fps": fps}, fps="[1, 50]")
    every = max(1, length // FILM_FRAMES)
    steps = [*range(0, length, every), length]
    shown = [paintings.frame(found, paintings.upto(found.layout, canvas, step)) for step in steps]
    return film.gif(shown, max(256, found.bundle.image_size), float(fps))


QUESTIONS: dict[str, Callable[..., Answer]] = {
    question.__name__: question
    for question in (
        sources, source, painting, frames, candidates, scores, complete, real_picture, contact,
        curves, start, finish, palette, picture, npy, gif,
    )
}  # fmt: skip


def answer(library: Library, question: str, arguments: Mapping[str, Any]) -> Answer:
    """Answer a question of that name.

    Raises:
        ValueError: if there is none, it has no such arguments, or one of them is bad.
    """
    if question not in QUESTIONS:
        raise ValueError(f"no question {question!r}, expected one of {[*QUESTIONS]}")
    try:
        inspect.signature(QUESTIONS[question]).bind(library, **arguments)
    except TypeError as error:
        raise ValueError(f"{question}: {error}") from error
    return QUESTIONS[question](library, **arguments)


def _nets(source: Source, policy: str) -> Nets:
    """The nets of a policy; beside real pictures the MLE prior's, where there is one."""
    return source.nets(policy) if policy != REAL else source.mle


def _with(source: Source, policy: str) -> Any:
    """The bundle with a policy in place of its priors."""
    return replace(source.bundle, priors=tuple(source.nets(policy)))


def _canvas(source: Source, codes: Any) -> np.ndarray:
    """Codes and EMPTY as an int16 (length,) canvas."""
    length, empty = source.layout.length, source.layout.empty
    whole = isinstance(codes, list) and all(type(code) is int for code in codes)
    if not whole or len(codes) != length or not all(0 <= code <= empty for code in codes):
        raise ValueError(
            f"codes: expected {length} whole numbers from 0 to {empty}, which is an empty cell"
        )
    return np.array(codes, np.int16)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name}={value!r}, expected a whole number from {low} to {high}")
    return value


def _seed(value: Any) -> int:
    return _whole("seed", value, 0, int(SEED.split(",")[1].strip(" ]")))


def _temperature(value: Any) -> float:
    check_values({"temperature": value}, temperature=TEMPERATURE)
    return float(value)


def _finite(value: float | None) -> float | None:
    """JSON has no words for what is not finite."""
    return value if value is not None and math.isfinite(value) else None


def _rounded(values: np.ndarray, digits: int = 4) -> Any:
    return np.round(values.astype(np.float64), digits).tolist()


def _url(pixels: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "PNG")
    return _data(data.getvalue())


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

"""The pictures that pages open with are of the pages' numbers, and are shown where they belong;
their lines are told apart by colour-blind readers and in grey.
"""

from __future__ import annotations

import re
import runpy
from itertools import combinations
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from ral_env import reference

DOCS = Path(__file__).parents[2] / "docs"
MADE = runpy.run_path(str(DOCS / "claims.py"))


def page_of(name: str) -> Path:
    """The page that a picture belongs to."""
    return DOCS / "environments" / f"{name}.md" if name.startswith("RAL") else DOCS / f"{name}.md"


def test_every_picture_is_drawn_and_there_is_no_other():
    assert {file.stem for file in (DOCS / "claims").iterdir()} == set(MADE["PICTURES"])
    measured = [env for env, found in reference.scores().items()
                if "fd" in found["rows"][reference.PRIOR]]  # fmt: skip
    assert set(measured) <= set(MADE["PICTURES"])


@pytest.mark.parametrize("name", MADE["PICTURES"])
def test_a_page_opens_with_its_picture(name):
    opening = re.split(r"^## ", page_of(name).read_text(encoding="utf-8"), flags=re.MULTILINE)[0]
    assert f"claims/{name}.png)" in opening
    assert f"`python docs/claims.py {name}`" in " ".join(opening.split())


@pytest.mark.parametrize("name", MADE["PICTURES"])
def test_a_committed_picture_is_what_its_numbers_draw_today(name, tmp_path):
    MADE["style"].write(MADE["PICTURES"], tmp_path, [name])
    with (
        Image.open(tmp_path / f"{name}.png") as new,
        Image.open(DOCS / "claims" / f"{name}.png") as old,
    ):
        assert new.size == old.size, f"run `python docs/claims.py {name}`"
        apart = np.abs(np.asarray(new, float) - np.asarray(old, float))
    assert apart.mean() < 0.5, f"run `python docs/claims.py {name}`"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("-1.86 ± 1.31", (-1.86, -3.17, -0.55)),
        ("-2.07 [-3.23, -0.78]", (-2.07, -3.23, -0.78)),
        ("+0.42 ± 1.09", (0.42, -0.67, 1.51)),
        ("-3.91 ± 0.18 of 22.2", (-3.91, -4.09, -3.73)),
        (" 9.3 ", (9.3, 9.3, 9.3)),
        (".44", (0.44, 0.44, 0.44)),
    ],
)
def test_a_cell_is_read_with_its_interval(cell, expected):
    assert MADE["value"](cell) == pytest.approx(expected)


def test_a_cell_without_a_number_is_named():
    with pytest.raises(ValueError, match="'' begins with no number"):
        MADE["value"]("")


def test_a_line_of_text_that_begins_with_a_bar_is_no_table():
    assert [next(iter(table[0])) for table in MADE["tables"]("rounds.md")][:2] == ["loss", ""]


# What is left of linear RGB without one of the three cones (Machado et al. 2009, severity 1).
CONES = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(color: str) -> np.ndarray:
    """A colour's light, linear RGB."""
    shown = np.array(to_rgb(color))
    return np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)


def test_lines_are_told_apart_by_colour_blind_readers_and_in_grey():
    lines = MADE["style"].LINES
    with matplotlib.style.context(MADE["style"].LOOK):
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()
    for key in ("linestyle", "marker"):
        assert cycle[key] == [line[key] for line in lines] and len(set(cycle[key])) == len(lines)
    lights = [linear(line["color"]) for line in lines]
    for a, b in combinations(lights, 2):
        greys = [116 * np.cbrt(light @ [0.2126, 0.7152, 0.0722]) - 16 for light in (a, b)]
        assert abs(greys[0] - greys[1]) > 8  # of 100, from black to white
        for cones in CONES.values():
            seen = [np.cbrt(np.clip(np.array(cones) @ light, 0, 1)) for light in (a, b)]
            assert np.linalg.norm(seen[0] - seen[1]) > 0.08

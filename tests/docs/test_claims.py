"""The pictures that pages open with are of the pages' numbers, and are shown where they belong."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
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

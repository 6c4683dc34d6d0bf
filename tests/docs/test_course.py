"""The course's notebooks are what their Python says, ran without an error, and assert something."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COURSE = Path(__file__).parents[2] / "docs" / "course"
SOURCES = sorted(COURSE.glob("[0-9]-*.py"))
HOW = re.compile(r"^\*Run (shortened \(`FAST=1`\)|at full length) on one thread, in \d+ s\.\*$")


def cells(source: Path) -> list[tuple[str, str]]:
    """Kind and text of each cell of a file in the percent format."""
    found = []
    for block in re.split(r"^# %%", source.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        mark, _, text = block.partition("\n")
        if "[markdown]" in mark:
            found.append(("markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip()))
        else:
            found.append(("code", text.strip()))
    return found


def notebook(source: Path) -> list[dict[str, Any]]:
    """The cells of the notebook that was made of a file."""
    return json.loads(source.with_suffix(".ipynb").read_text())["cells"]


def test_the_page_of_the_course_names_every_notebook():
    text = (COURSE / "index.md").read_text()
    named = set(re.findall(r"\((\S+\.ipynb)\)", text))
    assert {f"{source.stem}.ipynb" for source in SOURCES} == named


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_is_its_python_as_it_ran(source: Path):
    made = notebook(source)
    assert HOW.match("".join(made.pop(1)["source"]))
    told = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in made]
    assert told == cells(source), f"run `make notebooks NOTEBOOKS={source.name}`"
    code = [cell for cell in made if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_asserts_its_claim_and_solves_its_exercises(source: Path):
    code = "\n".join(text for kind, text in cells(source) if kind == "code")
    checks = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assert)]
    assert len(checks) >= 3
    prose = "\n".join(text for kind, text in cells(source) if kind == "markdown")
    assert re.search("claim", prose, re.IGNORECASE)
    assert re.search(r"^## (Solutions|A solution)", prose, re.MULTILINE)


@pytest.mark.expensive
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_short_work_of_a_notebook_runs(source: Path):
    environment = {**os.environ, "FAST": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "ignore", str(source)]
    done = subprocess.run(command, cwd=COURSE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

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
HOW = re.compile(r"^\*Run at full length on one thread, in (\d+) s of a core\.\*$")
LONGEST = 600  # seconds that a notebook may take


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
    how = HOW.match("".join(made.pop(1)["source"]))
    assert how and int(how[1]) <= LONGEST
    told = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in made]
    assert told == cells(source), f"run `make notebooks NOTEBOOKS={source.name}`"
    code = [cell for cell in made if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_asserts_its_claim_beyond_three_standard_errors(source: Path):
    told = cells(source)
    (first, *_) = [i for i, (kind, text) in enumerate(told)
                   if kind == "markdown" and re.search("claim", text, re.IGNORECASE)]  # fmt: skip
    code = "\n".join(text for kind, text in told[first:] if kind == "code")
    asserted = [ast.unparse(node.test) for node in ast.walk(ast.parse(code))
                if isinstance(node, ast.Assert)]  # fmt: skip
    assert [test for test in asserted if re.search(r"[<>] -?3\b", test)]


@pytest.mark.parametrize("source", SOURCES[:-1], ids=lambda source: source.stem)
def test_an_exercise_has_a_test_and_a_solution_that_passes_it(source: Path):
    told = cells(source)
    at, solved = (i for i, (_, text) in enumerate(told)
                  if re.search("^## (Exercises|Solutions)", text, re.MULTILINE))  # fmt: skip
    asked = re.findall(r"^(\d)\. ", told[at][1].partition("## Exercises")[2], re.MULTILINE)
    code = ["\n".join(text for kind, text in part if kind == "code")
            for part in (told[at:solved], told[solved:])]  # fmt: skip
    made, run = (ast.parse(text) for text in code)
    tests = [node.name for node in made.body if isinstance(node, ast.FunctionDef)]
    assert tests == [f"check_{number}" for number in asked]
    called = {node.func.id for node in ast.walk(run)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert set(tests) <= called


def test_the_last_exercise_is_graded_and_its_solution_wins():
    code = "\n".join(text for kind, text in cells(SOURCES[-1]) if kind == "code")
    assert "# grade(mine)" in code and "assert solution.beats_prior" in code


@pytest.mark.expensive
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_short_work_of_a_notebook_runs(source: Path):
    environment = {**os.environ, "FAST": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "ignore", str(source)]
    done = subprocess.run(command, cwd=COURSE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Run the course's notebooks and write them with their outputs: ``make notebooks [FAST=1]``.

``python docs/course/build.py [NAME.py ...]``: each Python file in the percent format becomes the
notebook of its name beside it, run from top to bottom in a fresh kernel, on one thread. A cell that
raises, as an assertion does whose claim fails, ends the run with an error, and nothing is written.

Shortened ones (``FAST=1``) are written to docs/_build/fast: the site shows full length alone.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

COURSE = Path(__file__).parent
FAST = os.environ.get("FAST") == "1"
WRITTEN = COURSE.parent / "_build" / "fast" if FAST else COURSE
LIMIT = 3600  # seconds a cell


def sources() -> list[Path]:
    """The notebooks as Python, in their order."""
    return sorted(COURSE.glob("[0-9]-*.py"))


def read(source: Path) -> nbformat.NotebookNode:
    """The notebook of a Python file, not run; its cells are numbered."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel})
    return notebook


def processor_seconds() -> float:
    """Of the kernels that have ended: the same on a machine that others use, too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(source: Path) -> nbformat.NotebookNode:
    """The notebook of a Python file with its outputs; below its title stands how it was run.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    notebook = read(source)
    start = processor_seconds()
    client = NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": COURSE}})
    client.execute()
    seconds = processor_seconds() - start
    length = "shortened (`FAST=1`)" if FAST else "at full length"
    said = f"*Run {length} on one thread, in {seconds:.0f} s of a core.*"
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(said, id="how-it-was-run"))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of each cell: another diff each time
    return notebook


def main(names: list[str]) -> None:
    """Run the named notebooks, or all."""
    WRITTEN.mkdir(parents=True, exist_ok=True)
    for source in [COURSE / Path(name).name for name in names] or sources():
        notebook = run(source)
        file = WRITTEN / f"{source.stem}.ipynb"
        nbformat.write(notebook, file)
        print(file, notebook.cells[1].source, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

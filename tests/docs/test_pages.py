"""The hand-written pages: their Python runs, their commands and errors exist, their links lead
somewhere, and they do not say once more what made pages say."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest

from ral_env import bundle, cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page for page in DOCS.rglob("*.md") if not {"environments", "_build"} & set(page.parts)
)
# Their Python is run elsewhere: by tests/test_clients.py, where the clients are installed, by
# tests/ral_env/bundle/test_custom.py and by tests/test_readme.py.
ELSEWHERE = {"clients.md", "your-own-model.md", "guide.md", "bundles.md", "viewer.md"}
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_PYTHON = [page for page in PAGES if PYTHON.search(page.read_text())]


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize(
    "page", [page for page in WITH_PYTHON if page.name not in ELSEWHERE], ids=name
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a page writes is not left in the tree
    names = {"__name__": "page"}
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(block, str(page), "exec"), names)


def test_what_the_viewer_saves_is_read_as_its_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = DOCS / "viewer.md"
    names: dict[str, Any] = {"__name__": "page"}
    codes = bundle.load("faces32").split("test")[:1]
    (block,) = PYTHON.findall(page.read_text(encoding="utf-8"))
    (file,) = re.findall(r"np.load\(\"(.*?)\"\)", block)
    np.save(file, codes.astype(np.int16))
    exec(compile(block, str(page), "exec"), names)
    assert tuple(names["image"].shape) == (1, 3, 32, 32)


def test_python_that_is_run_elsewhere_is_there():
    assert {page.name for page in WITH_PYTHON} >= ELSEWHERE
    assert len(WITH_PYTHON) > len(ELSEWHERE) + 8


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_pages_links_and_pictures_are_there(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_drawn_picture_is_drawn_by_a_function_and_shown_by_a_page():
    tree = ast.parse((DOCS / "figures.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    drawn = {file.stem for file in (DOCS / "figures").glob("*.png")}
    concepts = [page.read_text() for page in (DOCS / "concepts").glob("*.md")]
    shown = [re.findall(r"\]\(\.\./figures/(\w+)\.png\)", text) for text in concepts]
    assert drawn <= functions and sorted(drawn) == sorted(name for (name,) in shown)
    for text, (name,) in zip(concepts, shown, strict=True):
        assert f"`python docs/figures.py {name}`" in text


class Understood(Exception):
    """What a test raises once the words of a command have been read."""


def commands() -> list[tuple[str, ...]]:
    """The words after ``ral`` of every command that a page, or a README, shows in whole."""
    found = set()
    for page in [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *DOCS.rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        lines += re.findall(r"^    (ral .*)$", text, re.MULTILINE)
        lines += [" ".join(line.split()) for line in re.findall(r"`(ral [^`]* -[^`]*)`", text)]
        for words in (shlex.split(line, comments=True) for line in lines):
            if "ral" in words and not {"--help", "NAME", "ID"} & set(words):
                found.add(tuple(words[words.index("ral") + 1 :]))
    return sorted(found - {()})


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_a_page_is_understood(words, tmp_path, monkeypatch):
    parse_args = jsonargparse.ArgumentParser.parse_args

    def parse(*args: Any, **options: Any) -> None:
        parse_args(*args, **options)
        raise Understood

    made = tmp_path / "runs" / "pretrain" / "small64" / "bundle"  # by the command above it
    made.parent.mkdir(parents=True)
    made.symlink_to(bundle.SHIPPED / "faces64")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(Understood):
        cli.main(words)


def prose(page: Path) -> list[str]:
    """The words of a page, without its code, its tables and what has marks of code."""
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"[\w'-]+", re.sub(r"^\|.*$", "", text, flags=re.MULTILINE))


def runs(words: list[str], length: int = 12) -> set[str]:
    """Every run of so many words."""
    return {" ".join(words[i : i + length]) for i in range(len(words) - length + 1)}


def test_pages_that_are_made_and_pages_that_are_written_do_not_repeat_each_other():
    made = [*(DOCS / "environments").glob("*.md"), DOCS / "leaderboard.md"]
    known = set().union(*(runs(prose(page)) for page in made))
    for page in set(PAGES) - set(made) | {ROOT / "README.md"}:
        assert runs(prose(page)) & known == set(), page


def literals() -> str:
    """All string literals of the packages, each on a line; an ellipsis for what is formatted."""
    found = []
    for package in ("ral_env", "agents", "pretrain"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…"
                             for part in node.values)  # fmt: skip
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_the_errors_that_a_page_explains_are_those_of_the_code():
    text = (DOCS / "errors.md").read_text()
    titles = re.findall(r"^### (.*)", text, re.MULTILINE)
    messages = [
        found for title in titles for found in re.findall(r"`([^`]*…[^`]*|[^`]{30,})`", title)
    ]
    assert len(messages) >= 12
    said = literals()
    for message in messages:
        for part in filter(None, map(str.strip, message.split("…"))):
            assert part in said, f"no error says {part!r}"

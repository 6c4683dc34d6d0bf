"""The site: pages are in its lists, public names on the API's page; it builds without a warning."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def listed() -> set[Path]:
    """The pages that the lists of the site take in."""
    found = {DOCS / "index.md"}
    for page in (DOCS / "index.md", DOCS / "course" / "index.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            for entry in re.findall(r"^(?!:)(\S+)$", block, re.MULTILINE):
                found |= set(page.parent.glob(f"{entry}.md"))
                found |= set(page.parent.glob(f"{entry}.ipynb"))
    return found


def test_every_page_is_in_a_list():
    pages = {
        p for kind in ("md", "ipynb") for p in DOCS.rglob(f"*.{kind}") if "_build" not in p.parts
    }
    assert pages == listed()


@pytest.mark.parametrize(
    "package",
    ["ral_env.bundle", "ral_env.bundle.custom", "ral_env.nets", "ral_env.testing",
     "agents.reinforce", "agents.rounds", "agents.sb3"],
)  # fmt: skip
def test_every_public_name_is_on_the_page_of_the_api(package: str):
    text = (DOCS / "api.md").read_text()
    shown = list(map(pkgutil.resolve_name, re.findall(r"\.\. auto\w+:: (\S+)", text)))
    told = {words.rpartition(".")[2] for words in re.findall(r"`([^`\n]+)`", text)}
    module = importlib.import_module(package)
    for name in module.__all__:
        constant = name.isupper() and name in told
        assert constant or any(getattr(module, name) is thing for thing in shown), name


@pytest.mark.expensive
def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run([*command, DOCS, tmp_path / "html"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "concepts" / "exposure-bias.html").is_file()

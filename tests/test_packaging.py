"""What is packed is what is said: one version, types, a tree that is there."""

import re
import tomllib
from pathlib import Path

import pytest

import ral_env

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_has_one_source():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "ral_env/__init__.py"
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited and cited[1] == ral_env.__version__


@pytest.mark.parametrize(
    "package", PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)
def test_every_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()


def test_the_tree_that_contributors_read_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = re.search(r"## The tree\n\n```\n(.*?)```", text, re.DOTALL)
    assert tree
    top = ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        top = top if line.startswith(" ") else name
        inside = "" if name == top else top
        for word in [name, *re.findall(r"\w+\.py\b", line.split("  ")[0])]:
            assert (ROOT / inside / word).exists(), word


@pytest.mark.parametrize("target", ["test", "test-portable", "format", "demo", "wheel", "lint"])
def test_the_commands_that_contributors_read_are_there(target):
    assert f"make {target}" in (ROOT / "CONTRIBUTING.md").read_text()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)

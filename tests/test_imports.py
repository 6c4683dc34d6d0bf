"""Imports run one way: nets <- ral_env <- agents <- benchmarks; nobody imports pretrain."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# layer -> what it may import of this project; the longest name that fits a module is its layer
ARROWS = {
    "ral_env.nets": {"ral_env.nets"},
    "ral_env": {"ral_env.nets", "ral_env"},
    "agents": {"ral_env.nets", "ral_env", "agents"},
    "benchmarks": {"ral_env.nets", "ral_env", "agents", "benchmarks"},
    "pretrain": {"ral_env.nets", "ral_env", "agents", "pretrain"},
}
PACKAGES = {layer.partition(".")[0] for layer in ARROWS}
# Layers that may use only these packages, beside the standard library
ONLY = {"ral_env.nets": {"torch"}}


def layer_of(name: str) -> str | None:
    return next((layer for layer in ARROWS if f"{name}.".startswith(f"{layer}.")), None)


def imported(source: str, package: str) -> Iterator[str]:
    """Full dotted names of all that a source imports, wherever in it; relative ones resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package itself, each further one its parent.
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = [*(parents if node.level else []), *filter(None, [node.module])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def wrong_arrows(source: str, package: str) -> list[str]:
    """What a source of ``package`` imports and may not."""
    layer = layer_of(package)
    assert layer, f"{package} is in no layer"
    wrong = []
    for name in imported(source, package):
        top = name.partition(".")[0]
        if top in PACKAGES:
            allowed = layer_of(name) in ARROWS[layer]
        else:
            known = top in sys.stdlib_module_names
            allowed = known or layer not in ONLY or top in ONLY[layer]
        if not allowed:
            wrong.append(f"{package} imports {name}")
    return wrong


SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path):
    assert not wrong_arrows(file.read_text(), ".".join(file.parent.relative_to(ROOT).parts))


def test_every_layer_is_walked():
    walked = {layer_of(".".join(file.parent.relative_to(ROOT).parts)) for file in SOURCES}
    assert walked == set(ARROWS)


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("ral_env.nets", "import gymnasium"),
        ("ral_env.nets", "from stable_baselines3.common import logger"),
        ("ral_env.nets", "import ral_env"),
        ("ral_env.nets", "from ral_env import bundle"),
        ("ral_env.nets", "from .. import layout"),
        ("ral_env.nets", "from ..layout import CodeLayout"),
        ("ral_env", "def late():\n    from agents.training import fit"),
        ("ral_env", "from pretrain.recipes import RECIPES"),
        ("agents", "import benchmarks.metrics as metrics"),
        ("agents", "from pretrain import data"),
        ("benchmarks", "if True:\n    import pretrain.run"),
        ("pretrain", "from benchmarks import plots"),
    ],
)
def test_a_wrong_arrow_is_found(package: str, source: str):
    assert len(wrong_arrows(source, package)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("ral_env.nets", "import math, torch.nn.functional as F\nfrom ral_env.nets import VQVAE"),
        ("ral_env.nets", "from . import cache\nfrom .cache import Cache\nfrom .. import nets"),
        ("ral_env", "import gymnasium\nfrom .nets import VQVAE\nfrom ral_env.layout import x"),
        ("agents", "from ral_env.nets import VQVAE\nimport ral_env.bundle, stable_baselines3"),
        ("benchmarks", "from agents.reinforce import train\nimport matplotlib"),
        ("pretrain", "from agents.training.fit import fit\nimport agents_of_another_project"),
    ],
)
def test_a_right_arrow_is_let_through(package: str, source: str):
    assert wrong_arrows(source, package) == []

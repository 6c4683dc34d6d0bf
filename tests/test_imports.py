"""Imports run one way, and no two files import each other.

    nets <- bundle <- envs <- agents.training <- agents.evaluation
        <- agents.reinforce, agents.rounds, agents.sb3 <- benchmarks; agents.training <- pretrain

Nobody imports pretrain. A package's face (``__init__.py``) may show what its files hold.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOWEST = {"ral_env.ranges", "ral_env.migrations", "ral_env.forks", "ral_env.files"}
EPISODE = {"ral_env.tasks", "ral_env.layout", "ral_env.starts", "ral_env.images"}
NETS = {"ral_env.nets"} | LOWEST
BUNDLE = (
    {"ral_env", "ral_env.bundle", "ral_env.reward", "ral_env.picture"} | LOWEST | EPISODE | NETS
)
ENVS = BUNDLE | {"ral_env.envs"}
CALLS = {f"ral_env.{name}" for name in ("sample", "complete", "film", "push", "cli", "testing")}
TRAINING = ENVS | {"agents.training"}
EVALUATION = TRAINING | {"agents.evaluation"}
AGENTS = (
    EVALUATION
    | {"ral_env.reference"}
    | {"agents.reinforce", "agents.rounds", "agents.sb3", "agents"}
)
# layer -> what it may import of this project; the longest name that fits a module is its layer
ARROWS: dict[str, set[str]] = {
    "ral_env": {"ral_env.tasks", "ral_env.migrations", "ral_env.forks", "ral_env.reference"},
    "ral_env.reference": set(),
    "ral_env.__main__": {"ral_env.cli"},
    "ral_env.ranges": set(),
    "ral_env.migrations": set(),
    "ral_env.forks": set(),
    "ral_env.files": set(),
    "ral_env.tasks": set(),
    "ral_env.layout": set(),
    "ral_env.images": set(),
    "ral_env.starts": {"ral_env.layout"},
    "ral_env.nets": NETS,
    "ral_env.reward": NETS,
    "ral_env.picture": NETS,
    "ral_env.bundle": BUNDLE,
    "ral_env.envs": ENVS,
    "ral_env.example_rewards": ENVS,
    "ral_env.streams": set(),
    **{name: ENVS | CALLS | {"ral_env.streams"} for name in CALLS},
    "ral_env.viewer": ENVS | CALLS | {"ral_env.viewer"},
    "agents.training": TRAINING,
    "agents.evaluation": EVALUATION,
    "agents.reinforce": EVALUATION | {"agents.reinforce"},
    "agents.rounds": EVALUATION | {"agents.rounds"},
    "agents.sb3": EVALUATION | {"agents.sb3"},
    "agents": AGENTS,
    "benchmarks": AGENTS | {"benchmarks"},
    "pretrain": TRAINING | {"pretrain"},
}
PACKAGES = {layer.partition(".")[0] for layer in ARROWS}
# Layers that may use only these packages, beside the standard library
ONLY = {
    "ral_env.ranges": set(),
    "ral_env.migrations": set(),
    "ral_env.forks": set(),
    "ral_env.files": set(),
    "ral_env.nets": {"torch", "jaxtyping"},
}


def layer_of(name: str) -> str | None:
    fitting = [layer for layer in ARROWS if f"{name}.".startswith(f"{layer}.")]
    return max(fitting, key=len, default=None)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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


def wrong_arrows(source: str, package: str, module: str | None = None) -> list[str]:
    """What a source of ``package`` imports and may not; ``module`` is its file's own name."""
    layer = layer_of(module or package)
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
            wrong.append(f"{module or package} imports {name}")
    return wrong


SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path):
    package = ".".join(file.parent.relative_to(ROOT).parts)
    assert not wrong_arrows(file.read_text(encoding="utf-8"), package, module_of(file))


def test_every_layer_is_walked():
    assert {layer_of(module_of(file)) for file in SOURCES} == set(ARROWS)


def circles(sources: dict[str, str]) -> list[str]:
    """Modules that import themselves by way of others; a source by each module's name.

    A package is named with a dot at its end here: its face shows what its files hold, so an arrow
    to it leads on.
    """
    arrows: dict[str, set[str]] = {}
    names = {name.removesuffix("."): name for name in sources}
    for name, source in sources.items():
        package = name.removesuffix(".") if name.endswith(".") else name.rpartition(".")[0]
        found = set()
        for whole in imported(source, package):
            parts = whole.split(".")
            known = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            found.add(next((names[n] for n in known if n in names), name))
        arrows[name] = found - {name}

    def reachable(name: str, seen: set[str]) -> set[str]:
        for other in arrows[name] - seen:
            seen.add(other)
            reachable(other, seen)
        return seen

    return [n for n in sources if not n.endswith(".") and n in reachable(n, set())]


def test_no_two_files_import_each_other():
    sources = {
        module_of(file) + "." * (file.name == "__init__.py"): file.read_text() for file in SOURCES
    }
    assert circles(sources) == []


def test_a_circle_is_found():
    pair = {"a.": "", "a.b": "from a.c import x", "a.c": "def late():\n    import a.b"}
    assert circles(pair) == ["a.b", "a.c"]
    by_the_face = {"a.": "from a.b import x", "a.b": "from a import y"}
    assert circles(by_the_face) == ["a.b"]
    assert (
        circles({"a.": "from a.b import x", "a.b": "from a.c import x", "a.c": "import os"}) == []
    )


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("ral_env.nets", "import gymnasium"),
        ("ral_env.nets", "from stable_baselines3.common import logger"),
        ("ral_env.nets", "import ral_env"),
        ("ral_env.nets", "from ral_env import bundle"),
        ("ral_env.nets", "from .. import layout"),
        ("ral_env.nets", "from ..layout import CodeLayout"),
        ("ral_env.ranges", "from ral_env import migrations"),
        ("ral_env.layout", "from ral_env.starts import draw"),
        ("ral_env.bundle", "from ral_env.envs.vector import LatentCanvasVectorEnv"),
        ("ral_env.bundle", "from ral_env.film import frames"),
        ("ral_env.envs", "def late():\n    from agents.training import fit"),
        ("ral_env.film", "from pretrain.recipes import RECIPES"),
        ("agents.training", "from agents.evaluation.metrics import frechet_distance"),
        ("agents.evaluation", "from agents.reinforce import train"),
        ("agents.reinforce", "import agents.sb3"),
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
        (
            "ral_env.envs",
            "import gymnasium\nfrom ..nets import VQVAE\nfrom ral_env.layout import x",
        ),
        ("agents.sb3", "from ral_env.nets import VQVAE\nimport ral_env.bundle, stable_baselines3"),
        ("agents", "from agents.sb3 import train"),
        ("benchmarks", "from agents.reinforce import train\nimport matplotlib"),
        ("pretrain", "from agents.training.fit import fit\nimport agents_of_another_project"),
    ],
)
def test_a_right_arrow_is_let_through(package: str, source: str):
    assert wrong_arrows(source, package) == []

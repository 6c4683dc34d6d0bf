"""What is packed is what is said: one version, types, a tree that is there, no file too many."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from hatchling.builders.plugin.interface import BuilderInterface
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ral_env
from ral_env.bundle import SHIPPED

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_the_version_has_one_source():
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "ral_env/__init__.py"
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited and cited[1] == ral_env.__version__
    log = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d.*?)\]", log, re.MULTILINE)
    assert released[0] == ral_env.__version__


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()


# What a wheel holds beside Python: patterns of files, and why.
WHEEL = {
    "ral_env/bundles/*/manifest.json": "each bundle",
    "ral_env/bundles/*/*.safetensors": "its weights",
    "ral_env/bundles/*/*.npy": "its codes and stored features",
    "ral_env/nets/native/*.[ch]": "the sampler's source",
    "ral_env/reference_scores.json": "what its ids score",
    "ral_env/viewer/page/*": "the page of ral view",
    "benchmarks/results/*.csv": "the leaderboard's rows",
    "*/py.typed": "types",
    "benchmarks/README.md": "what was measured",
}
MB = 1e6
LARGEST_BUNDLE, LARGEST_WHEEL = 10 * MB, 80 * MB


def packed(builder: BuilderInterface) -> dict[str, Path]:
    """What a build would pack, without building: places in the archive to files."""
    files = builder.recurse_included_files()
    return {file.distribution_path: Path(file.path) for file in files}


def test_a_wheel_holds_the_packages_and_what_they_read_and_nothing_else():
    files = packed(WheelBuilder(str(ROOT)))
    assert {name.partition("/")[0] for name in files} == set(PACKAGES)
    odd = [
        name
        for name in files
        if not name.endswith(".py") and not any(fnmatch(name, pattern) for pattern in WHEEL)
    ]
    assert not odd
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert file.relative_to(ROOT).as_posix() in files


def test_a_wheel_holds_every_bundle_and_stays_small():
    files = packed(WheelBuilder(str(ROOT)))
    for folder in SHIPPED.iterdir():
        for file in folder.iterdir():
            assert f"ral_env/bundles/{folder.name}/{file.name}" in files
        assert sum(file.stat().st_size for file in folder.iterdir()) < LARGEST_BUNDLE
    assert sum(file.stat().st_size for file in files.values()) < LARGEST_WHEEL


def test_an_sdist_holds_all_that_its_tests_read():
    files = packed(SdistBuilder(str(ROOT)))
    for folder in (*PACKAGES, "tests", "docs", ".github"):
        for file in (ROOT / folder).rglob("*"):
            made = {"__pycache__", "_build"} & set(file.parts) or file.suffix in (".so", ".fresh")
            if file.is_file() and not made:
                assert file.relative_to(ROOT).as_posix() in files
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "Makefile",
                 "constraints.txt", "constraints-oldest.txt", "hatch_build.py", "pyproject.toml",
                 "LICENSE"):  # fmt: skip
        assert name in files or name == "pyproject.toml"  # which every sdist has


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


def pins(name: str, python: str) -> dict[str, Version]:
    """What a constraints file says, for a version of Python."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    asked = [Requirement(line) for line in lines if line]
    here = [r for r in asked if r.marker is None or r.marker.evaluate({"python_version": python})]
    return {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in here}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_oldest_releases_that_are_tested_are_the_floors_of_pyproject(python):
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    words = [*project["dependencies"], *extras["pretrain"], *extras["dev"]]
    oldest, newest = (pins(f"constraints{name}.txt", python) for name in ("-oldest", ""))
    floors: dict[str, Version] = {}
    for asked in map(Requirement, words):
        if asked.marker is None or asked.marker.evaluate({"python_version": python}):
            name = canonicalize_name(asked.name)
            assert newest[name] in asked.specifier
            floor = next(Version(s.version) for s in asked.specifier if s.operator == ">=")
            floors[name] = max(floor, floors.get(name, floor))
    assert {name: oldest[name] for name in floors} == floors


@pytest.mark.parametrize(
    "target", ["test", "test-portable", "test-oldest", "format", "demo", "wheel-test", "lint"]
)
def test_the_commands_that_contributors_read_are_there(target):
    assert f"make {target}" in (ROOT / "CONTRIBUTING.md").read_text()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["tests", "publish", "docs"])
def test_a_workflow_has_no_more_rights_than_it_needs_and_runs_what_is_there(name):
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    assert workflow["permissions"] == {}
    makefile = (ROOT / "Makefile").read_text()
    for job in workflow["jobs"].values():
        assert set(job["permissions"].values()) <= {"read", "write"}
        for step in job["steps"]:
            if action := step.get("uses"):  # GitHub's own, as they were at a commit
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action)
            for target in re.findall(r"\bmake (\S+)", step.get("run", "")):
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
            for script in re.findall(r"\bsh (\S+\.sh)", step.get("run", "")):
                assert (ROOT / script).is_file()

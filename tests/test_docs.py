"""The environments' pages are what docs/make_pages.py makes of the code, and they are true."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import pytest

from ral_env import bundle, reference
from ral_env.layout import CodeLayout
from ral_env.tasks import TASKS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = DOCS / "environments"
MAKER = runpy.run_path(str(DOCS / "make_pages.py"))


def test_pages_are_not_stale(tmp_path, monkeypatch):
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path / "elsewhere"))  # nor is this machine in them
    made = {path.name: path.read_text() for path in MAKER["write"](tmp_path / "pages")}
    committed = {path.name: path.read_text() for path in PAGES.iterdir()}
    assert made == committed, "run `python docs/make_pages.py`"
    assert set(made) == {"README.md", *(f"{name}.md" for name in TASKS)}


def test_pages_are_made_from_the_command_line(tmp_path):
    command = [sys.executable, DOCS / "make_pages.py", tmp_path / "pages"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(map(Path, done.stdout.split())) == sorted((tmp_path / "pages").iterdir())
    assert len(done.stdout.split()) == len(TASKS) + 1


@pytest.mark.parametrize("path", sorted(PAGES.iterdir()), ids=lambda path: path.stem)
def test_a_page_is_sound_markdown(path: Path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(root|home|Users|work|tmp)/", text)  # no path of a machine
    assert "``" not in text.replace("```", "")  # no reST
    assert text.count("```") % 2 == 0 and text.replace("```", "").count("`") % 2 == 0
    for target in re.findall(r"\]\((\S+?)\)", text):
        assert (path.parent / target).is_file()
    lines = re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines()
    for above, line in pairwise(lines):
        if line.startswith("|") and above.startswith("|"):
            assert line.count("|") == above.count("|")
        if line.startswith("#"):
            assert not above


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.id)
def test_a_page_says_what_the_table_of_ids_says(task):
    text = (PAGES / f"{task.id}.md").read_text()
    layout = CodeLayout(task.levels, task.num_codes)
    assert task.about in text and task.paper in text
    assert f"Box(0, {task.num_codes + 1}, ({layout.length},), int16)" in text
    assert f"Discrete({task.num_codes})" in text
    command = f"--recipe {task.bundle} --data FOLDER --out ~/.cache/ral_env/bundles/{task.bundle}\n"
    assert (command in text) == bool(task.stand_in)
    for h, w in task.levels:
        assert f"prior over {h}x{w}" in text
    assert "[all environments](README.md)" in text


def test_what_all_ids_share_is_said_once():
    texts = {path.stem: path.read_text() for path in PAGES.iterdir()}
    for title in ("Rewards", "Starting state", "Episode end", "Arguments"):
        assert [name for name, text in texts.items() if f"\n## {title}\n" in text] == ["README"]


def test_a_page_tells_every_edition_that_was_measured():
    for env, measured in reference.scores().items():
        _, _, told = (PAGES / f"{env}.md").read_text().partition("\n## History\n")
        editions = [one["bundle"] for one in [*measured.get("earlier", ()), measured]]
        assert re.findall(r"`(\S+ (?:\d+ )?[0-9a-f]{12})`", told.partition("\n## ")[0]) == editions


@pytest.mark.filterwarnings("ignore::ral_env.StandInWarning")
@pytest.mark.parametrize("name", TASKS)
def test_a_pages_code_runs_and_its_spaces_are_right(name: str):
    text = (PAGES / f"{name}.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    made: dict = {}
    exec(code, made)
    env = made["env"]
    layout = CodeLayout(TASKS[name].levels, TASKS[name].num_codes)
    assert isinstance(env, gym.Env) and made["observations"].shape == (4, layout.length)
    assert repr(env.action_space) in text
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    assert f"`Box({space.low[0]}, {space.high[0]}, {space.shape}, {space.dtype})`" in text
    if not TASKS[name].stand_in:
        assert bundle.find(TASKS[name].bundle).parent == bundle.SHIPPED

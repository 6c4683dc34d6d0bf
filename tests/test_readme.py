"""The first screen: short, true, and alive wherever it is shown."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ral_env

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((\S+?)\)")
# A viewer of pictures that keeps the last one in a file, as a test has no screen.
VIEWER = """
from PIL import ImageShow
class Kept(ImageShow.Viewer):
    def show(self, image, **options):
        image.save("shown.png")
        return True
ImageShow.register(Kept(), 0)
"""


def run(code: str, folder: Path) -> str:
    """What a block prints in a process of its own, in an empty folder."""
    done = subprocess.run(
        [sys.executable, "-c", VIEWER + code], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_one_short_page_with_nothing_folded_away():
    lines = README.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100
    assert "<details" not in README and "<!--" not in README


def test_six_lines_show_a_picture(tmp_path):
    code = PYTHON.findall(README)[0]
    assert len([line for line in code.splitlines() if line]) == 6
    run(code, tmp_path)
    with Image.open(tmp_path / "shown.png") as image:
        shown = np.asarray(image)
    assert shown.shape == (256, 256, 3)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 100  # a painting, and no checker


def test_all_other_python_of_it_runs(tmp_path):
    blocks = PYTHON.findall(README)[1:]
    assert blocks and README.count("```py") == len(blocks) + 1
    for code in blocks:
        assert run(code, tmp_path)


@pytest.mark.timeout(1500)  # PPO and another algorithm learn for a while
@pytest.mark.parametrize("page", ["docs/guide.md", "docs/bundles.md"])
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    blocks = PYTHON.findall((ROOT / page).read_text())
    assert blocks
    run("\n".join(blocks), tmp_path)


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/results.md"])
def test_links_lead_to_files_that_are_there(page):
    targets = LINK.findall((ROOT / page).read_text())
    assert targets
    for target in targets:
        if not target.startswith("https://"):
            assert ((ROOT / page).parent / target.partition("#")[0]).is_file(), target


def test_on_a_package_index_every_link_leads_to_the_release():
    absolute_links = runpy.run_path(str(ROOT / "hatch_build.py"))["absolute_links"]
    shown = absolute_links(README, "https://example.org/owner/name", "v9")
    assert (
        "![a face is painted, code by code](https://example.org/owner/name/raw/v9/docs/film.gif)"
        in shown
    )
    assert "[CITATION.cff](https://example.org/owner/name/blob/v9/CITATION.cff)" in shown
    assert all(target.startswith("https://") for target in LINK.findall(shown))
    assert absolute_links(shown, "https://other.org", "v1") == shown


def test_a_release_has_such_a_readme(monkeypatch):
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["ReadmeHook"]
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    metadata: dict = {}
    hook(str(ROOT), {}).update(metadata)
    text = metadata["readme"]["text"]
    assert f"https://github.com/owner/name/raw/v{ral_env.__version__}/docs/film.gif" in text
    monkeypatch.delenv("GITHUB_REPOSITORY")
    hook(str(ROOT), {}).update(metadata)
    assert metadata["readme"]["text"] == README


def test_its_figures_are_those_of_the_results():
    """A number that changes in the one changes in the other."""
    results = (ROOT / "docs" / "results.md").read_text()
    for here, there in [
        ("-3.9 ± 0.2 of 22.2 nats", "-3.91 ± 0.18 of 22.2"),
        ("18 % lower", "A reverse KL 18 or 13 % lower"),
        ("0.3 % of held-out likelihood", "0.3 % of held-out likelihood"),
        ("-1.9 ± 1.3 of 9.4", "-1.9 ± 1.3"),
    ]:
        assert here in " ".join(README.split()) and there in " ".join(results.split())

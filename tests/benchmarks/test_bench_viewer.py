"""``ral bench viewer``: whose processor seconds are counted, and what is told of each page."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import viewer
from ral_env import cli

CHILD = "import time\nwhile time.process_time() < {}: pass\nprint(flush=True)\ninput()"
PARENT = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], stdin=sys.stdin)"
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
def test_what_a_process_and_its_children_use_is_counted_but_not_what_is_left_out():
    command = [sys.executable, "-c", PARENT, CHILD.format(0.5)]
    before = viewer.processor_seconds()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        after = viewer.processor_seconds()
        with open(f"/proc/{process.pid}/comm", encoding="utf-8") as file:
            name = file.read().strip()
        without = viewer.processor_seconds(without=(name,))
        process.communicate("\n")
    assert after - before >= 0.45 and after - without >= 0.45


@pytest.mark.skipif(viewer.chromium() is None, reason="no Chromium was found: set CHROMIUM")
@pytest.mark.timeout(900)
def test_a_page_is_opened_and_painted():
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    pytest.importorskip("uvicorn", reason="the extra viewer is not installed")
    (row,) = viewer.viewer(["RALFaces32-v0"], rounds=1)
    assert row["page"] == "RALFaces32-v0" and row["goal, s"] == "1.5"
    figures = ("first picture, s", "processor s", "codes/s", "codes a processor s")
    assert all(float(row[figure]) > 0 for figure in figures)
    assert float(row["codes/s"]) <= viewer.FASTEST + 5  # as fast as the page's slider lets it


def test_an_unknown_id_and_a_missing_browser_are_refused_in_words(monkeypatch, capsys):
    monkeypatch.setattr(viewer, "chromium", lambda: "chromium")
    assert cli.main(["bench", "viewer", "--envs", '["RALNothing-v0"]']) == 1
    assert "expected ids that `ral envs` lists" in capsys.readouterr().err
    monkeypatch.setattr(viewer, "chromium", lambda: None)
    assert cli.main(["bench", "viewer"]) == 1
    assert "no Chromium was found: install one" in capsys.readouterr().err

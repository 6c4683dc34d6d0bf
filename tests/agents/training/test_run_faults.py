"""A run's folder when something went wrong: another run in it, a writer that died, a full disk."""

import stat
from typing import Any

import pytest
import torch

from agents.training.run_folder import RunFolder
from ral_env import bundle as bundles
from ral_env.files import DiskError

pytestmark = pytest.mark.faults

CONFIG = {"seed": 1}


def opened(folder, **changes):
    settings: dict[str, Any] = {"kind": "reinforce"} | changes
    return RunFolder(folder, CONFIG, **settings)


@pytest.mark.parametrize("resume", [True, None])
def test_two_runs_cannot_be_in_one_folder(resume, tmp_path):
    first = opened(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run is in use by process \d+ on .*: wait .*--work"):
        opened(tmp_path / "run", resume=resume, option="--work")
    first.close()
    opened(tmp_path / "run", resume=resume).close()


def test_what_dead_writers_left_is_removed_when_the_run_goes_on(tmp_path):
    opened(tmp_path / "run").close()
    for name in (".checkpoint.pt.4711", ".progress.csv.0a1b2c3d"):
        (tmp_path / "run" / name).touch()
    (tmp_path / "run" / ".bundle.0a1b2c3d").mkdir()
    opened(tmp_path / "run", resume=True).close()
    assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock", "config.json"}


def test_a_bundle_lost_between_two_renames_is_put_back(tmp_path, tiny_codes):
    run = tmp_path / "run"
    opened(run).close()
    bundles.save(run / "bundle", bundles.load(tiny_codes), metrics={})
    (run / "bundle").rename(run / ".bundle.0a1b2c3d.old")
    bundles.save(tmp_path / "new", bundles.load(tiny_codes), metrics={})
    (tmp_path / "new").rename(run / ".bundle.0a1b2c3d")
    opened(run, resume=True).close()
    assert bundles.load(run / "bundle").dataset == "noise"
    assert {file.name for file in run.iterdir()} == {".lock", "config.json", "bundle"}


def test_a_refused_run_changes_nothing_and_holds_nothing(tmp_path):
    run = tmp_path / "run"
    opened(run).close()
    (run / ".checkpoint.pt.4711").touch()
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(ValueError, match="something else"):
        RunFolder(run, {"seed": 2}, kind="reinforce", resume=True)
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before
    opened(run, resume=True).close()


def test_all_that_a_run_writes_follows_the_umask(tmp_path):
    run = opened(tmp_path / "run")
    run.once("stage", lambda: {"weights": torch.ones(2)})
    run.figures().add({"iteration": 1, "loss": 0.5})
    run.close()
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files}
    assert len(modes) >= 5 and set(modes.values()) == {0o644}, modes


@pytest.fixture
def full(tmp_path):
    """A run's folder whose files cannot be made: the names that are written are folders."""
    run = opened(tmp_path / "run")
    for name in ("stage.pt", "picture.png", "progress.csv"):
        (tmp_path / "run" / name).mkdir()
        (tmp_path / "run" / name / "x").touch()
    return run


def test_a_disk_that_takes_nothing_is_told_in_one_sentence(full):
    with pytest.raises(DiskError, match=r"cannot write .*progress.csv: Is a directory"):
        full.figures().rewrite([{"iteration": 1}])
    left = {file.name for file in full.path().iterdir()}
    assert left == {".lock", "config.json", "stage.pt", "picture.png", "progress.csv"}

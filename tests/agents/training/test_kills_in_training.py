"""Training that is killed at its writes goes on, and ends as one that was not; full disks."""

import csv
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kills import in_a_child, killed_at, on_a_small_disk

from agents import reinforce, rounds, sb3
from agents.sb3.train import train as train_sb3
from ral_env import bundle as bundles
from ral_env.files import DiskError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

CHECKPOINT = "checkpoint.pt"


def reinforce_run(bundle: Path) -> Any:
    """Two updates of warm-up, three iterations, a checkpoint after each."""
    config = dataclasses.replace(
        reinforce.PRESETS["small"], env="RALBundle-v0", bundle=str(bundle), iterations=3,
        canvases=8, discriminator_warmup=2, discriminator_updates=1, reward_source="random",
        gate_auc=0.0, checkpoint_every=1,
    )  # fmt: skip
    return partial(reinforce.train, config)


def rounds_run(bundle: Path) -> Any:
    """Two rounds, a checkpoint before and after each."""
    config = rounds.Config(
        env="RALBundle-v0", bundle=str(bundle), rounds=2, canvases=24, discriminator_canvases=8,
        discriminator_warmup=2, discriminator_updates=2, discriminator_batch=4, updates=2, batch=4,
    )  # fmt: skip
    return partial(rounds.train, config)


def ppo_run(bundle: Path) -> Any:
    """Two rollouts, a checkpoint where each begins and at the end."""
    config = sb3.config.Config(
        env="RALBundle-v0", bundle=str(bundle), canvases=4, rollouts=2, value_warmup=1,
        discriminator_warmup=1, discriminator_updates=1, checkpoint_every=1, max_nats=1000,
    )  # fmt: skip
    return partial(train_sb3, "ppo", config)


# A file, and how often it is written by a process before the write at which that is killed.
MOMENTS: dict[Any, list[tuple[str, int]]] = {
    reinforce_run: [
        ("config.json", 0), (CHECKPOINT, 0), (CHECKPOINT, 1), (CHECKPOINT, 1), (CHECKPOINT, 1),
        ("samples-00001.png", 0), (CHECKPOINT, 2), ("metrics.csv", 0), ("bundle", 0),
    ],
    rounds_run: [
        ("config.json", 0), (CHECKPOINT, 0), ("samples-00000.png", 0), (CHECKPOINT, 1),
        ("samples-00002.png", 0), ("metrics.csv", 0), ("bundle", 0),
    ],
    ppo_run: [
        ("config.json", 0), (CHECKPOINT, 0), (CHECKPOINT, 1), (CHECKPOINT, 1), ("model.zip", 0),
        ("metrics.csv", 0), ("bundle", 0),
    ],
}  # fmt: skip


def go_on(run: Any, out: Path) -> Any:
    """Begin the run, or go on with it."""
    return run(out, progress=False, resume=(out / "config.json").exists())


def rows(folder: Path) -> list[dict[str, str]]:
    """Those of progress.csv, without their times."""
    text = (folder / "progress.csv").read_text(encoding="utf-8")
    table = csv.DictReader(text.splitlines())
    return [{k: v for k, v in row.items() if "seconds" not in k and "time/" not in k}
            for row in table]  # fmt: skip


@pytest.mark.parametrize("make", MOMENTS, ids=lambda make: make.__name__)
def test_a_run_that_is_killed_at_its_writes_ends_as_one_that_is_not(make, tiny_codes, tmp_path):
    run, cut, whole = make(tiny_codes), tmp_path / "cut", tmp_path / "whole"
    for file, before in MOMENTS[make]:
        killed_at(file, lambda: go_on(run, cut), before)
        assert file == CHECKPOINT or not (cut / file).exists()
    for folder in (cut, whole):
        assert in_a_child(lambda folder=folder: go_on(run, folder)) == 0
    hashes = [bundles.load(folder / "bundle").manifest["files"] for folder in (cut, whole)]
    assert hashes[0] == hashes[1]
    assert rows(cut) == rows(whole) or make is ppo_run  # which prints more digits than it has
    assert [file.name for file in cut.glob(".*")] == [".lock"]


@pytest.fixture
def disk(tmp_path):
    """Where a small disk can be put."""
    place = tmp_path / "disk"
    place.mkdir()
    if on_a_small_disk(place, 2**16, lambda: None):
        pytest.skip("this system lets nobody mount a disk in memory")
    return place


@pytest.mark.parametrize("make", [reinforce_run, rounds_run])
def test_a_disk_without_room_for_what_a_run_leaves_is_told_before_the_work(make, tiny_codes, disk):
    def expect() -> None:
        with pytest.raises(DiskError, match=r"no room (for|left to write) .* needs .* (k|M)B"):
            make(tiny_codes)(disk / "run", progress=False)

    assert on_a_small_disk(disk, 2**15, expect) == 0


@pytest.mark.parametrize("make", [reinforce_run, rounds_run])
def test_a_disk_that_is_full_in_the_midst_of_a_run_costs_nothing(make, tiny_codes, disk, tmp_path):
    """The run ends in one sentence, its last checkpoint is whole, and it goes on exactly."""
    run, filler = make(tiny_codes), disk / "filler"

    def fill(number: int, policies: Any) -> dict[str, float]:
        if number == 2:
            with filler.open("wb", buffering=0) as stream, pytest.raises(OSError):
                while True:
                    stream.write(bytes(4096))
        return {}

    def fill_and_go_on() -> None:
        watch = {"watch": fill} | ({"watch_every": 1} if make is reinforce_run else {})
        with pytest.raises(DiskError, match="no room"):
            run(disk / "run", progress=False, **watch)
        filler.unlink()
        go_on(run, disk / "run")
        bundles.save(tmp_path / "made", bundles.load(disk / "run" / "bundle"), metrics={})

    assert on_a_small_disk(disk, 2**23, fill_and_go_on) == 0
    assert in_a_child(lambda: run(tmp_path / "whole", progress=False)) == 0
    made, whole = (bundles.load(tmp_path / name) for name in ("made", "whole/bundle"))
    for name in ("prior_0.safetensors", "discriminator_codes.safetensors"):
        assert made.manifest["files"][name] == whole.manifest["files"][name]

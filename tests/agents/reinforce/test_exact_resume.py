"""A run goes on from each of its checkpoints, wherever it was cut, as if it had not been."""

import dataclasses
import shutil

import pytest
import torch

from agents.reinforce import PRESETS, train
from agents.reinforce.run import Run

pytestmark = pytest.mark.faults


@pytest.fixture
def config(tiny_codes):
    """Three updates of warm-up and three iterations, a checkpoint after each."""
    return dataclasses.replace(
        PRESETS["small"],
        env="RALBundle-v0",
        bundle=str(tiny_codes),
        iterations=3,
        canvases=8,
        discriminator_warmup=3,
        discriminator_updates=2,
        fake_pool=2,
        baseline="running-mean",
        reward_source="random",
        gate_auc=0.0,
        checkpoint_every=1,
    )


def untimed(history):
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in history]


def weights(result):
    nets = [*result.policies, result.discriminator]
    return torch.cat([p.flatten() for net in nets for p in net.parameters()])


@pytest.mark.parametrize("fake_pool", [0, 2])
def test_a_run_goes_on_exactly_from_every_checkpoint(config, fake_pool, tmp_path, monkeypatch):
    """Whether it is of the moment before the warm-up, inside it, after it, or of an iteration."""
    config = dataclasses.replace(config, fake_pool=fake_pool)
    saved, save = [], Run.save

    def save_and_copy(run):
        save(run)
        saved.append((run.state.warmup_updates, run.state.iteration))
        shutil.copytree(tmp_path / "whole", tmp_path / f"cut-{len(saved)}")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_and_copy)
        whole = train(config, tmp_path / "whole", progress=False)
    assert saved[:-1] == [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3)]
    for number in (1, 2, 4, 6):
        resumed = train(config, tmp_path / f"cut-{number}", progress=False, resume=True)
        assert torch.equal(weights(resumed), weights(whole)), saved[number - 1]
        assert untimed(resumed.history) == untimed(whole.history)


def test_a_run_that_was_cut_before_its_first_checkpoint_begins_anew(config, tmp_path):
    whole = train(config, tmp_path / "whole", progress=False)
    (tmp_path / "cut").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "cut")
    resumed = train(config, tmp_path / "cut", progress=False, resume=True)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_checkpoint_does_not_grow_with_the_history(config, tmp_path):
    train(config, tmp_path / "run", progress=False)
    stored = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert "history" not in stored["state"], "progress.csv has it"


def test_a_run_whose_rows_are_lost_goes_on_with_a_warning(config, tmp_path):
    whole = train(config, tmp_path / "run", progress=False)
    file = tmp_path / "run" / "progress.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    with pytest.warns(UserWarning, match="progress.csv has 1 rows, expected 3"):
        resumed = train(config, tmp_path / "run", progress=False, resume=True)
    assert untimed(resumed.history) == untimed(whole.history)[:1]
    assert torch.equal(weights(resumed), weights(whole))


def test_a_guard_goes_on_with_the_best_that_it_has_seen(config, tmp_path, monkeypatch):
    """The first look is the best: what comes after it is damaged."""
    config = dataclasses.replace(config, guard_every=1, guard_nll=100.0, learning_rate=1e-3)
    saved, save = [], Run.save

    def save_and_copy(run):
        save(run)
        saved.append(run.state.iteration)
        shutil.copytree(tmp_path / "whole", tmp_path / f"cut-{len(saved)}")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_and_copy)
        whole = train(config, tmp_path / "whole", progress=False)
    cut = saved.index(2) + 1
    resumed = train(config, tmp_path / f"cut-{cut}", progress=False, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert untimed(resumed.history) == untimed(whole.history)

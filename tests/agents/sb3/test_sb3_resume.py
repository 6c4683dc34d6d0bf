"""Runs of SB3's algorithms that were cut or stopped go on; nothing that is not finite is saved."""

import csv
import dataclasses
import shutil
import signal

import pytest
import torch

from agents.sb3.callbacks import Checkpoints
from agents.sb3.config import Config
from agents.sb3.train import train
from agents.training.finite import NotFiniteError
from ral_env import bundle as bundles
from ral_env.cli import main
from ral_env.nets import backends, native

pytestmark = pytest.mark.faults


@pytest.fixture
def config(tiny_codes):
    """Three rollouts, a checkpoint where each begins."""
    return Config(
        env="RALBundle-v0", bundle=str(tiny_codes), canvases=4, rollouts=3, value_warmup=1,
        discriminator_warmup=1, discriminator_updates=1, checkpoint_every=1, max_nats=1000,
    )  # fmt: skip


def policy(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["parts"]


def rows(folder):
    """The rows of progress.csv without their times."""
    with (folder / "progress.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in table]


def numbers(row):
    return {name: float(cell) for name, cell in row.items() if cell}


def same(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            same(found[name], expected[name])
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert repr(found) == repr(expected)


@pytest.mark.parametrize("algo", ["ppo", "a2c", "trpo", "maskable-ppo"])
def test_a_cut_run_goes_on_exactly(algo, config, tmp_path, monkeypatch):
    """From the checkpoint before the first rollout, and from that before the last one: to the same
    weights, and the same figures, of which some are printed with more digits than float32 has."""
    if algo in ("trpo", "maskable-ppo"):
        pytest.importorskip("sb3_contrib")
    saved, save = [], Checkpoints.save

    def save_and_copy(self, is_over=False):
        save(self, is_over)
        saved.append(self.total)
        shutil.copytree(tmp_path / "whole", tmp_path / f"cut-{len(saved)}")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_copy)
        train(algo, config, tmp_path / "whole", progress=False)
    assert saved == [0, 4 * 64, 2 * 4 * 64, 3 * 4 * 64]
    for number in (1, 3):
        cut = tmp_path / f"cut-{number}"
        row = train(algo, config, cut, progress=False, resume=True)
        assert row["iterations"] == 3
        same(policy(cut), policy(tmp_path / "whole"))
        for found, expected in zip(rows(cut), rows(tmp_path / "whole"), strict=True):
            assert numbers(found) == pytest.approx(numbers(expected), rel=1e-6)


def test_a_run_goes_on_with_the_backend_that_it_began_with(config, tmp_path, monkeypatch):
    """Here torch's operations, though compiled code would be taken by itself."""
    monkeypatch.setattr(native, "instruction_sets", lambda: ())
    once = dataclasses.replace(config, rollouts=1)
    train("ppo", once, tmp_path / "run", progress=False)
    monkeypatch.undo()
    chosen = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, is_over=False: (
            chosen.append(backends.chosen(self.model.policy)),
            save(self, is_over),
        ),
    )
    train("ppo", once, tmp_path / "run", progress=False, resume=True)
    assert set(chosen) == {"eager"}


def test_dqn_goes_on(config, tmp_path):
    config = dataclasses.replace(config, settings={"learning_starts": 16, "buffer_size": 1000})
    train("dqn", config, tmp_path / "run", progress=False)
    row = train("dqn", config, tmp_path / "run", progress=False, resume=True)
    assert row["iterations"] == 3


@pytest.mark.usefixtures("heeded_signals")
def test_a_stopped_run_is_saved_and_goes_on_exactly(config, tmp_path, monkeypatch):
    train("ppo", config, tmp_path / "whole", progress=False)
    start = Checkpoints._on_rollout_start

    def stop(self):
        if self.model.num_timesteps == 4 * 64:
            signal.raise_signal(signal.SIGTERM)
        start(self)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_on_rollout_start", stop)
        row = train("ppo", config, run, progress=False)
    assert row["interrupted"] == signal.SIGTERM and row["iterations"] == 1
    assert (run / "model.zip").exists() and not (run / "metrics.csv").exists()
    assert bundles.load(run / "bundle").priors
    train("ppo", config, run, progress=False, resume=True)
    same(policy(run), policy(tmp_path / "whole"))


def test_a_policy_that_diverges_stops_the_run_and_its_last_good_state_stays(config, tmp_path):
    config = dataclasses.replace(config, learning_rate=1e30, value_warmup=0)
    with pytest.raises(NotFiniteError, match="the policy's weights are not finite.*checkpoint.pt"):
        train("ppo", config, tmp_path / "run", progress=False)
    weights = policy(tmp_path / "run")["policy"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert not (tmp_path / "run" / "model.zip").exists()


def test_the_command_goes_on_with_the_settings_of_the_run(config, tmp_path, capsys):
    train("ppo", config, tmp_path / "run", progress=False)
    assert main(["train", "--algo", "ppo", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert main(["train", "--algo", "a2c", "--resume", "--out", str(tmp_path / "run")]) == 1
    assert "algo: 'ppo' then, 'a2c' now" in capsys.readouterr().err


def test_a_run_without_checkpoints_is_not_begun_anew(config, tmp_path):
    train("ppo", config, tmp_path / "run", progress=False)
    (tmp_path / "run" / "checkpoint.pt").unlink()
    with pytest.raises(ValueError, match="holds a model and no checkpoint.*another folder"):
        train("ppo", config, tmp_path / "run", progress=False, resume=True)

"""A run that a signal stops: a checkpoint, a bundle, one line, the conventional exit status."""

import dataclasses
import os
import signal
import threading
import time

import pytest
import torch

from agents.reinforce import PRESETS, train
from agents.training.signals import ASKING
from ral_env import bundle as bundles
from ral_env.cli import main

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("heeded_signals")]


@pytest.fixture
def config(tiny_codes):
    return dataclasses.replace(
        PRESETS["small"], env="RALBundle-v0", bundle=str(tiny_codes), iterations=4, canvases=8,
        discriminator_warmup=3, gate_auc=0.0, checkpoint_every=100,
    )  # fmt: skip


def weights(nets):
    return torch.cat([p.flatten() for net in nets for p in net.parameters()])


def stop_at(iteration, number=signal.SIGTERM):
    """Watches a run, and sends its process a signal in an iteration."""

    def watch(now, policies):
        if now == iteration:
            signal.raise_signal(number)
        return {}

    return {"watch": watch, "watch_every": 1}


@pytest.mark.parametrize("number", ASKING)
def test_a_stopped_run_is_saved_at_the_end_of_its_iteration_and_goes_on(config, number, tmp_path):
    whole = train(config, tmp_path / "whole", progress=False)
    out = tmp_path / "run"
    result = train(config, out, progress=False, **stop_at(2, number))
    assert result.interrupted == number and len(result.history) == 2
    stored = bundles.load(out / "bundle")
    assert torch.equal(weights(stored.priors), weights(result.policies))
    assert not (out / "metrics.csv").exists(), "nothing was measured"
    resumed = train(config, out, progress=False, resume=True)
    assert torch.equal(weights(resumed.policies), weights(whole.policies))
    assert (out / "metrics.csv").exists() and resumed.interrupted is None


def test_a_run_is_stopped_inside_the_warm_up_too(config, tmp_path):
    config = dataclasses.replace(config, discriminator_warmup=10_000)

    def stop():
        while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    result = train(config, tmp_path / "run", progress=False)
    assert result.interrupted == signal.SIGTERM and not result.history
    stored = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert 0 <= stored["state"]["train_state"]["warmup_updates"] < 10_000


def test_the_command_says_so_in_one_line_and_its_status_is_the_signals(
    tiny_codes, tmp_path, capsys
):
    out = tmp_path / "run"

    def stop():
        while not (out / "progress.csv").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    words = ["train", "--env", "RALBundle-v0", "--bundle", str(tiny_codes), "--preset", "small",
             "--out", str(out), "--canvases", "8", "--iterations", "100000",
             "--discriminator_warmup", "1", "--gate_auc", "0"]  # fmt: skip
    assert main(words) == 128 + signal.SIGTERM
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("stopped by SIGTERM after ") and last.endswith("--resume goes on")

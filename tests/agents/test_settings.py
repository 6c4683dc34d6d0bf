"""Settings out of their range are refused in one line, before any work and before any file."""

import pytest

from ral_env.cli import main

TRAIN = ["train", "--env", "RALDigits-v0", "--preset", "small"]
PPO = ["train", "--algo", "ppo", "--env", "RALDigits-v0"]
ROUNDS = ["train", "--algo", "rounds", "--env", "RALDigits-v0"]
DQN = ["train", "--algo", "dqn", "--env", "RALDigits-v0"]
PRETRAIN = ["pretrain", "--recipe", "digits"]
EVALUATE = ["evaluate", "digits", "--temperatures", "[]"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*TRAIN, "--ema", "1"], "ema=1.0, expected a number in [0, 1)"),
        ([*TRAIN, "--gate_auc", "2"], "gate_auc=2.0, expected"),
        ([*TRAIN, "--gamma", "2"], "gamma=2.0, expected"),
        ([*TRAIN, "--final_rate", "-5"], "final_rate=-5.0, expected"),
        ([*TRAIN, "--iterations", "-1"], "iterations=-1, expected"),
        ([*TRAIN, "--seconds", "-1"], "seconds=-1.0, expected"),
        ([*TRAIN, "--checkpoint_every", "0"], "checkpoint_every=0, expected"),
        ([*TRAIN, "--learning_rate", "-1"], "learning_rate=-1.0, expected"),
        ([*TRAIN, "--betas", "[0.5, 1]"], "betas=(0.5, 1.0), expected"),
        ([*TRAIN, "--seed", "-1"], "seed=-1, expected a number in [0, 4294967295]"),
        ([*TRAIN, "--seed", str(2**70)], f"seed={2**70}, expected"),
        ([*TRAIN, "--threads", "0"], "threads=0, expected"),
        ([*TRAIN, "--threads", "1000000"], "threads=1000000, expected a number in [1, 1024]"),
        ([*TRAIN, "--discriminator.shift", "100"], "discriminator.shift=100, expected less than"),
        ([*ROUNDS, "--discriminator.shift", "100"], "discriminator.shift=100, expected less than"),
        ([*PPO, "--discriminator.shift", "100"], "discriminator.shift=100, expected less than"),
        ([*PPO, "--settings", '{"gae_lambda": 9}'], "gae_lambda=9, expected"),
        ([*PPO, "--settings", '{"n_epochs": -1}'], "n_epochs=-1, expected"),
        ([*PPO, "--settings", '{"clip_range": "x"}'], "clip_range='x', expected"),
        ([*PPO, "--settings", '{"n_epoch": 1}'], "settings ['n_epoch'], which PPO does not take"),
        ([*DQN, "--settings", '{"buffer_size": -1}'], "buffer_size=-1, expected"),
        ([*DQN, "--settings", '{"env": 1}'], "settings ['env'], which DQN does not take"),
        ([*EVALUATE, "--seed", "-1"], "seed=-1, expected"),
        ([*EVALUATE, "--out", "/proc/x/y.json"], "cannot write /proc/x/y.json: "),
        ([*EVALUATE, "--out", "/tmp"], "cannot write /tmp: it is a folder"),
        (["demo", "--env", "RALDigits-v0", "--out", "/proc/x"], "cannot write /proc/x/results.js"),
        (["demo", "--seconds", "-1"], "seconds=-1.0, expected"),
        ([*PPO, "--seed", str(2**70)], f"seed={2**70}, expected"),
        ([*PPO, "--threads", "0"], "threads=0, expected"),
        ([*PRETRAIN, "--seed", "-1"], "seed=-1, expected"),
        ([*PRETRAIN, "--threads", "0"], "threads=0, expected"),
        ([*PRETRAIN, "--set", "fakes=0"], "fakes=0, expected"),
        (["sample", "--count", "-1"], "count=-1, expected"),
        (["sample", "--seed", "-1"], "seed=-1, expected"),
        (["complete", "--image", "x.png", "--seed", "-1"], "seed=-1, expected"),
        (["film", "--fps", "0"], "fps=0.0, expected"),
        (["film", "--out", "x.mp4"], "out='x.mp4', expected the name of a GIF file"),
        ([*TRAIN, "--device", "cuda:99"], "device='cuda:99' cannot be used ("),
        ([*PPO, "--device", "cuda:99"], "device='cuda:99' cannot be used ("),
        ([*PRETRAIN, "--device", "cuda:99"], "device='cuda:99' cannot be used ("),
        (["sample", "--device", "gpu"], "device='gpu' cannot be used ("),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"ral: error: {message}") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())

"""``ral train``: every algorithm leaves a run of the same shape, and bad input a clear error."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import PPO

from agents.sb3 import make_vec_env
from agents.sb3.train import Config, train
from agents.train import ALGORITHMS
from ral_env import bundle as bundles
from ral_env.cli import main


def arguments(algo, bundle, out):
    """A run of moments: two rollouts of eight canvases."""
    words = ["train", "--algo", algo, "--env", "RALBundle-v0", "--bundle", str(bundle)]
    words += ["--out", str(out)]
    if algo == "reinforce":
        return [
            *words,
            "--preset",
            "small",
            "--iterations",
            "2",
            "--canvases",
            "8",
            "--discriminator_warmup",
            "1",
            "--gate_auc",
            "0",
        ]
    if algo == "rounds":
        words += ["--rounds", "2", "--discriminator_canvases", "4", "--updates", "2"]
        words += ["--discriminator_warmup", "1", "--discriminator_updates", "2"]
        return [*words, "--canvases", "8"]
    return [*words, "--canvases", "8", "--rollouts", "2", "--discriminator_warmup", "1",
            "--value_warmup", "1"]  # fmt: skip


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_ends_in_a_row_of_results(algo, tiny_codes, tmp_path):
    out = tmp_path / "run"
    assert main(arguments(algo, tiny_codes, out)) == 0
    (row,) = csv.DictReader((out / "metrics.csv").read_text().splitlines())
    assert row["algo"] == algo and row["env"] == "RALBundle-v0" and row["dataset"] == "noise"
    assert int(row["iterations"]) == 2 and int(row["canvases"]) == 16
    assert -1 <= float(row["score"]) <= 1 and float(row["fd"]) >= 0 and float(row["prior_fd"]) >= 0
    assert json.loads((out / "config.json").read_text())["env"] == "RALBundle-v0"
    assert len((out / "progress.csv").read_text().splitlines()) >= 2
    assert list(out.glob("events.out.tfevents.*"))
    learns_prior = algo in ("reinforce", "rounds", "ppo", "a2c", "trpo")
    assert (out / "bundle").exists() == learns_prior == ("forward_nll" in row)
    assert (out / "model.zip").exists() == (algo not in ("reinforce", "rounds"))
    if learns_prior:
        new = bundles.load(out / "bundle")
        old = bundles.load(tiny_codes)
        changed = [not torch.equal(a, b) for a, b in zip(
            new.priors[0].parameters(), old.priors[0].parameters(), strict=True)]  # fmt: skip
        assert any(changed)
        gym.make("RALBundle-v0", bundle=str(out / "bundle")).reset(seed=0)


def test_the_guides_own_algorithm_runs_in_20_lines_and_raises_the_reward(capsys):
    text = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    found = re.search(r"### Bring your own algorithm.*?```python\n(.*?)```", text, re.DOTALL)
    assert found
    code = found[1]
    body = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(body) <= 20
    exec(compile(code, "guide.md", "exec"), {})
    rewards = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(rewards) == 20
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5


def test_a_run_is_not_overwritten(tiny_codes, tmp_path, capsys):
    words = arguments("ppo", tiny_codes, tmp_path / "run")
    assert main(words) == 0
    assert main(words) == 1
    assert "holds a run" in capsys.readouterr().err


def test_the_saved_model_goes_on(tiny_codes, tmp_path):
    main(arguments("ppo", tiny_codes, tmp_path / "run"))
    envs = make_vec_env("RALBundle-v0", 8, seed=0, bundle=str(tiny_codes))
    model = PPO.load(tmp_path / "run" / "model.zip", env=envs)
    steps = model.num_timesteps
    model.learn(8 * 64)
    saved = bundles.load(tmp_path / "run" / "bundle").priors[0]
    configs: Any = model.policy.configs
    assert steps == 2 * 8 * 64 and [saved.config] == list(configs)


def test_settings_reach_the_algorithm_and_bad_ones_are_refused(tiny_codes, tmp_path, capsys):
    config = Config(
        env="RALBundle-v0", bundle=str(tiny_codes), canvases=8, rollouts=1, value_warmup=0,
        discriminator_updates=0, settings={"n_epochs": 3}, learning_rate=1e-5,
    )  # fmt: skip
    train("ppo", config, tmp_path / "run", progress=False)
    model = PPO.load(tmp_path / "run" / "model.zip")
    assert model.n_epochs == 3 and model.learning_rate == 1e-5
    with pytest.raises(ValueError, match="rollouts=0"):
        train("ppo", Config(rollouts=0), tmp_path / "none")
    with pytest.raises(SystemExit):
        main(["train", "--algo", "sac"])
    assert "invalid choice: 'sac'" in capsys.readouterr().err

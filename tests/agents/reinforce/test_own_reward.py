"""REINFORCE with a reward of one's own: it is learnt, recorded, and no discriminator learns."""

import csv
import dataclasses
import json
import shutil

import pytest
import torch
from conftest import close
from probes import probe_bundle

from agents.reinforce import PRESETS, Config, train
from agents.reinforce.__main__ import default_settings
from agents.reinforce.run import Run
from ral_env.envs.reward_fn import takes_codes
from ral_env.envs.vector import LatentCanvasVectorEnv

WANTED = f"{__name__}:far_context"
BRIGHT = f"{__name__}:brightness"


@takes_codes
def far_context(codes: list[torch.Tensor]) -> torch.Tensor:
    """10 where the last code is the first one, else 0."""
    return 10 * (codes[0][:, 0, 0] == codes[0][:, -1, -1]).float()


def brightness(images: torch.Tensor) -> torch.Tensor:
    """A map of 4x4 patches."""
    return torch.nn.functional.avg_pool2d(images.mean(1), images.shape[3] // 4)


@pytest.fixture
def config(tiny_codes):
    return dataclasses.replace(
        PRESETS["small"], env="RALBundle-v0", bundle=str(tiny_codes), reward="intermediate",
        reward_fn=BRIGHT, iterations=3, canvases=8, checkpoint_every=1,
    )  # fmt: skip


def untimed(history):
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in history]


def test_the_policy_learns_what_the_function_asks_for():
    config = Config(
        env="RALBundle-v0", reward_fn=WANTED, start="full", gamma=1.0, baseline="leave-one-out",
        standardise=True, learning_rate=1e-2, betas=(0.9, 0.999), canvases=64, iterations=100,
    )  # fmt: skip
    bundle = probe_bundle("constant")  # what its discriminator says teaches nothing
    result = train(config, bundle=bundle, progress=False)
    rewards = [row["reward"] for row in result.history]
    assert rewards[0] < 5 and sum(rewards[-10:]) / 10 > 9.5


def test_no_discriminator_learns_and_the_bundles_watches(config, tiny_codes, tmp_path):
    """Whatever the settings ask of one: the paper's start a new one that sees images."""
    config = dataclasses.replace(
        PRESETS["paper"], env="RALBundle-v0", bundle=str(tiny_codes), reward_fn=BRIGHT,
        iterations=1, canvases=4, start="full",
    )  # fmt: skip
    assert not (config.discriminator_warmup or config.discriminator_updates or config.gate_auc)
    result = train(config, tmp_path / "run", progress=False)
    env = LatentCanvasVectorEnv(1, tiny_codes)
    before, after = env.discriminator.state_dict(), result.discriminator.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    left = LatentCanvasVectorEnv(1, tmp_path / "run" / "bundle")
    assert (left.reward_scale, left.discriminator_input) == (env.reward_scale, "codes")
    assert 0 <= result.history[0]["auc"] <= 1


@pytest.mark.parametrize("reward", ["single", "intermediate", "rowwise"])
def test_code_by_code_and_at_once_it_learns_the_same(config, reward):
    runs = [
        train(
            dataclasses.replace(config, reward=reward, iterations=2, step_by_step=one),
            progress=False,
        )
        for one in (False, True)
    ]
    for one, other in zip(*(run.policies[0].parameters() for run in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_its_name_is_recorded_and_a_cut_run_goes_on_exactly(config, tmp_path, monkeypatch):
    save = Run.save

    def save_and_copy(run):
        save(run)
        if run.state.iteration == 1:
            shutil.copytree(tmp_path / "whole", tmp_path / "cut", dirs_exist_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_and_copy)
        whole = train(config, tmp_path / "whole", progress=False)
    resumed = train(config, tmp_path / "cut", progress=False, resume=True)
    assert untimed(resumed.history) == untimed(whole.history)
    stored = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert stored["reward_fn"] == BRIGHT
    other = dataclasses.replace(config, reward_fn=None)
    with pytest.raises(ValueError, match="asked for something else.*reward_fn"):
        train(other, tmp_path / "whole", progress=False, resume=True)

    (row,) = csv.DictReader((tmp_path / "whole" / "metrics.csv").read_text().splitlines())
    env = LatentCanvasVectorEnv(1000, tmp_path / "whole" / "bundle", reward_fn=BRIGHT)
    codes = env.layout.flatten(sampled(env.bundle.priors[0]))
    env.reset()
    assert float(row["own_reward"]) == close(env.complete(codes)[1].mean())


def sampled(prior):
    """What `metrics.csv` is measured on: 1,000 canvases in batches of 250, from seed 0."""
    generator = torch.Generator().manual_seed(0)
    empty = torch.full((250, 8, 8), 16)
    return [torch.cat([prior.sample(empty, generator=generator) for _ in range(4)])]


def test_the_command_says_that_no_discriminator_learns():
    words = ["--env", "RALDigits-v0", "--reward_fn", BRIGHT]
    settings, said = default_settings(words)
    assert said.endswith(f"; {BRIGHT} pays, so no discriminator learns")
    assert settings["canvases"] == PRESETS["small"].canvases

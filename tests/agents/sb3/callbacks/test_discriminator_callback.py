"""The discriminator learns beside the policy, and the environment pays what it has learnt."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sb3_models import EMBEDDED, Recorder, bias, envs_of, model_of
from stable_baselines3 import A2C, DQN, PPO

from agents.sb3 import DiscriminatorCallback
from agents.training.discriminator import DiscriminatorTraining

LEARNS = DiscriminatorTraining(loss="logistic", learning_rate=1e-2)


def weights(net: torch.nn.Module) -> torch.Tensor:
    """A copy of all parameters."""
    return torch.cat([p.detach().flatten() for p in net.parameters()]).clone()


@pytest.mark.parametrize("name", ["tiny_codes", "tiny_two"])
def test_the_discriminator_learns_and_pays(request, name):
    path = request.getfixturevalue(name)
    model = model_of(A2C, path, {"reward": "intermediate"}, learning_rate=0.0)
    envs = model.get_env().unwrapped.envs
    bias(model)
    before = copy.deepcopy(envs.discriminator.state_dict())
    recorder = Recorder()
    learner = DiscriminatorCallback(LEARNS, updates=25, warmup=0, batch=8)
    model.learn(3 * model.n_steps * 4, callback=[learner, recorder], log_interval=None)
    aucs = [row["discriminator/auc"] for row in recorder.logged]
    assert aucs[-1] > 0.9 > aucs[0]
    assert "discriminator/cross_entropy" in recorder.logged[0]
    after = envs.discriminator.state_dict()
    trained = learner.adversary.net.state_dict()
    assert all(torch.equal(after[key], trained[key]) for key in after)
    assert any(not torch.equal(after[key], before[key]) for key in after)
    assert envs.reward_scale == recorder.logged[-1]["discriminator/reward_scale"]
    # What it has learnt is paid: the real canvases score above the policy's.
    fake = np.stack([info["final_canvas"] for info in recorder.finals[-1]])
    real = envs.bundle.split("validation")[:4]
    assert envs.score(real).mean() > envs.score(fake).mean() + 0.1


def test_the_discriminator_is_warmed_up_once_on_the_policys_canvases(tiny_codes):
    model = model_of(A2C, tiny_codes, learning_rate=0.0)
    bias(model)
    recorder = Recorder()
    learner = DiscriminatorCallback(LEARNS, updates=0, warmup=60, batch=8)
    model.learn(256, callback=[learner, recorder], log_interval=None)
    assert recorder.logged[0]["discriminator/auc"] > 0.9
    trained = weights(learner.adversary.net)
    model.learn(256, callback=learner, reset_num_timesteps=False)
    assert torch.equal(weights(learner.adversary.net), trained)


@pytest.mark.parametrize("start", ["scratch", "partial"])
def test_the_discriminator_learns_from_canvases_of_fewer_rows(tiny, start):
    """As high as the canvases are, not filled up: the real ones are cut to their height."""
    model = model_of(PPO, tiny, {"start": start, "rows": 4}, n_steps=96)
    envs, heights, recorder = model.get_env().unwrapped.envs, set(), Recorder()
    before = weights(envs.discriminator)

    class Heights(DiscriminatorCallback):
        """Notes the shape of what each update is made on."""

        def _on_training_start(self) -> None:
            super()._on_training_start()
            update = self.adversary.update

            def noting(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
                heights.add((tuple(real.shape), tuple(fake.shape)))
                return update(real, fake)

            self.adversary.update = noting  # type: ignore[method-assign]

    learner = Heights(updates=6, warmup=0, batch=4, normaliser="running")
    model.learn(96 * 4 * 2, callback=[learner, recorder], log_interval=None)
    ends = {int(envs.layout.heights(i["final_canvas"])) for r in recorder.finals for i in r}
    assert ends == ({4} if start == "scratch" else {4, 8})
    # A row of codes is four pixels.
    assert heights == {((4, 3, 4 * rows, 32),) * 2 for rows in ends}
    assert not torch.equal(weights(envs.discriminator), before)
    assert envs.reward_scale == recorder.logged[-1]["discriminator/reward_scale"]
    assert all(0 <= row["discriminator/auc"] <= 1 for row in recorder.logged)


def test_the_discriminator_refuses_replay(tiny):
    model = DQN("MlpPolicy", envs_of(tiny), policy_kwargs=EMBEDDED, gamma=1.0, buffer_size=100)
    with pytest.raises(ValueError, match="DQN: a replay buffer pays what an earlier"):
        model.learn(1, callback=DiscriminatorCallback())


def test_bad_settings_of_the_discriminator_are_refused():
    with pytest.raises(ValueError, match="updates=-1"):
        DiscriminatorCallback(updates=-1)
    with pytest.raises(ValueError, match="normaliser='none'"):
        DiscriminatorCallback(normaliser="none")

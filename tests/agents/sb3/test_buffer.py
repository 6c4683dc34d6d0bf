"""Whole episodes in place of transitions: the same update, and refusals of what would not be."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FLOAT32, close
from sb3_contrib import TRPO
from sb3_models import Recorder, envs_of, model_of
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback

from agents.sb3 import EpisodeBuffer, PixelCNNPolicy, defaults
from ral_env import bundle


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
def test_the_update_is_that_of_sb3s_own_buffer(request, algorithm, name):
    path = request.getfixturevalue(name)
    # Episodes of two levels are short, or SB3's buffer takes long.
    start = {} if name == "tiny" else {"start": "continue", "rows": 7}
    length = 64 if name == "tiny" else 40
    changes: dict[str, Any] = {"n_steps": length, "learning_rate": 3e-4}
    if algorithm is PPO:
        changes |= {"n_steps": 2 * length, "n_epochs": 1}
    found = []
    for kind in (EpisodeBuffer, RolloutBuffer):
        environment = {"reward": "rowwise", **start}
        model = model_of(algorithm, path, environment, rollout_buffer_class=kind, **changes)
        before = model.policy.parameters_to_vector()
        model.learn(2 * model.n_steps * 4)  # two rollouts
        found.append(model.policy.parameters_to_vector())
    ours, theirs = found
    assert np.abs(ours - before).max() > 1e-4
    np.testing.assert_allclose(ours, theirs, **FLOAT32)


def test_minibatches_are_whole_episodes_in_the_order_drawn(tiny, monkeypatch):
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])

    class OrderedBuffer(EpisodeBuffer):
        def _shuffle(self, episodes: int) -> np.ndarray:
            assert episodes == len(order)
            return order

    environment = {"reward": "rowwise"}
    model = model_of(PPO, tiny, environment, n_steps=128, rollout_buffer_class=OrderedBuffer)
    recorder = Recorder()
    monkeypatch.setattr(model, "train", lambda: None)
    model.learn(512, callback=recorder)
    buffer, rollout = model.rollout_buffer, recorder.rollouts[0]
    batches = list(buffer.get(192))
    assert [len(batch.observations) for batch in batches] == [3, 3, 2]
    policy = model.policy
    for batch, episodes in zip(batches, np.split(order, [3, 6]), strict=True):
        # Episode 2 * i + k is the k-th of canvas i: steps 64 k .. 64 k + 63.
        at = [(slice(64 * (e % 2), 64 * (e % 2) + 64), e // 2) for e in episodes]

        def steps(name: str, at=at) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([rollout[name][where] for where in at]))

        assert torch.equal(batch.actions, steps("actions").float())
        assert torch.equal(batch.old_values, steps("values"))
        assert torch.equal(batch.advantages, steps("advantages"))
        assert torch.equal(batch.returns, steps("returns"))
        actions = batch.actions.long().flatten()
        values, log_prob, _ = policy.evaluate_actions(batch.observations, actions)
        assert log_prob.detach() == close(batch.old_log_prob)
        alone = policy.evaluate_actions(steps("observations"), actions)
        loss, expected = (
            (batch.advantages * p).mean() + (batch.returns - v.flatten()).square().mean()
            for v, p in ((values, log_prob), alone[:2])
        )
        assert loss.item() == close(expected.item())


def test_minibatches_come_in_the_order_of_sb3s_random_numbers(tiny, monkeypatch):
    """numpy's, which SB3 seeds: a run is the same run again."""
    model = model_of(PPO, tiny, n_steps=64)
    monkeypatch.setattr(model, "train", lambda: None)
    model.learn(256)
    buffer = model.rollout_buffer
    np.random.seed(3)
    order = np.random.permutation(4)
    np.random.seed(3)
    (batch,) = buffer.get()
    assert np.array_equal(batch.observations.numpy(), buffer.observations[order])
    assert order.tolist() != sorted(order)


def test_only_starts_are_stored(tiny_two):
    model = model_of(A2C, tiny_two)
    model.learn(1)
    assert model.rollout_buffer.observations.shape == (4, 320)


@pytest.mark.parametrize("start", ["continue", "scratch", "partial"])
def test_episodes_of_some_rows_are_learnt_from(tiny, start):
    envs = envs_of(tiny, start=start, rows=4)
    model = PPO(PixelCNNPolicy, envs, seed=0, **defaults(PPO, envs, n_steps=64, batch_size=128))
    assert defaults(PPO, envs)["n_steps"] == 32
    recorder = Recorder()
    model.learn(64 * 4 * 3, callback=recorder)
    starts = np.concatenate([r["observations"][::32] for r in recorder.rollouts])
    assert ((starts == 16).sum(2) == 32).all()
    assert set((starts == 17).sum(2).flatten()) <= {0, 32}


def test_trpo_learns_from_episodes(tiny):
    model = model_of(TRPO, tiny, {"reward": "rowwise"}, cg_max_steps=4, n_critic_updates=2)
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(256)
    after = model.policy.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"priors", "value_net"}
    assert 0 < model.logger.name_to_value["train/kl_divergence_loss"] < 1e-3


# --- refusals ---


def plain(path, start: dict[str, Any] | None = None, **changes: Any):
    """A model whose settings nobody has checked."""
    configs = [prior.config for prior in bundle.load(path).priors]
    arguments: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, **changes}
    return PPO(
        PixelCNNPolicy,
        envs_of(path, 2, **(start or {})),
        rollout_buffer_class=EpisodeBuffer,
        policy_kwargs={"configs": configs},
        **arguments,
    )


def test_parts_of_episodes_are_refused(tiny):
    with pytest.raises(ValueError, match="n_steps=96 is no multiple of the 64 codes"):
        plain(tiny, n_steps=96, batch_size=192).learn(1)
    with pytest.raises(ValueError, match="batch_size=32 is no multiple of the 64 codes"):
        plain(tiny, batch_size=32).learn(1)


def test_episodes_of_several_lengths_are_refused(tiny):
    with pytest.raises(ValueError, match="expected one length"):
        plain(tiny, {"start": "continue"}, n_steps=56 * 8, batch_size=56 * 8).learn(10_000)


def test_a_rollout_that_begins_in_the_midst_of_an_episode_is_refused(tiny):
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 10

    model = plain(tiny)
    model.learn(128, callback=Stop())
    with pytest.raises(ValueError, match="reset_num_timesteps=True"):
        model.learn(128, reset_num_timesteps=False)
    model.learn(128)

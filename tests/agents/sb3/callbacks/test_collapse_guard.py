"""The guard measures what it says, stops what collapses, and undoes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import close
from sb3_models import EMBEDDED, Recorder, bias, envs_of, model_of, prior_of
from stable_baselines3 import A2C, PPO

from agents.sb3 import CollapseGuard, SampleGrids
from ral_env import bundle
from ral_env.nets import joint


def ruin_in(model: Any, monkeypatch: pytest.MonkeyPatch, update: int, by: float) -> None:
    """Have an update of the model, the first is 1, ruin its policy; the others do nothing."""
    updates: list[int] = []

    def train() -> None:
        updates.append(1)
        if len(updates) == update:
            bias(model, by=by)

    monkeypatch.setattr(model, "train", train)


@pytest.mark.parametrize(("max_nats", "reason"), [(1.0, "nats a canvas"), (1e9, "of their cells")])
def test_a_collapse_is_stopped_and_undone(tiny, monkeypatch, max_nats, reason):
    model = model_of(PPO, tiny)
    before, recorder = prior_of(model), Recorder()
    ruin_in(model, monkeypatch, update=2, by=6.0)
    guard = CollapseGuard(max_nats)
    with pytest.warns(UserWarning, match=reason):
        model.learn(6 * 256, callback=[guard, SampleGrids(), recorder])  # one that reads on
    assert model.num_timesteps == 3 * 256 and len(recorder.rollouts) == 2
    assert torch.equal(prior_of(model), before)
    assert guard.stopped and reason in guard.stopped
    model.learn(256, callback=guard, reset_num_timesteps=False)  # begins new episodes
    assert model.num_timesteps == 4 * 256 and guard.stopped is None


def test_the_last_update_is_guarded_too(tiny, monkeypatch):
    model = model_of(PPO, tiny)
    before = prior_of(model)
    ruin_in(model, monkeypatch, update=2, by=6.0)
    with pytest.warns(UserWarning, match="nats a canvas"):
        model.learn(2 * 256, callback=CollapseGuard(1.0))
    assert torch.equal(prior_of(model), before)


def test_the_guard_measures_what_it_says(tiny_two):
    environment = {"start": "continue", "rows": 6}
    model = model_of(A2C, tiny_two, environment, learning_rate=0.0)
    recorder = Recorder()
    callbacks = [CollapseGuard(1.0), recorder]
    model.learn(model.n_steps * 4, callback=callbacks, log_interval=None)
    logged, loaded = recorder.logged[0], bundle.load(tiny_two)
    layout = loaded.layout
    real = torch.from_numpy(np.array(loaded.split("validation"), np.int64))
    nll = -joint.total_log_prob(loaded.priors, layout.unflatten(real)).mean().item()
    assert logged["guard/nll"] == close(nll)
    canvases = np.stack([info["final_canvas"] for info in recorder.finals[0]])[:, ~layout.head(6)]
    pairs = [(canvases[i] != canvases[j]).mean() for i in range(4) for j in range(i)]
    assert logged["guard/diversity"] == close(np.mean(pairs))
    log_probs = recorder.rollouts[0]["log_probs"]
    assert logged["guard/entropy"] == close(-log_probs.mean())


def test_bounds_and_policies_that_it_cannot_guard_are_refused(tiny):
    with pytest.raises(ValueError, match="max_nats=0"):
        CollapseGuard(0)
    with pytest.raises(ValueError, match="min_diversity=2"):
        CollapseGuard(1.0, min_diversity=2)
    with pytest.raises(ValueError, match="count=0"):
        CollapseGuard(1.0, count=0)
    model = A2C("MlpPolicy", envs_of(tiny), n_steps=64, policy_kwargs=EMBEDDED, gamma=1.0)
    with pytest.raises(ValueError, match="use PixelCNNPolicy"):
        model.learn(1, callback=CollapseGuard(1.0))

"""The priors as SB3's policy: the same distribution, however it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import close
from sb3_models import (
    STARTS,
    assert_evaluations_agree,
    canvases,
    envs_of,
    logits_of,
    played,
    policy_of,
    raised,
)
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from agents.sb3 import PixelCNNPolicy, defaults
from ral_env import bundle
from ral_env.nets import PixelCNN, PixelCNNConfig, joint

BUNDLES = ["tiny", "tiny_two"]


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize(("start", "rows"), STARTS)
def test_steps_episodes_and_increments_agree(request, name, start, rows):
    policy = policy_of(request.getfixturevalue(name))
    first, codes = canvases(policy, start, rows)
    with torch.no_grad():
        log_probs, values = played(policy, first, codes)
        row = raised(policy, first, codes).float()  # SB3 hands floats over
        value, log_prob, entropy = policy.evaluate_actions(row, codes[first == policy.layout.empty])
        policy.use_cache = False
        plain, plain_values = played(policy, first, codes, every=7)
    assert log_prob.view_as(log_probs) == close(log_probs)
    assert value.view_as(values) == close(values)
    assert plain == close(log_probs[:, ::7])
    assert plain_values == close(values[:, ::7])
    assert entropy is not None and entropy.shape == log_prob.shape
    assert values.std() > 1e-3, "the critic was not at zero"


@pytest.mark.parametrize("name", BUNDLES)
def test_it_begins_as_the_prior_with_values_of_zero(request, name):
    path = request.getfixturevalue(name)
    policy, priors = policy_of(path, noise=0), bundle.load(path).priors
    for start, rows in STARTS:
        first, codes = canvases(policy, start, rows)
        written = first == policy.layout.empty
        grids = policy.layout.unflatten(codes, 8 if start == "continue" else rows)
        present = codes != policy.layout.outside
        with torch.no_grad():
            expected = torch.zeros(codes.shape)
            flat = torch.cat([p.flatten(1) for p in joint.log_prob(priors, grids)], 1)
            expected[present] = flat.flatten()
            value, log_prob, _ = policy.evaluate_actions(
                raised(policy, first, codes), codes[written]
            )
        assert log_prob == close(expected[written])
        assert not value.any()


def test_canvases_of_several_heights_and_starts_go_together(tiny_two):
    policy = policy_of(tiny_two)
    kinds = [canvases(policy, *start, count=2) for start in STARTS]
    first, codes = (torch.cat(parts) for parts in zip(*kinds, strict=True))
    order = torch.tensor([0, 2, 4, 1, 3, 5])
    first, codes = first[order], codes[order]
    rows = raised(policy, first, codes)
    written = first == policy.layout.empty
    with torch.no_grad():
        together = policy.evaluate_actions(rows, codes[written])
        alone = [
            policy.evaluate_actions(rows[i : i + 1], codes[i][written[i]]) for i in range(len(rows))
        ]
        step, value = (
            logits_of(policy, first),
            policy.predict_values(first),
        )
        steps = [logits_of(policy, one) for one in first.split(1)]
        values = [policy.predict_values(one) for one in first.split(1)]
    for found, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert found == close(torch.cat(parts))
    assert step == close(torch.cat(steps))
    assert value == close(torch.cat(values))


def test_the_gradient_of_an_episode_is_that_of_its_steps(tiny):
    policy = policy_of(tiny, detach_value=False)
    first, codes = canvases(policy, "continue", 6, count=2)
    written = first == policy.layout.empty
    weight = torch.randn(int(written.sum()))

    def gradients(values, log_probs):
        policy.zero_grad()
        (weight * (values.flatten() + log_probs.flatten())).sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    log_probs, values = played(policy, first, codes)
    expected = gradients(values, log_probs)
    value, log_prob, _ = policy.evaluate_actions(raised(policy, first, codes), codes[written])
    assert gradients(value, log_prob) == pytest.approx(expected, abs=1e-4)


def test_dropout_is_off_even_when_sb3_trains(tiny):
    prior = bundle.load(tiny).priors[0]
    assert prior.config.dropout > 0
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    policy.set_training_mode(True)
    assert policy.training and not any(m.training for m in policy.priors.modules())
    one, other = (logits_of(policy, first) for _ in range(2))
    assert torch.equal(one, other)


def test_priors_that_do_not_fit_are_refused(tiny, tiny_two):
    policy = policy_of(tiny)
    with pytest.raises(ValueError, match="2 priors, expected 1"):
        policy.load_prior(tiny_two)
    other = PixelCNN(PixelCNNConfig((8, 8), 16, hidden=4, residual=8, layers=2))
    with pytest.raises(ValueError, match="prior of level 0 is .*hidden=4"):
        policy.load_prior([other])
    with pytest.raises(ValueError, match="expected a PixelCNN for each level"):
        policy.load_prior([torch.nn.Linear(2, 2)])  # type: ignore[list-item]
    policy.load_prior(bundle.load(tiny))
    assert_evaluations_agree(policy, canvases(policy, "full", 8)[0])


def test_spaces_that_do_not_fit_are_refused(tiny, tiny_two):
    configs = [prior.config for prior in bundle.load(tiny_two).priors]
    with pytest.raises(ValueError, match="expect canvases of 320 cells"):
        PPO(PixelCNNPolicy, envs_of(tiny), policy_kwargs={"configs": configs})
    with pytest.raises(ValueError, match="expected a PixelCNNConfig for each level"):
        PPO(PixelCNNPolicy, envs_of(tiny))
    with pytest.raises(ValueError, match="use_sde=True"):
        policy_of(tiny, use_sde=True)


def test_a_policy_saves_and_loads_alone(tiny, tmp_path):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    policy.save(str(tmp_path / "policy.pt"))
    loaded = PixelCNNPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    assert torch.equal(loaded.predict_values(first), policy.predict_values(first))


def test_argmax_is_warned_of_once(tiny):
    envs = envs_of(tiny, 2)
    model: Any = PPO(PixelCNNPolicy, envs, seed=0, **defaults(PPO, envs))
    evaluate_policy(model, envs, 2, deterministic=False)
    with pytest.warns(UserWarning, match="one and the same image"):
        evaluate_policy(model, envs, 2)
    canvas = envs.reset()
    best, _ = model.predict(canvas, deterministic=True)
    with torch.no_grad():
        logits = logits_of(model.policy, torch.from_numpy(canvas))
    assert np.array_equal(best, logits.argmax(1))

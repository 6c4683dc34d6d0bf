"""The incremental evaluation says what the plain one does, and begins anew where it must."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from sb3_models import STARTS, assert_evaluations_agree, canvases, entropy_of, played, policy_of

from agents.sb3.incremental import StepCache
from ral_env.nets import backends


@pytest.fixture
def begun(monkeypatch):
    """How often an incremental evaluation has begun anew."""
    count = []
    original = StepCache._begin

    def begin(self, *arguments):
        count.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(StepCache, "_begin", begin)
    return count


@torch.no_grad()
def test_an_episode_is_begun_once_a_level(tiny_two, begun):
    policy = policy_of(tiny_two)
    first, codes = canvases(policy, "full", 8)
    played(policy, first, codes)
    assert len(begun) == 2
    policy(first)
    policy.predict_values(first)
    policy.get_distribution(first)
    assert len(begun) == 3


@torch.no_grad()
@pytest.mark.parametrize("change", ["optimiser", "load_state_dict", "data", "vector", "train"])
def test_new_weights_begin_it_anew(tiny, begun, change):
    policy = policy_of(tiny)
    first, codes = canvases(policy, "full", 8)
    assert_evaluations_agree(policy, first)
    first[:, 0] = codes[:, 0]
    assert_evaluations_agree(policy, first)
    assert len(begun) == 1
    if change == "optimiser":
        with torch.enable_grad():
            entropy_of(policy, first).sum().backward()
        policy.optimizer.step()
    elif change == "load_state_dict":
        policy.load_state_dict(policy_of(tiny, noise=1.0).state_dict())
    elif change == "data":  # what TRPO's line search does
        for parameter in policy.priors.parameters():
            parameter.data = parameter.data + 0.05
    elif change == "vector":
        policy.load_from_vector(policy.parameters_to_vector() * 1.1)
    else:
        for parameter in policy.priors.parameters():
            parameter.data += 0.05  # torch does not count this
        policy.set_training_mode(True)
    assert_evaluations_agree(policy, first)
    first[:, 1] = codes[:, 1]
    assert_evaluations_agree(policy, first)
    assert len(begun) == 2


@torch.no_grad()
def test_other_canvases_begin_it_anew(tiny, begun):
    policy = policy_of(tiny)
    first, codes = canvases(policy, "continue", 3)
    assert_evaluations_agree(policy, first)
    changed = first.clone()
    changed[1, 5] = (changed[1, 5] + 1) % 16  # another given code
    assert_evaluations_agree(policy, changed)
    two = changed.clone()
    two[:, 24:26] = codes[:, 24:26]  # two codes at once
    assert_evaluations_agree(policy, two)
    assert_evaluations_agree(policy, two[:2])  # fewer canvases
    assert len(begun) == 4
    assert_evaluations_agree(
        policy, codes.index_fill(1, torch.arange(21, 64), 16)
    )  # in the midst of a row
    assert len(begun) == 5
    apart = two.clone()
    apart[0, 26] = codes[0, 26]  # not in lockstep
    assert_evaluations_agree(policy, apart)
    assert_evaluations_agree(
        policy, torch.cat([canvases(policy, *start, count=1)[0] for start in STARTS])
    )
    assert len(begun) == 5


def test_gradients_bypass_it(tiny, begun):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    entropy_of(policy, first).sum().backward()
    assert not begun and all(p.grad is not None for p in policy.priors.parameters())
    with torch.inference_mode():
        policy(first)
    with torch.no_grad():
        policy(first)
        first[:, 0] = 3
        policy(first)
    assert len(begun) == 1


def test_copies_leave_it_behind(tiny):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    with torch.no_grad():
        policy(first)
    assert policy._step_cache is not None
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert other._step_cache is None
        assert_evaluations_agree(other, first)


@torch.no_grad()
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("backend", ["eager", "auto"])
def test_either_backend_evaluates_every_step(tiny_two, start, backend):
    policy = policy_of(tiny_two)
    backends.choose(policy, backend)
    canvas, codes = canvases(policy, *start)
    for cell in (canvas[0] == policy.layout.empty).nonzero().flatten().tolist():
        if cell % 5 == 0:
            assert_evaluations_agree(policy, canvas)
        else:
            policy(canvas)
        canvas[:, cell] = codes[:, cell]
    assert policy._step_cache is not None
    kind = type(policy._step_cache._cache).__name__
    assert kind == ("Steps" if backends.chosen(policy) == "native" else "Cache")

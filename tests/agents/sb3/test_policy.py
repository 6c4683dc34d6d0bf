"""The priors as SB3's policy: the same distribution, however it is asked for."""

from __future__ import annotations

import copy
import pickle
import textwrap
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

import agents.sb3
from agents.sb3 import EpisodeBuffer, InitialPrior, PixelCNNPolicy, defaults, make_vec_env
from agents.sb3 import incremental as incremental_module
from ral_env import bundle
from ral_env.nets import PixelCNN, PixelCNNConfig, joint


def envs_of(path, count: int = 4, **arguments: Any):
    return make_vec_env("RALBundle-v0", count, seed=0, bundle=str(path), **arguments)


def policy_of(path, noise: float = 0.5, **arguments: Any) -> PixelCNNPolicy:
    """The policy of a bundle's priors; with ``noise`` all parameters, the critic's too, differ."""
    loaded = bundle.load(path)
    layout = loaded.layout
    policy = PixelCNNPolicy(
        gym.spaces.Box(0, layout.outside, (layout.length,), np.int16),
        gym.spaces.Discrete(layout.num_codes),
        lambda _: 1e-3,
        configs=[prior.config for prior in loaded.priors],
        prior=InitialPrior(loaded.priors),
        **arguments,
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += noise * 0.1 * torch.randn_like(parameter)
    return policy


def canvases(policy: PixelCNNPolicy, start: str, rows: int, count: int = 3):
    """Start canvases (B, length), and the same finished, int64."""
    layout = policy.layout
    torch.manual_seed(2)
    codes = torch.randint(layout.num_codes, (count, layout.length))
    head = torch.from_numpy(layout.head(rows))
    if start == "continue":
        return torch.where(head, codes, layout.empty), codes
    codes = torch.where(head, codes, layout.outside)
    return torch.where(head, layout.empty, codes), codes


def raised(policy: PixelCNNPolicy, start: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Finished episodes as the buffer gives them."""
    return torch.where(start == policy.layout.empty, codes + policy.layout.num_codes + 2, codes)


def played(policy: PixelCNNPolicy, start: torch.Tensor, codes: torch.Tensor, every: int = 1):
    """Log-probs and values (B, T) of writing ``codes`` code by code, as the environment does."""
    canvas, log_probs, values = start.clone(), [], []
    for step, cell in enumerate((start[0] == policy.layout.empty).nonzero()[:, 0]):
        if step % every == 0:
            obs = canvas.to(torch.int16)
            log_probs.append(policy.get_distribution(obs).log_prob(codes[:, cell]))
            values.append(policy.predict_values(obs)[:, 0])
        canvas[:, cell] = codes[:, cell]
    return torch.stack(log_probs, 1), torch.stack(values, 1)


STARTS = [("full", 8), ("continue", 3), ("scratch", 5)]
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
            policy.get_distribution(first).distribution.logits,
            policy.predict_values(first),
        )
        steps = [policy.get_distribution(one).distribution.logits for one in first.split(1)]
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


def test_the_value_loss_moves_the_critic_alone(tiny):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    policy.predict_values(first).sum().backward()
    assert all(p.grad is None for p in policy.priors.parameters())
    assert all(p.grad is not None for p in policy.value_net.parameters())


def test_values_depend_on_earlier_cells_alone(tiny_two):
    policy = policy_of(tiny_two)
    first, codes = canvases(policy, "full", 8, count=1)
    changed = codes.clone()
    changed[:, 100:] = (changed[:, 100:] + 1) % 16  # a cell of the finer level
    with torch.no_grad():
        one, other = (
            policy.evaluate_actions(raised(policy, first, each), each.flatten())[0].flatten()
            for each in (codes, changed)
        )
    assert torch.equal(one[:101], other[:101]) and not torch.equal(one[101:], other[101:])


def test_dropout_is_off_even_when_sb3_trains(tiny):
    prior = bundle.load(tiny).priors[0]
    assert prior.config.dropout > 0
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    policy.set_training_mode(True)
    assert policy.training and not any(m.training for m in policy.priors.modules())
    one, other = (policy.get_distribution(first).distribution.logits for _ in range(2))
    assert torch.equal(one, other)


# --- the incremental evaluation ---


@pytest.fixture
def begun(monkeypatch):
    """How often an incremental evaluation has begun anew."""
    count = []
    original = incremental_module.StepCache._begin

    def begin(self, *arguments):
        count.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(incremental_module.StepCache, "_begin", begin)
    return count


def agrees(policy: PixelCNNPolicy, canvas: torch.Tensor) -> None:
    """That both ways say the same of a canvas."""
    with torch.no_grad():
        logits = policy.get_distribution(canvas).distribution.logits.clone()
        values = policy.predict_values(canvas)
        policy.use_cache = False
        assert logits == close(policy.get_distribution(canvas).distribution.logits)
        assert values == close(policy.predict_values(canvas))
        policy.use_cache = True


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
    agrees(policy, first)
    first[:, 0] = codes[:, 0]
    agrees(policy, first)
    assert len(begun) == 1
    if change == "optimiser":
        with torch.enable_grad():
            policy.get_distribution(first).entropy().sum().backward()
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
    agrees(policy, first)
    first[:, 1] = codes[:, 1]
    agrees(policy, first)
    assert len(begun) == 2


@torch.no_grad()
def test_other_canvases_begin_it_anew(tiny, begun):
    policy = policy_of(tiny)
    first, codes = canvases(policy, "continue", 3)
    agrees(policy, first)
    changed = first.clone()
    changed[1, 5] = (changed[1, 5] + 1) % 16  # another given code
    agrees(policy, changed)
    two = changed.clone()
    two[:, 24:26] = codes[:, 24:26]  # two codes at once
    agrees(policy, two)
    agrees(policy, two[:2])  # fewer canvases
    assert len(begun) == 4
    agrees(policy, codes.index_fill(1, torch.arange(21, 64), 16))  # in the midst of a row
    assert len(begun) == 5
    apart = two.clone()
    apart[0, 26] = codes[0, 26]  # not in lockstep
    agrees(policy, apart)
    agrees(policy, torch.cat([canvases(policy, *start, count=1)[0] for start in STARTS]))
    assert len(begun) == 5


def test_gradients_bypass_it(tiny, begun):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    policy.get_distribution(first).entropy().sum().backward()
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
        agrees(other, first)


# --- with SB3's algorithms ---


@pytest.mark.parametrize("name", BUNDLES)
def test_the_first_ratio_is_one(request, name, tmp_path):
    envs = envs_of(request.getfixturevalue(name))
    model = PPO(PixelCNNPolicy, envs, seed=0, **defaults(PPO, envs, n_epochs=1))
    model.set_logger(configure(str(tmp_path), []))
    model.learn(model.n_steps * 4)
    logged = model.logger.name_to_value
    assert logged["train/approx_kl"] == close(0)
    assert logged["train/clip_fraction"] == 0


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_saved_models_go_on_without_the_bundle(tiny, tmp_path, algorithm, monkeypatch):
    envs = envs_of(tiny)
    few = {"cg_max_steps": 2, "n_critic_updates": 1} if algorithm is TRPO else {}
    model = algorithm(PixelCNNPolicy, envs, seed=0, **defaults(algorithm, envs, **few))
    model.learn(256)
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").stat().st_size < 300_000
    monkeypatch.setattr(bundle, "load", None)
    loaded = algorithm.load(tmp_path / "model", env=envs)
    first, codes = canvases(model.policy, "full", 8)
    rows = raised(model.policy, first, codes)
    with torch.no_grad():
        assert torch.equal(
            loaded.policy.evaluate_actions(rows, codes.flatten())[1],
            model.policy.evaluate_actions(rows, codes.flatten())[1],
        )
    assert isinstance(loaded.rollout_buffer, EpisodeBuffer)
    before = loaded.policy.parameters_to_vector()
    loaded.learn(256)
    assert not np.array_equal(before, loaded.policy.parameters_to_vector())


def test_a_policy_saves_and_loads_alone(tiny, tmp_path):
    policy = policy_of(tiny)
    first, _ = canvases(policy, "full", 8)
    policy.save(str(tmp_path / "policy.pt"))
    loaded = PixelCNNPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    assert torch.equal(loaded.predict_values(first), policy.predict_values(first))


def test_argmax_is_warned_of_once(tiny):
    envs = envs_of(tiny, 2)
    model = PPO(PixelCNNPolicy, envs, seed=0, **defaults(PPO, envs))
    evaluate_policy(model, envs, 2, deterministic=False)
    with pytest.warns(UserWarning, match="one and the same image"):
        evaluate_policy(model, envs, 2)
    canvas = envs.reset()
    best, _ = model.predict(canvas, deterministic=True)
    with torch.no_grad():
        logits = model.policy.get_distribution(torch.from_numpy(canvas)).distribution.logits
    assert np.array_equal(best, logits.argmax(1))


@pytest.mark.parametrize("way", ["as made", "copied", "pickled"])
def test_the_critic_learns_at_a_rate_of_its_own(tiny, way):
    policy = policy_of(tiny, value_rate=5.0, optimizer_class=torch.optim.SGD, optimizer_kwargs={})
    if way == "copied":
        policy = copy.deepcopy(policy)
    elif way == "pickled":
        policy = pickle.loads(pickle.dumps(policy))
    before = [p.detach().clone() for p in policy.parameters()]
    for _ in range(2):
        for parameter in policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        policy.optimizer.step()
    assert [group["lr"] for group in policy.optimizer.param_groups] == pytest.approx([1e-3] * 2)
    moved = dict(zip([name for name, _ in policy.named_parameters()], before, strict=True))
    for name, parameter in policy.named_parameters():
        expected = 2e-3 * (5 if name.startswith("value_net") else 1)
        assert moved[name] - parameter.detach() == close(torch.full_like(parameter, expected))


@pytest.mark.expensive
def test_the_example_runs(tmp_path, monkeypatch):
    text = textwrap.dedent(agents.sb3.__doc__.split("\n\n", 1)[1].split("\n\nA2C and")[0])
    monkeypatch.chdir(tmp_path)
    exec(text.replace("50 * 64", "2 * 64"), {})


# --- errors ---


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
    agrees(policy, canvases(policy, "full", 8)[0])


def test_spaces_that_do_not_fit_are_refused(tiny, tiny_two):
    configs = [prior.config for prior in bundle.load(tiny_two).priors]
    with pytest.raises(ValueError, match="expect canvases of 320 cells"):
        PPO(PixelCNNPolicy, envs_of(tiny), policy_kwargs={"configs": configs})
    with pytest.raises(ValueError, match="expected a PixelCNNConfig for each level"):
        PPO(PixelCNNPolicy, envs_of(tiny))
    with pytest.raises(ValueError, match="use_sde=True"):
        policy_of(tiny, use_sde=True)


def test_observations_that_are_no_canvases_are_refused(tiny):
    policy = policy_of(tiny)
    first, codes = canvases(policy, "full", 8)
    with pytest.raises(ValueError, match="no cell is EMPTY"):
        policy.predict_values(codes)
    with pytest.raises(ValueError, match="norm_obs"):
        policy.predict_values(first * 0.3)
    with pytest.raises(ValueError, match="hold -1 to"):
        policy.predict_values(first - 17)
    with pytest.raises(ValueError, match="mixed"):
        policy.predict_values(torch.cat([first, raised(policy, first, codes)]))
    with pytest.raises(ValueError, match="no sub-sampling"):
        policy.evaluate_actions(raised(policy, first, codes), codes.flatten()[::2])


def test_only_the_critic_learns_from_a_frozen_prior(tiny):
    envs = envs_of(tiny)
    model = PPO(PixelCNNPolicy, envs, seed=0, **defaults(PPO, envs))
    before = copy.deepcopy(model.policy.state_dict())
    model.policy.freeze_prior(True)
    model.learn(256)
    after = model.policy.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"value_net"}
    model.policy.freeze_prior(False)
    model.learn(256)
    after = model.policy.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before if "priors" in name)

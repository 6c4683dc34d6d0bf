"""The RAL loop: returns by hand, one definition of an episode, it learns, it saves."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import reinforce
from agents.discriminator import DiscriminatorTraining
from agents.reinforce import Config, advantages, play, returns, train
from ral_env import bundle as bundles
from ral_env.nets import PatchGANConfig, joint


def test_returns_equal_eq_3_by_hand():
    rewards = torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 4.0]])
    expected = torch.tensor([[0.25, 0.5, 1.0], [1 + 1 + 1, 2 + 2, 4]])
    torch.testing.assert_close(returns(rewards, 0.5), expected)
    torch.testing.assert_close(returns(rewards, 1.0)[:, 0], rewards.sum(1))


def test_leave_one_out_by_hand():
    q = torch.tensor([[1.0], [2.0], [6.0]])
    expected = torch.tensor([[1 - 4.0], [2 - 3.5], [6 - 1.5]])
    torch.testing.assert_close(advantages(q, "leave-one-out", False), expected)
    assert torch.equal(advantages(q, "none", False), q)
    assert advantages(q, "leave-one-out", True).std().item() == pytest.approx(1.0)
    assert (advantages(torch.ones(3, 2), "leave-one-out", True) == 0).all()


def flat(nets):
    """All parameters of some nets in one row."""
    return torch.cat([p.flatten() for net in nets for p in net.parameters()])


@pytest.fixture(params=["one level", "two levels"])
def small(request, tiny_codes, tiny_two_codes):
    """The small preset on a tiny bundle, for a few iterations."""
    path = {"one level": tiny_codes, "two levels": tiny_two_codes}[request.param]
    return dataclasses.replace(
        reinforce.PRESETS["small"],
        env="RALBundle-v0",
        bundle=str(path),
        iterations=3,
        batch=8,
        warmup=2,
        discriminator_updates=2,
        gate_auc=0.0,
    )


@pytest.mark.parametrize("reward", ["single", "intermediate"])
@pytest.mark.parametrize("start", ["full", "partial"])
@pytest.mark.parametrize("fake_pool", [0, 2])
def test_whole_canvas_and_step_by_step_learn_the_same(small, reward, start, fake_pool):
    config = dataclasses.replace(small, reward=reward, start=start, fake_pool=fake_pool)
    whole = train(config, progress=False)
    steps = train(dataclasses.replace(config, step_by_step=True), progress=False)
    for a, b in zip(whole.history, steps.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {
            k: v for k, v in b.items() if k != "seconds"
        }
    assert torch.equal(flat(whole.policies), flat(steps.policies))


def test_play_pays_the_same_either_way(tiny_codes):
    env = gym.make_vec(
        "RALBundle-v0", 3, bundle=str(tiny_codes), autoreset_mode="disabled"
    ).unwrapped
    canvas, _ = env.reset(seed=0, options={"start": "continue", "rows": 1})
    codes = np.where(canvas == env.layout.empty, 2, canvas)
    whole = play(env, canvas, codes, step_by_step=False)
    env.reset(seed=0, options={"start": "continue", "rows": 1})
    steps = play(env, canvas, codes, step_by_step=True)
    assert np.array_equal(whole[0], steps[0])
    assert np.array_equal(whole[1]["step_rewards"], steps[1]["step_rewards"])


def test_the_same_seed_learns_the_same_and_another_does_not(small):
    a, b = train(small, progress=False), train(small, progress=False)
    c = train(dataclasses.replace(small, seed=1), progress=False)
    assert torch.equal(flat(a.policies), flat(b.policies))
    for level, policy in enumerate(a.policies):
        assert not torch.equal(flat([policy]), flat([c.policies[level]]))


def test_a_constant_reward_teaches_nothing_with_a_baseline(small):
    config = dataclasses.replace(small, reward_source="constant", mle_weight=0.0, ema=0.0)
    result = train(config, progress=False)
    assert torch.equal(flat(result.policies), flat(bundles.load(config.bundle).priors))


def test_a_blind_discriminator_moves_no_policy(small):
    result = train(dataclasses.replace(small, gate_auc=1.1), progress=False)
    assert all(row["gated"] == 1 for row in result.history)
    assert torch.equal(flat(result.policies), flat(bundles.load(small.bundle).priors))


def test_the_policy_gradient_step_equals_one_by_hand(small, monkeypatch):
    """One update without anchor: the parameters' gradient is that of -A * log G, by autograd on
    a formula written here from the rollout the loop has made."""
    config = dataclasses.replace(small, iterations=1, mle_weight=0.0, standardise=False, gamma=0.9)
    seen = {}
    adam = torch.optim.Adam

    class Spy(adam):
        def step(self, closure=None):
            seen.setdefault("gradients", []).append(
                [p.grad.clone() for g in self.param_groups for p in g["params"]]
            )
            return super().step(closure)

    original = reinforce.play

    def spy_play(envs, canvas, codes, by_step):
        rewards, infos = original(envs, canvas, codes, by_step)
        seen.update(codes=codes, rewards=rewards)
        return rewards, infos

    monkeypatch.setattr(reinforce, "play", spy_play)
    monkeypatch.setattr(torch.optim, "Adam", Spy)
    train(config, progress=False)
    priors = bundles.load(config.bundle).priors
    codes = torch.from_numpy(seen["codes"].astype(np.int64))
    reward = torch.from_numpy(seen["rewards"]).float()
    time_left = torch.arange(codes.shape[1] - 1, -1, -1)
    others = (reward.sum() - reward) / (len(reward) - 1)
    weight = (reward - others)[:, None] * 0.9**time_left
    top = codes[:, :64].view(-1, 8, 8)
    log_prob = priors[0].log_prob(top).flatten(1)
    if len(priors) == 2:
        bottom = priors[1].log_prob(codes[:, 64:].view(-1, 16, 16), top).flatten(1)
        log_prob = torch.cat([log_prob, bottom], 1)
    loss = -(weight * log_prob).sum() / codes.numel()
    expected = torch.autograd.grad(loss, [p for prior in priors for p in prior.parameters()])
    found = seen["gradients"][-1]  # the discriminator's steps come first
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_the_paper_preset_runs_with_fresh_fakes_on_images(tiny_codes):
    size = bundles.load(tiny_codes).vqvae.config.image_size
    config = dataclasses.replace(
        Config(),
        env="RALBundle-v0",
        bundle=str(tiny_codes),
        iterations=2,
        warmup=2,
        discriminator_net=PatchGANConfig(hidden=4, layers=(size // 4).bit_length() - 1),
    )
    assert config.learning_rate == 4e-6 and config.batch == 16 and config.gamma == 0.99
    assert config.discriminator == DiscriminatorTraining("wgan-gp", 1e-4, (0.5, 0.999), 10.0)
    result = train(config, progress=False)
    assert {"wasserstein", "gradient_penalty", "reward", "auc"} <= set(result.history[-1])
    assert -1 <= result.history[-1]["reward"] <= 1


def test_the_policy_comes_to_please_the_discriminator(small, monkeypatch):
    """With a frozen judge of one code, the share of that code must grow, on every level."""

    class LikesCodeZero(torch.nn.Module):
        stride = 1

        def __init__(self, codebooks):
            super().__init__()
            self.register_buffer("wanted", codebooks[:, 0].flatten())
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):  # (B, D, h, w) -> (B, 1, h, w)
            match = (x - self.wanted[:, None, None]).abs().sum(1, keepdim=True) < 1e-6
            return match.float() + 0 * self.unused * x.mean(1, keepdim=True)

    bundle = bundles.load(small.bundle)
    judge = LikesCodeZero(bundle.vqvae.codebooks.clone())
    monkeypatch.setattr(bundles.Bundle, "discriminator", judge)
    config = dataclasses.replace(
        small, iterations=40, batch=32, mle_weight=0.0, learning_rate=1e-2, ema=0.0, warmup=0
    )
    result = train(config, progress=False)
    generator = torch.Generator().manual_seed(0)
    before, after = (
        [(grid == 0).float().mean() for grid in joint.draw(policies, 200, generator)]
        for policies in (bundle.priors, result.policies)
    )
    for level in range(len(bundle.priors)):
        assert after[level] > 0.9 > before[level] + 0.3


def test_ctrl_c_leaves_a_usable_bundle(small, tmp_path, monkeypatch):
    calls = []

    def interrupted_play(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return play(*arguments)

    monkeypatch.setattr(reinforce, "play", interrupted_play)
    result = train(small, tmp_path / "run", progress=False)
    assert result.interrupted and len(result.history) == 2
    saved = bundles.load(tmp_path / "run" / "bundle")
    assert torch.equal(flat(saved.priors), flat(result.policies))
    assert (tmp_path / "run" / "progress.csv").read_text().count("\n") == 3
    assert list((tmp_path / "run").glob("samples-*.png"))
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    env = gym.make("RALBundle-v0", bundle=str(tmp_path / "run" / "bundle"))
    env.reset(seed=0)


def test_settings_that_cannot_work_are_refused(small):
    with pytest.raises(ValueError, match="batch of at least 2"):
        train(dataclasses.replace(small, batch=1), progress=False)
    with pytest.raises(ValueError, match="discriminator_net"):
        other = {"codes": "image", "image": "codes"}[bundles.load(small.bundle).discriminator_input]
        train(
            dataclasses.replace(small, discriminator_input=other, discriminator_net=None),
            progress=False,
        )

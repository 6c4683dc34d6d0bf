"""Around SB3's updates: credited rewards, the discriminator, pictures, guards, and the checks."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.sb3 import (
    CodeEmbeddingExtractor,
    CollapseGuard,
    DiscriminatorCallback,
    EpisodeBuffer,
    PixelCNNPolicy,
    SampleGrids,
    StepRewards,
    ValueWarmup,
    check,
    defaults,
    make_vec_env,
)
from agents.training.discriminator import DiscriminatorTraining
from ral_env import bundle
from ral_env.bundle.custom import assemble
from ral_env.nets import UncachedPrior, joint


def envs_of(path, count: int = 4, **arguments: Any):
    return make_vec_env("RALBundle-v0", count, seed=0, bundle=str(path), **arguments)


def model_of(algorithm: Any, path, environment: dict[str, Any] | None = None, **changes: Any):
    envs = envs_of(path, **(environment or {}))
    return algorithm(PixelCNNPolicy, envs, seed=0, **defaults(algorithm, envs, **changes))


def prior_of(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.policy.priors.parameters()]).clone()


def biased(model: Any, code: int = 3, by: float = 4.0) -> None:
    """Let the policy prefer a code."""
    with torch.no_grad():
        for prior in model.policy.priors:
            prior.head.bias[code] += by


class Watch(BaseCallback):
    """Keeps rollouts as they are when the callbacks before it are done, and their final infos."""

    def __init__(self):
        super().__init__()
        self.rollouts: list[dict[str, np.ndarray]] = []
        self.finals: list[list[dict[str, Any]]] = []
        self.logged: list[dict[str, Any]] = []

    def _on_rollout_start(self) -> None:
        self.finals.append([])

    def _on_step(self) -> bool:
        done = np.flatnonzero(self.locals["dones"])
        self.finals[-1] += [{"env": i, **self.locals["infos"][i]} for i in done]
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        names = ("rewards", "values", "log_probs", "advantages", "returns")
        self.rollouts.append({name: getattr(buffer, name).copy() for name in names})
        self.logged.append(dict(self.logger.name_to_value))


def by_hand(rewards: np.ndarray, values: np.ndarray, gamma: float, share: float) -> np.ndarray:
    """Generalised advantages of one episode (T,), from their definition."""
    steps = len(rewards)
    following = np.append(values[1:], 0.0)
    delta = rewards + gamma * following - values
    return np.array(
        [sum((gamma * share) ** (k - t) * delta[k] for k in range(t, steps)) for t in range(steps)]
    )


@pytest.mark.parametrize("kind", [EpisodeBuffer, RolloutBuffer])
@pytest.mark.parametrize(("algorithm", "gamma", "share"), [(PPO, 0.97, 0.9), (A2C, 1.0, 1.0)])
def test_each_code_is_credited_with_what_it_earned(tiny, algorithm, gamma, share, kind):
    model = model_of(
        algorithm,
        tiny,
        {"reward": "intermediate"},
        n_steps=128,
        gamma=gamma,
        gae_lambda=share,
        rollout_buffer_class=kind,
        learning_rate=1e-2,
    )
    torch.nn.init.normal_(model.policy.value_net[0][-1].weight)  # values are not zero
    watch = Watch()
    model.learn(128 * 4, callback=[StepRewards(), watch])
    rollout, seen = watch.rollouts[0], np.zeros(4, int)
    for info in watch.finals[0]:
        i, first = info["env"], 64 * seen[info["env"]]
        seen[i] += 1
        steps = slice(first, first + 64)
        assert rollout["rewards"][steps, i] == close(info["step_rewards"])
        values = rollout["values"][steps, i]
        expected = by_hand(info["step_rewards"], values, gamma, share)
        assert rollout["advantages"][steps, i] == close(expected, 64)
        assert rollout["returns"][steps, i] == close(expected + values, 64)
    assert (seen == 2).all() and rollout["values"].std() > 1e-3


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
def test_the_penalty_is_the_log_ratio_to_the_start(request, name):
    path = request.getfixturevalue(name)
    environment = {"reward": "intermediate", "start": "continue", "rows": 6}
    model = model_of(PPO, path, environment, learning_rate=1e-2)
    watch, kl, layout = Watch(), 0.3, model.policy.layout
    written = ~layout.head(6)
    model.learn(2 * model.n_steps * 4, callback=[StepRewards(kl), watch], log_interval=None)
    assert watch.logged[0]["rollout/kl_to_reference"] == close(0, written.sum())
    priors = bundle.load(path).priors
    rollout, total = watch.rollouts[1], 0.0
    for info in watch.finals[1]:
        grids = layout.unflatten(torch.from_numpy(info["final_canvas"]).long()[None])
        with torch.no_grad():
            reference = layout.flatten(joint.log_prob(priors, grids))[0].numpy()[written]
        further = rollout["log_probs"][:, info["env"]] - reference
        expected = info["step_rewards"] - kl * further
        assert rollout["rewards"][:, info["env"]] == close(expected)
        total += further.sum()
    assert abs(total) > 1e-3
    assert watch.logged[1]["rollout/kl_to_reference"] == close(total / 4, written.sum())


def test_sb3s_own_vec_env_is_credited_too(tiny):
    envs = DummyVecEnv(
        [lambda: gym.make("RALBundle-v0", bundle=str(tiny), reward="intermediate")] * 2
    )
    model = A2C("MlpPolicy", envs, n_steps=64, gamma=1.0,
                policy_kwargs={"features_extractor_class": CodeEmbeddingExtractor})  # fmt: skip
    watch = Watch()
    model.learn(128, callback=[StepRewards(), watch])
    for info in watch.finals[0]:
        found = watch.rollouts[0]["rewards"][:, info["env"]]
        assert found == close(info["step_rewards"])


def test_rewards_of_broken_episodes_are_refused(tiny):
    policy: dict[str, Any] = {"features_extractor_class": CodeEmbeddingExtractor}
    model = A2C("MlpPolicy", envs_of(tiny), n_steps=96, policy_kwargs=policy, gamma=1.0)
    with pytest.raises(ValueError, match="n_steps=96 is no multiple"):
        model.learn(1, callback=StepRewards())
    model = A2C("MlpPolicy", VecNormalize(envs_of(tiny), norm_obs=False), n_steps=64,
                policy_kwargs=policy, gamma=1.0)  # fmt: skip
    with pytest.raises(ValueError, match="norm_reward=False"):
        model.learn(1, callback=StepRewards())
    with pytest.raises(ValueError, match="kl_coef=-1"):
        StepRewards(-1)


# --- the discriminator ---

LEARNS = DiscriminatorTraining(loss="logistic", learning_rate=1e-2)


@pytest.mark.parametrize("name", ["tiny_codes", "tiny_two"])
def test_the_discriminator_learns_and_pays(request, name):
    path = request.getfixturevalue(name)
    model = model_of(A2C, path, {"reward": "intermediate"}, learning_rate=0.0)
    envs = model.get_env().unwrapped.envs
    biased(model)
    before = copy.deepcopy(envs.discriminator.state_dict())
    watch = Watch()
    learner = DiscriminatorCallback(LEARNS, updates=25, warmup=0, batch=8)
    model.learn(3 * model.n_steps * 4, callback=[learner, watch], log_interval=None)
    aucs = [row["discriminator/auc"] for row in watch.logged]
    assert aucs[-1] > 0.9 > aucs[0]
    assert "discriminator/cross_entropy" in watch.logged[0]
    after = envs.discriminator.state_dict()
    trained = learner.trainer.net.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(after[key], trained[key]) for key in after)
    assert any(not torch.equal(after[key], before[key]) for key in after)
    assert envs.reward_scale == watch.logged[-1]["discriminator/reward_scale"]
    # What it has learnt is paid: the real canvases score above the policy's.
    fake = np.stack([info["final_canvas"] for info in watch.finals[-1]])
    real = envs.bundle.split("validation")[:4]
    assert envs.score(real).mean() > envs.score(fake).mean() + 0.1


def test_the_discriminator_is_warmed_up_on_the_policys_canvases(tiny_codes):
    model = model_of(A2C, tiny_codes, learning_rate=0.0)
    biased(model)
    watch = Watch()
    learner = DiscriminatorCallback(LEARNS, updates=0, warmup=60, batch=8)
    model.learn(256, callback=[learner, watch], log_interval=None)
    assert watch.logged[0]["discriminator/auc"] > 0.9
    trained = copy.deepcopy(learner.trainer.net.state_dict())  # type: ignore[union-attr]
    model.learn(256, callback=learner, reset_num_timesteps=False)
    for key, value in learner.trainer.net.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, trained[key]), "warmed up once"


def test_the_discriminator_learns_from_canvases_of_some_rows(tiny):
    model = model_of(PPO, tiny, {"start": "partial", "rows": 4}, n_steps=96)
    learner = DiscriminatorCallback(updates=2, warmup=2, batch=4, normaliser="running")
    model.learn(96 * 4 * 2, callback=[learner, SampleGrids(every=1)])


def test_the_discriminator_refuses_replay(tiny):
    policy: dict[str, Any] = {"features_extractor_class": CodeEmbeddingExtractor}
    model = DQN("MlpPolicy", envs_of(tiny), policy_kwargs=policy, gamma=1.0, buffer_size=100)
    with pytest.raises(ValueError, match="DQN: a replay buffer pays what an earlier"):
        model.learn(1, callback=DiscriminatorCallback())
    with pytest.raises(ValueError, match="updates=-1"):
        DiscriminatorCallback(updates=-1)
    with pytest.raises(ValueError, match="normaliser='none'"):
        DiscriminatorCallback(normaliser="none")


# --- pictures ---


def test_sample_grids_are_in_tensorboard(tiny, tmp_path):
    model = model_of(A2C, tiny)
    model.set_logger(configure(str(tmp_path), ["tensorboard", "csv", "json", "log"]))
    model.learn(5 * 256, callback=SampleGrids(every=2, count=3), log_interval=1)
    model.logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [image.step for image in events.Images("samples")] == [256, 768, 1280]
    assert events.Images("samples")[0].width > 64


# --- guards ---


def damaging(model: Any, monkeypatch: pytest.MonkeyPatch, rollout: int, by: float) -> None:
    """Have an update ruin the policy."""
    calls: list[int] = []

    def train() -> None:
        calls.append(1)
        if len(calls) == rollout:
            biased(model, by=by)

    monkeypatch.setattr(model, "train", train)


@pytest.mark.parametrize(("max_nats", "why"), [(1.0, "nats a canvas"), (1e9, "of their cells")])
def test_a_collapse_is_stopped_and_undone(tiny, monkeypatch, max_nats, why):
    model = model_of(PPO, tiny)
    before, watch = prior_of(model), Watch()
    damaging(model, monkeypatch, rollout=2, by=6.0)
    guard = CollapseGuard(max_nats)
    with pytest.warns(UserWarning, match=why):
        model.learn(6 * 256, callback=[guard, SampleGrids(), watch])  # one that reads on
    assert model.num_timesteps == 3 * 256 and len(watch.rollouts) == 2
    assert torch.equal(prior_of(model), before)
    assert guard.stopped and why in guard.stopped
    model.learn(256, callback=guard, reset_num_timesteps=False)  # begins new episodes
    assert model.num_timesteps == 4 * 256 and guard.stopped is None


def test_the_last_update_is_guarded_too(tiny, monkeypatch):
    model = model_of(PPO, tiny)
    before = prior_of(model)
    damaging(model, monkeypatch, rollout=2, by=6.0)
    with pytest.warns(UserWarning, match="nats a canvas"):
        model.learn(2 * 256, callback=CollapseGuard(1.0))
    assert torch.equal(prior_of(model), before)


def test_the_guard_measures_what_it_says(tiny_two):
    environment = {"start": "continue", "rows": 6}
    model = model_of(A2C, tiny_two, environment, learning_rate=0.0)
    watch = Watch()
    model.learn(model.n_steps * 4, callback=[CollapseGuard(1.0), watch], log_interval=None)
    logged, loaded = watch.logged[0], bundle.load(tiny_two)
    layout = loaded.layout
    real = torch.from_numpy(np.array(loaded.split("validation"), np.int64))
    nll = -joint.total_log_prob(loaded.priors, layout.unflatten(real)).mean().item()
    assert logged["guard/nll"] == close(nll)
    canvases = np.stack([info["final_canvas"] for info in watch.finals[0]])[:, ~layout.head(6)]
    pairs = [(canvases[i] != canvases[j]).mean() for i in range(4) for j in range(i)]
    assert logged["guard/diversity"] == close(np.mean(pairs))
    log_probs = watch.rollouts[0]["log_probs"]
    assert logged["guard/entropy"] == close(-log_probs.mean())


def test_bad_bounds_are_refused(tiny):
    with pytest.raises(ValueError, match="max_nats=0"):
        CollapseGuard(0)
    with pytest.raises(ValueError, match="rollouts=-1"):
        ValueWarmup(-1)
    with pytest.raises(ValueError, match="every=0"):
        SampleGrids(0)
    policy: dict[str, Any] = {"features_extractor_class": CodeEmbeddingExtractor}
    model = A2C("MlpPolicy", envs_of(tiny), n_steps=64, policy_kwargs=policy, gamma=1.0)
    with pytest.raises(ValueError, match="use PixelCNNPolicy"):
        model.learn(1, callback=CollapseGuard(1.0))


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_the_critic_learns_first(tiny, algorithm):
    changes = {"cg_max_steps": 2, "n_critic_updates": 1} if algorithm is TRPO else {}
    model = model_of(algorithm, tiny, {"reward": "rowwise"}, **changes)
    names = ("n_epochs", "n_critic_updates", "line_search_max_iter")
    settings = {name: getattr(model, name, None) for name in names}
    priors, critics = [], []

    class After(BaseCallback):
        def _on_rollout_start(self) -> None:
            priors.append(prior_of(self.model))
            critics.append(self.model.policy.value_net[0][-1].weight.detach().clone())

        def _on_step(self) -> bool:
            return True

    model.learn(3 * 256, callback=[ValueWarmup(1, epochs=2), After()])
    assert torch.equal(priors[0], priors[1]) and not torch.equal(priors[1], priors[2])
    assert not torch.equal(critics[0], critics[1])
    assert all(p.requires_grad for p in model.policy.parameters())
    assert settings == {name: getattr(model, name, None) for name in names}


# --- settings ---


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_defaults_are_right_and_can_be_changed(tiny, algorithm):
    envs = envs_of(tiny)
    found = defaults(algorithm, envs, gamma=0.999, policy_kwargs={"value_hidden": 8})
    assert found["n_steps"] == 64 and found["gamma"] == 0.999
    assert found["rollout_buffer_class"] is EpisodeBuffer
    model = algorithm(PixelCNNPolicy, envs, **found)
    check(model)
    assert model.policy.value_hidden == 8
    prior = bundle.load(tiny).priors[0]
    assert torch.equal(prior_of(model), torch.cat([p.flatten() for p in prior.parameters()]))


def test_settings_that_break_are_refused(tiny, tiny_codes):
    envs = envs_of(tiny)
    with pytest.raises(ValueError, match="n_steps=100 .*expected n_steps=64"):
        defaults(PPO, envs, n_steps=100)
    with pytest.raises(ValueError, match="batch_size=96 .*expected batch_size=64"):
        defaults(PPO, envs, batch_size=96)
    with pytest.raises(ValueError, match="sub_sampling_factor=2"):
        defaults(TRPO, envs, sub_sampling_factor=2)
    with pytest.raises(ValueError, match="DQN takes no PixelCNNPolicy"):
        defaults(DQN, envs)
    with pytest.raises(ValueError, match="make_vec_env"):
        defaults(PPO, DummyVecEnv([lambda: gym.make("RALBundle-v0", bundle=str(tiny))]))
    for start in ("partial", "scratch", "continue"):
        with pytest.raises(ValueError, match=r"several lengths.*rows=\.\.\."):
            defaults(PPO, envs_of(tiny, start=start))


def test_priors_of_others_are_refused(tiny):
    loaded = bundle.load(tiny)
    own = assemble(
        codec=loaded.vqvae, priors=[UncachedPrior(loaded.priors[0].logits, 16)],
        discriminator=loaded.discriminator,
        codes=loaded.codes, num_codes=16,
    )  # fmt: skip
    envs = make_vec_env("RALBundle-v0", 2, bundle=own)
    with pytest.raises(ValueError, match=r"priors are \['UncachedPrior'\]"):
        defaults(PPO, envs)


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"start": "partial"}, {}, "several lengths"),
        ({}, {"n_steps": 96, "batch_size": 96 * 4}, "n_steps=96"),
        ({}, {"batch_size": 128 + 32}, "batch_size=160"),
    ],
)
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_the_check_refuses_what_sb3_lets_through(tiny, environment, changes, message):
    configs = [prior.config for prior in bundle.load(tiny).priors]
    arguments = {"n_steps": 64, "batch_size": 64, "gamma": 1.0} | changes
    model = PPO(PixelCNNPolicy, envs_of(tiny, **environment), rollout_buffer_class=EpisodeBuffer,
                policy_kwargs={"configs": configs}, **arguments)  # fmt: skip
    with pytest.raises(ValueError, match=message):
        check(model)
    with pytest.raises(ValueError, match=message):
        model.learn(1, callback=ValueWarmup(1))


def test_the_check_knows_normalised_canvases_foreign_policies_and_blind_codes(tiny):
    policy: dict[str, Any] = {"features_extractor_class": CodeEmbeddingExtractor}
    model = A2C("MlpPolicy", VecNormalize(envs_of(tiny)), policy_kwargs=policy, gamma=1.0)
    with pytest.raises(ValueError, match="norm_obs=False"):
        check(model)
    model = A2C("MlpPolicy", envs_of(tiny), n_steps=64, policy_kwargs=policy, gamma=1.0,
                rollout_buffer_class=EpisodeBuffer)  # fmt: skip
    with pytest.raises(ValueError, match="ActorCriticPolicy cannot read"):
        check(model)
    with pytest.warns(UserWarning, match="use gamma=1.0"):
        check(A2C("MlpPolicy", envs_of(tiny), policy_kwargs=policy, gamma=0.9))
    model = A2C("MlpPolicy", envs_of(tiny), policy_kwargs=policy, gamma=1.0)
    model.env = None
    with pytest.raises(ValueError, match="no environments"):
        check(model)


def test_all_together(tiny_codes, tmp_path):
    model = model_of(PPO, tiny_codes, {"reward": "intermediate"}, n_steps=128, batch_size=256)
    callbacks = [
        StepRewards(kl_coef=0.01),
        ValueWarmup(1, epochs=3),
        CollapseGuard(50.0),
        DiscriminatorCallback(LEARNS, updates=1, warmup=2, batch=4),
        SampleGrids(),
    ]
    model.set_logger(configure(str(tmp_path), ["tensorboard"]))
    before = prior_of(model)
    model.learn(3 * 512, callback=callbacks)
    model.logger.close()
    assert not torch.equal(before, prior_of(model))


def test_masked_ppo_writes_only_codes_that_real_grids_hold(tiny_two):
    loaded = bundle.load(tiny_two)
    few = [
        np.minimum(np.asarray(codes), most)
        for codes, most in zip(loaded.codes, (4, 9), strict=True)
    ]
    own = assemble(
        codec=loaded.vqvae, discriminator=loaded.discriminator,
        codes=few, num_codes=16,
    )  # fmt: skip
    envs = make_vec_env("RALBundle-v0", 2, seed=0, bundle=own, start="continue", rows=7)
    policy: dict[str, Any] = {"features_extractor_class": CodeEmbeddingExtractor}
    model = MaskablePPO("MlpPolicy", envs, n_steps=40, batch_size=80, n_epochs=1, gamma=1.0,
                        policy_kwargs=policy, seed=0)  # fmt: skip
    before = model.policy.parameters_to_vector()
    watch = Watch()
    model.learn(160, callback=watch)
    assert not np.array_equal(before, model.policy.parameters_to_vector())
    canvases = np.stack([info["final_canvas"] for finals in watch.finals for info in finals])
    assert len(canvases) == 4
    assert canvases[:, :64].max() == 4 and canvases[:, 64:].max() == 9

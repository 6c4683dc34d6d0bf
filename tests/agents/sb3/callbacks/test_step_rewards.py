"""Each code is credited with what it earned, and pays for what it departs from the reference."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from sb3_models import EMBEDDED, Recorder, envs_of, model_of
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.sb3 import EpisodeBuffer, StepRewards
from ral_env import bundle
from ral_env.nets import joint


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
    recorder = Recorder()
    model.learn(128 * 4, callback=[StepRewards(), recorder])
    rollout, episodes = recorder.rollouts[0], np.zeros(4, int)
    for info in recorder.finals[0]:
        i, first = info["env"], 64 * episodes[info["env"]]
        episodes[i] += 1
        steps = slice(first, first + 64)
        assert rollout["rewards"][steps, i] == close(info["step_rewards"])
        values = rollout["values"][steps, i]
        expected = by_hand(info["step_rewards"], values, gamma, share)
        assert rollout["advantages"][steps, i] == close(expected, 64)
        assert rollout["returns"][steps, i] == close(expected + values, 64)
    assert (episodes == 2).all() and rollout["values"].std() > 1e-3


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
def test_the_penalty_is_the_log_ratio_to_the_start(request, name):
    path = request.getfixturevalue(name)
    environment = {"reward": "intermediate", "start": "continue", "rows": 6}
    model = model_of(PPO, path, environment, learning_rate=1e-2)
    recorder, kl_coef, layout = Recorder(), 0.3, model.policy.layout
    written = ~layout.head(6)
    callbacks = [StepRewards(kl_coef), recorder]
    model.learn(2 * model.n_steps * 4, callback=callbacks, log_interval=None)
    assert recorder.logged[0]["rollout/kl_to_reference"] == close(0, written.sum())
    priors = bundle.load(path).priors
    rollout, total = recorder.rollouts[1], 0.0
    for info in recorder.finals[1]:
        grids = layout.unflatten(torch.from_numpy(info["final_canvas"]).long()[None])
        with torch.no_grad():
            reference = layout.flatten(joint.log_prob(priors, grids))[0].numpy()[written]
        log_ratio = rollout["log_probs"][:, info["env"]] - reference
        expected = info["step_rewards"] - kl_coef * log_ratio
        assert rollout["rewards"][:, info["env"]] == close(expected)
        total += log_ratio.sum()
    assert abs(total) > 1e-3
    assert recorder.logged[1]["rollout/kl_to_reference"] == close(total / 4, written.sum())


def test_sb3s_own_vec_env_is_credited_too(tiny):
    envs = DummyVecEnv(
        [lambda: gym.make("RALBundle-v0", bundle=str(tiny), reward="intermediate")] * 2
    )
    model = A2C("MlpPolicy", envs, n_steps=64, gamma=1.0, policy_kwargs=EMBEDDED)
    recorder = Recorder()
    model.learn(128, callback=[StepRewards(), recorder])
    assert len(recorder.finals[0]) == 2
    for info in recorder.finals[0]:
        found = recorder.rollouts[0]["rewards"][:, info["env"]]
        assert found == close(info["step_rewards"])


def test_rollouts_that_break_episodes_are_refused(tiny):
    model = A2C("MlpPolicy", envs_of(tiny), n_steps=96, policy_kwargs=EMBEDDED, gamma=1.0)
    with pytest.raises(ValueError, match="n_steps=96 is no multiple"):
        model.learn(1, callback=StepRewards())


def test_rewards_that_are_scaled_elsewhere_are_refused(tiny):
    envs = VecNormalize(envs_of(tiny), norm_obs=False)
    model = A2C("MlpPolicy", envs, n_steps=64, policy_kwargs=EMBEDDED, gamma=1.0)
    with pytest.raises(ValueError, match="norm_reward=False"):
        model.learn(1, callback=StepRewards())


def test_a_negative_penalty_is_refused():
    with pytest.raises(ValueError, match="kl_coef=-1"):
        StepRewards(-1)


def test_its_old_names_are_understood():
    import agents.sb3
    from agents.sb3 import callbacks

    with pytest.warns(FutureWarning, match="kl is called kl_coef now"):
        assert StepRewards(kl=0.5).kl_coef == 0.5  # type: ignore[call-arg]
    for module in (agents.sb3, callbacks):
        with pytest.warns(FutureWarning, match=r"HindsightRewards is called agents\.sb3"):
            assert module.HindsightRewards is StepRewards
    with pytest.raises(TypeError, match="unexpected keyword"):
        StepRewards(beta=0.5)  # type: ignore[call-arg]

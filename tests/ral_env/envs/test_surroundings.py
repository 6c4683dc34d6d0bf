"""An environment computes the same whatever its caller has set up around it, or says what it needs.

Autocast, default devices and types, tensors from elsewhere, specs to be stored.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from gymnasium.envs.registration import EnvSpec

from ral_env import bundle
from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.envs.wrappers import GridObservation

make: Any = gym.make  # Gymnasium's types know nothing of what an environment holds
make_vec: Any = gym.make_vec
ANY = "RALBundle-v0"


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another default device": lambda: torch.device("meta"),
    "another default type": float64_by_default,
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
}


def episode(path: Path, reward: str) -> list[Any]:
    """All that an environment computes in an episode."""
    env = LatentCanvasVectorEnv(2, path, reward=reward, render_mode="rgb_array", overlay="both")
    observations, _ = env.reset(seed=0, options={"start": "continue", "rows": 5})
    frames = [env.render()]
    codes = np.where(observations == env.layout.empty, 3, observations)
    observations, rewards, *_, info = env.complete(codes)
    frames.append(env.render())
    return [frames, observations, rewards, info, env.images(codes), env.score(codes).numpy()]


@pytest.mark.parametrize("reward", ["single", "rowwise"])
@pytest.mark.parametrize("name", ["tiny", "tiny_two_codes"])
@pytest.mark.parametrize("around", SURROUNDINGS)
def test_an_episode_is_the_same_in_any_surroundings(request, around, name, reward):
    path = request.getfixturevalue(name)
    expected = episode(path, reward)
    with SURROUNDINGS[around]():
        found = episode(path, reward)
    np.testing.assert_equal(found, expected)
    assert found[3]["score_map"].dtype == np.float32


def test_scores_of_16_bits_complete_canvases(tiny):
    """What a caller under autocast has computed and hands on."""
    env = LatentCanvasVectorEnv(2, tiny, autoreset_mode="disabled")
    codes = np.ones((2, 64), int)
    scores = env.scorer.score_map(codes).bfloat16()
    env.reset()
    found = env.complete(codes, scores)
    env.reset()
    expected = env.complete(codes, scores.float())
    np.testing.assert_equal(found, expected)


class OfAnotherDevice(torch.Tensor):
    """A tensor that numpy cannot read, as those on graphics cards."""

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self, *arguments: Any, **options: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_actions_may_be_tensors_of_any_device(tiny):
    env, envs = LatentCanvasEnv(tiny), LatentCanvasVectorEnv(2, tiny)
    env.reset()
    assert env.step(torch.tensor(3).as_subclass(OfAnotherDevice))[0][0] == 3
    envs.reset()
    observations = envs.step(torch.tensor([3, 4]).as_subclass(OfAnotherDevice))[0]
    assert observations[:, 0].tolist() == [3, 4]


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_cannot_be_used_is_refused(tiny, device):
    for how in (make, make_vec):
        with pytest.raises(ValueError, match=f"device={device!r} cannot be used .*expected 'cpu'"):
            how(ANY, bundle=tiny, device=device)


def test_a_vector_environment_takes_no_time_limit(tiny):
    with pytest.raises(ValueError, match='max_episode_steps=3.*vectorization_mode="sync"'):
        make_vec(ANY, 2, bundle=tiny, max_episode_steps=3)
    envs = make_vec(ANY, 2, bundle=tiny, max_episode_steps=3, vectorization_mode="sync")
    envs.reset()
    assert [envs.step([1, 1])[3].tolist() for _ in range(3)] == [[False] * 2] * 2 + [[True] * 2]


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_a_vector_environment_pads_infos_as_single_ones_do(tiny, mode):
    settings = {"bundle": tiny, "pad_info": True, "start": "scratch", "reward": "intermediate"}
    env, envs = make(ANY, **settings), make_vec(ANY, 2, autoreset_mode=mode, **settings)
    env.reset(seed=0, options={"rows": 5})
    envs.reset(seed=0, options={"rows": 5})
    info, batch, rewards = {}, {}, np.zeros(2)
    for _ in range(40):
        *_, info = env.step(2)
        _, rewards, *_, batch = envs.step([2, 2])
    batch = batch["final_info"] if mode == "same_step" else batch
    assert info["step_rewards"].shape == (64,) and info["score_map"].shape == (2, 2)
    assert (info["steps"], info["score_rows"]) == (40, 1)
    assert rewards[0] == close(info["step_rewards"].sum(dtype=float), 40)
    for key, value in info.items():
        np.testing.assert_allclose(batch[key][0], value, 1e-5, 1e-5)


# --- specs ---


def test_a_spec_is_stored_whatever_the_environment_was_made_with(tiny, tmp_path, monkeypatch):
    """A relative path too, read from elsewhere."""
    monkeypatch.chdir(tiny.parent)
    relative = Path(tiny.name)
    for given in (relative, bundle.load(relative)):
        env = make(ANY, bundle=given, device=torch.device("cpu"))
        envs = make_vec(ANY, 2, bundle=given, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir(tmp_path)
            text = env.spec.to_json()
            assert json.loads(text)["kwargs"] == {"bundle": str(tiny), "device": "cpu"}
            again: Any = gym.make(EnvSpec.from_json(text))
            assert again.unwrapped.bundle.path == tiny
            batch = make_vec(EnvSpec.from_json(envs.spec.to_json()))
            assert batch.num_envs == 2 and batch.bundle.path == tiny
            assert batch.autoreset_mode is gym.vector.AutoresetMode.SAME_STEP


def test_a_wrapped_environment_is_made_again_from_its_spec(tiny_two):
    env = GridObservation(make(ANY, bundle=tiny_two))
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, GridObservation)
    assert again.observation_space == env.observation_space


def test_an_environment_that_gymnasium_did_not_make_has_no_spec(tiny):
    assert LatentCanvasEnv(tiny).spec is None and LatentCanvasVectorEnv(1, tiny).spec is None


def test_a_time_aware_observation_has_the_time_beside_the_canvas(tiny):
    with pytest.raises(ValueError, match="max_episode_steps"):  # Gymnasium's own word
        gym.wrappers.TimeAwareObservation(make(ANY, bundle=tiny))
    env = gym.wrappers.TimeAwareObservation(make(ANY, bundle=tiny, max_episode_steps=65))
    env.reset()
    observation = env.step(3)[0]
    assert observation in env.observation_space
    assert observation.tolist() == [3, *[16] * 63, 1]

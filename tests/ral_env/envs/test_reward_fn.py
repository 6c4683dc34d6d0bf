"""A reward of your own pays in every environment alike, and what it may not give is refused."""

import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from gymnasium.envs.registration import EnvSpec
from test_episode import STARTS, assert_same, fill, play

from ral_env import bundle
from ral_env.envs.reward_fn import RewardFunction, takes_codes
from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.reward import REWARDS
from ral_env.testing import check_codes_env

HERE = __name__
SEEN: list[Any] = []  # what `noted` was given


def brightness(images: torch.Tensor) -> torch.Tensor:
    """A number for each canvas, of no small range."""
    return 100 * images.mean((1, 2, 3))


def red_patches(images: torch.Tensor) -> torch.Tensor:
    """A map of 8x8 patches for each canvas."""
    return 5 * torch.nn.functional.avg_pool2d(images[:, 0], images.shape[3] // 8)


@takes_codes
def first_codes(codes: list[torch.Tensor]) -> torch.Tensor:
    """Each code of the coarsest grid: a map of its size."""
    return codes[0].float()


def noted(images: torch.Tensor) -> torch.Tensor:
    SEEN.append(images)
    return images.mean((1, 2, 3))


@takes_codes
def noted_codes(codes: list[torch.Tensor]) -> torch.Tensor:
    SEEN.append(codes)
    return codes[0][:, 0, 0].float()


class Scale:
    """Its method is found by its name, too."""

    @staticmethod
    def brightness(images: torch.Tensor) -> torch.Tensor:
        return brightness(images) / 50


# --- scalar = vector = complete ---


@pytest.mark.parametrize("options", STARTS[1:3], ids=lambda o: o["start"])
@pytest.mark.parametrize(
    ("function", "reward", "mode"),
    [
        (brightness, "single", "next_step"),
        (red_patches, "intermediate", "same_step"),
        (first_codes, "rowwise", "disabled"),
    ],
)
def test_every_promise_of_an_environment_is_kept(tiny_two, function, reward, mode, options):
    settings = {"bundle": bundle.load(tiny_two), "reward": reward, "reward_fn": function}
    check_codes_env(
        partial(LatentCanvasEnv, **settings),
        partial(LatentCanvasVectorEnv, **settings, autoreset_mode=mode),
        options=options,
    )


@pytest.mark.parametrize("reward", REWARDS)
def test_steps_complete_and_each_canvas_alone_pay_the_same(tiny, reward):
    settings = {"reward": reward, "reward_fn": f"{HERE}:red_patches", "autoreset_mode": "disabled"}
    stepped, whole = (LatentCanvasVectorEnv(3, tiny, **settings) for _ in range(2))
    obs, _ = stepped.reset(seed=3)
    codes = fill(stepped, obs)
    last = play(stepped, obs, codes)[-1]
    whole.reset(seed=3)
    assert_same(whole.complete(codes), last)
    for i in range(3):
        alone = LatentCanvasVectorEnv(1, tiny, **settings)
        alone.reset(seed=3)
        _, rewards, *_, info = alone.complete(codes[i : i + 1])
        assert rewards[0] == close(last[1][i], 10)
        assert info["step_rewards"][0] == close(last[4]["step_rewards"][i], 10)


@pytest.mark.parametrize("source", ["constant", "random", "shuffled"])
def test_control_arms_replace_it_as_they_do_the_discriminator(tiny, source):
    own, arm = (
        LatentCanvasVectorEnv(4, tiny, reward_fn=brightness, reward_source=one)
        for one in ("discriminator", source)
    )
    obs, _ = own.reset(seed=0)
    arm.reset(seed=0)
    codes = fill(own, obs)
    paid, controlled = own.complete(codes)[1], arm.complete(codes)[1]
    if source == "shuffled":
        assert sorted(controlled) == sorted(paid) and len({*paid}) == 4
    else:
        assert (abs(controlled) <= 1).all() and not (controlled == paid).any()


# --- what it is given, what is paid ---


def test_it_is_given_the_decoded_images_or_the_codes_without_gradient(tiny_two):
    env = LatentCanvasVectorEnv(2, tiny_two, reward_fn=noted)
    codes = fill(env, env.reset(seed=0)[0])
    SEEN.clear()
    _, rewards, *_ = env.complete(codes)
    grids = env.layout.unflatten(torch.from_numpy(codes.astype(np.int64)))
    with torch.no_grad():
        expected = env.bundle.vqvae.decode(grids)
    (images,) = SEEN
    assert images.dtype == torch.float32 and not images.requires_grad
    assert images.shape == (2, 3, 32, 32) and abs(images).max() <= 1
    torch.testing.assert_close(images, expected.clamp(-1, 1), rtol=1e-5, atol=1e-5)
    assert rewards == close(expected.mean((1, 2, 3)).numpy())

    other = LatentCanvasVectorEnv(2, tiny_two, reward_fn=noted_codes)
    other.reset(seed=0)
    SEEN.clear()
    _, rewards, *_ = other.complete(codes)
    (given,) = SEEN
    assert all(
        torch.equal(a, b) and a.dtype == torch.int64 for a, b in zip(given, grids, strict=True)
    )
    assert rewards.tolist() == codes[:, 0].tolist(), "numbers are neither scaled nor clamped"


def test_a_number_is_earned_by_every_code_and_a_map_by_the_codes_beneath_it(tiny):
    env = LatentCanvasVectorEnv(1, tiny, reward="intermediate", reward_fn=brightness)
    codes = fill(env, env.reset(seed=0)[0])
    _, rewards, *_, info = env.complete(codes)
    each = info["score_map"][0, 0, 0]
    assert info["score_map"].shape == (1, 1, 1)
    assert info["step_rewards"][0] == close(np.full(64, each), 100)
    assert rewards[0] == close(64 * each, 100)

    table = torch.tensor([[[1.0, -20.0], [3.0, 4.0]]])
    env = LatentCanvasVectorEnv(1, tiny, reward="intermediate", reward_fn=lambda _: table)
    env.reset(seed=0)
    *_, info = env.complete(codes)
    by_hand = table[0].repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert info["step_rewards"][0].reshape(8, 8).tolist() == by_hand.tolist()


def test_a_short_canvas_is_shown_as_tall_as_it_is(tiny):
    env = LatentCanvasVectorEnv(1, tiny, reward_fn=noted)
    obs, _ = env.reset(seed=0, options={"start": "scratch", "rows": 5})
    SEEN.clear()
    env.complete(fill(env, obs))
    assert SEEN[0].shape == (1, 3, 20, 32)


def test_rowwise_pays_each_row_what_the_image_down_to_it_is_given(tiny):
    """Of the first codes: a row earns its own codes, which later rows do not change."""
    env = LatentCanvasVectorEnv(1, tiny, reward="rowwise", reward_fn=first_codes)
    obs, _ = env.reset(seed=0)
    codes = fill(env, obs)
    rewards = np.array([result[1][0] for result in play(env, obs, codes)])
    rows = codes.reshape(8, 8).sum(1)
    paid = rewards.reshape(8, 8)[:, -1]
    # The tiny discriminator needs four rows: they are paid together, as without a reward_fn.
    assert paid.tolist() == [0, 0, 0, rows[:4].sum(), *rows[4:]]
    assert not rewards.reshape(8, 8)[:, :-1].any()


def test_starts_are_those_of_the_same_seed_without_it(tiny):
    for seed in range(5):
        plain, own = (
            LatentCanvasVectorEnv(2, tiny, start="partial", reward_fn=function).reset(seed=seed)[0]
            for function in (None, brightness)
        )
        assert np.array_equal(plain, own)


def test_the_overlay_shows_what_is_paid(tiny):
    def top_is_good(images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[[9.0, 9.0], [-9.0, -9.0]]]).expand(len(images), 2, 2)

    plain, tinted = (
        LatentCanvasVectorEnv(
            1, tiny, render_mode="rgb_array", overlay=overlay, reward_fn=top_is_good
        )
        for overlay in (None, "scores")
    )
    for env in (plain, tinted):
        env.complete(fill(env, env.reset(seed=0)[0]))
    frames: list[Any] = [env.render() for env in (plain, tinted)]
    before, after = (frame[0].astype(int) for frame in frames)
    greener = (after - before)[..., 1] - (after - before)[..., 0]
    assert greener[:128].mean() > 20 and greener[128:].mean() < -20


# --- names and specs ---


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (brightness, "brightness"),
        (f"{HERE}:brightness", "brightness"),
        (Scale.brightness, "Scale.brightness"),
        (f"{HERE}:Scale.brightness", "Scale.brightness"),
    ],
)
def test_a_spec_stores_its_name_and_makes_the_same_environment(tiny, given, name):
    env: Any = gym.make("RALBundle-v0", bundle=str(tiny), reward_fn=given)
    text = env.spec.to_json()
    assert f'"{HERE}:{name}"' in text
    again: Any = gym.make(EnvSpec.from_json(text))
    results = []
    for one in (env, again):
        one.reset(seed=1, options={"start": "continue", "rows": 7})
        results.append([one.step(code) for code in range(8)][-1])
    assert results[0][1] == results[1][1] != 0
    assert again.unwrapped.reward_fn.name == f"{HERE}:{name}"


def test_a_function_without_a_name_stays_what_it_is_in_a_spec(tiny):
    def unnamed(images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))

    env: Any = gym.make("RALBundle-v0", bundle=str(tiny), reward_fn=unnamed)
    assert env.spec.kwargs["reward_fn"] is unnamed
    again: Any = gym.make(env.spec)
    assert again.unwrapped.reward_fn.function is unnamed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("brightness", r"'brightness', expected 'package.module:function' or a callable"),
        (":brightness", "expected 'package.module:function'"),
        ("no_such_package.rewards:f", "cannot be imported.*PYTHONPATH=FOLDER"),
        (f"{HERE}:darkness", f"{HERE} has no darkness: check its spelling.*{HERE}.py"),
        (f"{HERE}:HERE", "is a str, expected"),
        (3, "3 is a int, expected"),
    ],
)
def test_what_names_no_function_is_refused_with_what_to_do(tiny, no_shape_checks, given, words):
    with pytest.raises(ValueError, match=words):
        LatentCanvasVectorEnv(1, tiny, reward_fn=given)


def test_an_error_inside_the_module_is_shown_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "broken_rewards.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        RewardFunction("broken_rewards:f")
    sys.modules.pop("broken_rewards", None)


# --- what it may not return ---


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda n: np.zeros(n, np.float32), "gave a ndarray, expected a torch.Tensor"),
        (lambda n: [0.0] * n, "gave a list"),
        (lambda n: None, "gave a NoneType"),
        (lambda n: torch.zeros(n, dtype=torch.int64), r"torch.int64, expected floats.*\.float"),
        (lambda n: torch.zeros(n, device="meta"), "on meta, expected one on cpu"),
        (lambda n: torch.zeros(n + 1), r"shape \(3,\) for 2 canvases.*expected \(2,\)"),
        (lambda n: torch.zeros(n, 1), r"shape \(2, 1\)"),
        (lambda n: torch.zeros(()), r"shape \(\)"),
        (lambda n: torch.zeros(n, 4, 2), r"shape \(2, 4, 2\)"),
        (lambda n: torch.zeros(n, 0, 0), r"shape \(2, 0, 0\)"),
        (lambda n: torch.zeros(n, 16, 16), r"w' from 1 to 8.*avg_pool2d"),
        (lambda n: torch.zeros(n, 1, 4, 4), r"shape \(2, 1, 4, 4\)"),
        (lambda n: torch.full((n,), float("nan")), "2 of 2 values that are not finite"),
        (
            lambda n: torch.tensor([0.0, 1e300]).double() * 1e300,
            "1 of 2 values that are not finite",
        ),
        (lambda n: torch.full((n, 4, 4), float("-inf")), "32 of 32 values"),
    ],
)
def test_what_is_no_reward_is_refused(tiny, found, words):
    def wrong(images: torch.Tensor) -> Any:
        return found(len(images))

    env = LatentCanvasVectorEnv(2, tiny, reward_fn=wrong)
    codes = fill(env, env.reset(seed=0)[0])
    with pytest.raises(ValueError, match=f"reward_fn.*wrong.*{words}"):
        env.complete(codes)


def test_a_discriminators_score_map_is_refused_beside_it(tiny):
    env = LatentCanvasVectorEnv(2, tiny, reward_fn=brightness)
    codes = fill(env, env.reset(seed=0)[0])
    with pytest.raises(ValueError, match=f"expected None: reward_fn {HERE}:brightness pays"):
        env.complete(codes, env.scorer.score_map(codes))


def test_a_double_is_paid_as_float32(tiny):
    env = LatentCanvasVectorEnv(2, tiny, reward_fn=lambda x: brightness(x).double())
    plain = LatentCanvasVectorEnv(2, tiny, reward_fn=brightness)
    obs, _ = env.reset(seed=0)
    plain.reset(seed=0)
    assert_same(env.complete(fill(env, obs)), plain.complete(fill(env, obs)))

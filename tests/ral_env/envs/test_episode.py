"""An episode is one thing, however it is run: step by step, at once, alone or in a batch."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close, tiny_parts
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from ral_env import bundle, starts
from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.reward import REWARDS

STARTS = [
    {"start": "full"},
    {"start": "continue", "rows": 6},
    {"start": "scratch", "rows": 4},
    {"start": "partial"},
]


def fill(env: LatentCanvasVectorEnv, obs: np.ndarray, seed: int = 0) -> np.ndarray:
    """The observation with random codes in its EMPTY cells."""
    codes = np.random.default_rng(seed).integers(0, env.layout.num_codes, obs.shape)
    return np.where(obs == env.layout.empty, codes, obs)


def play(env: LatentCanvasVectorEnv, obs: np.ndarray, codes: np.ndarray):
    """Step through to ``codes``; the results of every step."""
    results = []
    while (obs == env.layout.empty).any():
        cell = (obs == env.layout.empty).argmax(1)
        results.append(env.step(codes[np.arange(len(obs)), cell]))
        obs = results[-1][0]
        if results[-1][2].any():
            break
    return results


def assert_same(a, b) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif a.dtype == object:
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    else:
        assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.fixture(scope="module", params=["tiny", "tiny_two"])
def either(request):
    """A bundle with one level of codes, and one with two; loaded once, environments copy it."""
    return bundle.load(request.getfixturevalue(request.param))


@pytest.mark.parametrize("options", STARTS, ids=lambda o: o["start"])
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("autoreset", ["next_step", "same_step", "disabled"])
def test_complete_returns_what_the_last_step_returns(either, options, reward, autoreset):
    settings = {"reward": reward, "autoreset_mode": autoreset, "start": "partial"}
    stepped, whole = (LatentCanvasVectorEnv(3, either, **settings) for _ in range(2))
    obs, _ = stepped.reset(seed=5, options=options)
    assert_same(obs, whole.reset(seed=5, options=options)[0])
    codes = fill(stepped, obs)
    *before, last = play(stepped, obs, codes)
    assert_same(last, whole.complete(codes))
    assert last[2].all() and not last[3].any()
    assert not any(result[2].any() or result[4] for result in before)
    assert reward == "rowwise" or not any(result[1].any() for result in before)
    if autoreset != "disabled":  # and what follows is the same again
        following = np.zeros(3, int)
        assert_same(stepped.step(following), whole.step(following))


@pytest.mark.parametrize("options", STARTS, ids=lambda o: o["start"])
@pytest.mark.parametrize("source", ["discriminator", "random"])
@pytest.mark.parametrize("pays", ["intermediate", "rowwise"])
def test_alone_equals_first_of_a_batch(either, options, source, pays):
    alone = LatentCanvasEnv(either, reward=pays, reward_source=source)
    batch = LatentCanvasVectorEnv(
        3, either, reward=pays, reward_source=source, autoreset_mode="disabled"
    )
    for seed in (7, None):  # a seeded episode, and the one after it
        obs, _ = alone.reset(seed=seed, options=options)
        many, _ = batch.reset(seed=seed, options=options)
        assert np.array_equal(obs, many[0])
        codes = fill(batch, many)
        results = play(batch, many, codes)
        end, info = False, {}
        for many, rewards, terminated, *_ in results:
            cell = (obs == alone.layout.empty).argmax()
            obs, reward, end, truncated, info = alone.step(codes[0, cell])
            assert np.array_equal(obs, many[0]) and reward == close(rewards[0], alone.layout.length)
            assert (type(reward), end, truncated) == (float, terminated[0], False)
        infos, row = results[-1][4], alone.layout.length // alone.layout.rows
        assert end and set(info) == {key for key in infos if not key.startswith("_")}
        for key, value in info.items():
            if key in ("start", "rows"):
                assert value == infos[key][0] and type(value) in (str, int)
            else:
                assert np.asarray(value) == close(infos[key][0], row)


def test_the_same_seed_gives_the_same_episodes(either):
    env = LatentCanvasVectorEnv(4, either, start="partial")

    def episodes(seed):
        canvases = []
        for n in range(6):
            obs, _ = env.reset(seed=seed if n == 0 else None)
            canvases.append(obs)
            env.complete(fill(env, obs))
        return np.stack(canvases)

    first = episodes(3)
    assert np.array_equal(first, episodes(3)) and not np.array_equal(first, episodes(4))
    assert len(np.unique(first, axis=0)) > 1


@pytest.mark.parametrize("source", ["discriminator", "random", "shuffled"])
@pytest.mark.parametrize("seed", range(4))
def test_generators_draw_what_is_promised_in_that_order(tiny, seed, source):
    """Start, image, score map: recomputed with generators of the same seeds."""
    env = LatentCanvasVectorEnv(3, tiny, reward_source=source, start="partial")
    real = env.bundle.split("train")
    rngs = [seeding.np_random(seed + i)[0] for i in range(3)]
    drawn = [starts.draw(rng, env.layout, "partial", None, env.min_rows) for rng in rngs]
    images = [int(rng.integers(len(real))) for rng in rngs]
    obs, _ = env.reset(seed=seed)
    assert np.array_equal(obs, starts.canvas(env.layout, *drawn[0], real[images]))
    codes = fill(env, obs)
    score_map = env.score(codes)[:, 0].numpy()
    *_, info = env.complete(codes)
    if source == "random":
        score_map = [rng.uniform(-1, 1, score_map.shape[1:]).astype(np.float32) for rng in rngs]
    elif source == "shuffled":
        score_map = score_map[rngs[0].permutation(3)]
    assert np.array_equal(info["score_map"], score_map)
    for rng, by_hand in zip(env.rngs, rngs, strict=True):
        assert rng.bit_generator.state == by_hand.bit_generator.state


def test_a_batch_shares_its_start_but_not_its_real_rows(tiny):
    env = LatentCanvasVectorEnv(8, tiny, start="continue")
    train = env.bundle.split("train")
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        empty = obs == env.layout.empty
        assert (empty == empty[0]).all()
        rows = (~empty[0]).sum() // 8
        assert all((train[:, : rows * 8] == row[: rows * 8]).all(1).any() for row in obs)
        assert rows < 2 or len(np.unique(obs, axis=0)) > 1


@pytest.mark.parametrize(
    ("options", "top", "bottom"),
    [
        ({"start": "full"}, range(64), range(256)),
        ({"start": "continue", "rows": 3}, range(24, 64), range(96, 256)),
        ({"start": "scratch", "rows": 5}, range(40), range(160)),
    ],
    ids=lambda value: value["start"] if isinstance(value, dict) else None,
)
def test_two_levels_are_written_top_first_around_what_is_given(tiny_two, options, top, bottom):
    """What is given of the bottom level lies in the middle of the flat sequence."""
    env = LatentCanvasVectorEnv(2, tiny_two, autoreset_mode="disabled")
    obs, _ = env.reset(seed=0, options=options)
    cells = [*top, *(64 + cell for cell in bottom)]
    assert np.flatnonzero(obs[0] == env.layout.empty).tolist() == cells
    for n, cell in enumerate(cells):
        before = obs
        assert (before[0] == env.layout.empty).argmax() == cell  # the first EMPTY one, so far
        obs, _, terminated, *_ = env.step(np.array([n % 16, (n + 1) % 16]))
        assert (np.flatnonzero((obs != before).any(0)) == [cell]).all()
        assert obs[:, cell].tolist() == [n % 16, (n + 1) % 16]
        assert terminated.all() == (cell == cells[-1])


def test_next_step_autoreset_ignores_one_action(either):
    env = LatentCanvasVectorEnv(2, either)
    obs, _ = env.reset(seed=0)
    codes = fill(env, obs)
    env.complete(codes)
    obs, rewards, terminated, _, info = env.step(np.array([-1, 99]))  # ignored, so anything goes
    assert (obs == env.layout.empty).all() and not rewards.any() and not terminated.any()
    assert info == {}
    obs, *_ = env.step(np.array([3, 4]))
    assert obs[:, 0].tolist() == [3, 4]


def test_same_step_autoreset_keeps_the_end_in_final_obs_and_final_info(either):
    env = LatentCanvasVectorEnv(2, either, autoreset_mode="same_step")
    obs, _ = env.reset(seed=0)
    codes = fill(env, obs)
    obs, _, terminated, _, info = env.complete(codes)
    assert (obs == env.layout.empty).all() and terminated.all()
    assert set(info) == {"final_obs", "_final_obs", "final_info", "_final_info"}
    assert (np.stack(info["final_obs"]) == codes).all() and info["_final_obs"].all()
    assert (info["final_info"]["final_canvas"] == codes).all()


def test_reset_mask_lets_canvases_run_out_of_step(tiny):
    env = LatentCanvasVectorEnv(2, tiny, reward="intermediate", autoreset_mode="disabled")
    env.reset(seed=0, options={"start": "scratch", "rows": 4})
    before = env.step(np.array([1, 2]))[0]
    mask = np.array([False, True])
    obs, _ = env.reset(options={"start": "continue", "rows": 4, "reset_mask": mask})
    assert np.array_equal(obs[0], before[0]) and (obs[1] == env.layout.empty).sum() == 32
    codes = fill(env, obs)
    *_, (obs, _, terminated, _, info) = play(env, obs, codes)
    assert terminated.tolist() == [True, False] and info["_rows"].tolist() == [True, False]
    with pytest.raises(ValueError, match="after the end"):
        env.step(np.array([0, 0]))
    env.reset(options={"start": "full", "reset_mask": ~mask})
    *_, info = env.complete(fill(env, env.reset(options={"start": "full", "reset_mask": ~mask})[0]))
    assert info["start"].tolist() == [starts.STARTS.index(start) for start in ("full", "continue")]
    assert info["step_rewards"].dtype == object  # episodes of different lengths
    assert [len(steps) for steps in info["step_rewards"]] == [64, 32]


def test_canvases_of_different_heights_finish_together(tiny):
    env = LatentCanvasVectorEnv(2, tiny, autoreset_mode="disabled")
    env.reset(seed=0)
    mask = np.array([True, False])
    obs, _ = env.reset(options={"start": "scratch", "rows": 4, "reset_mask": mask})
    codes = fill(env, obs)
    _, rewards, *_, info = env.complete(codes)
    assert [m.shape for m in info["score_map"]] == [(1, 2), (2, 2)]
    for i in range(2):
        assert rewards[i] == close(env.score(codes[i : i + 1]).mean().item())


def test_observations_are_the_callers(tiny):
    env = LatentCanvasVectorEnv(1, tiny)
    obs, _ = env.reset()
    obs[:] = 5
    assert (env.step([1])[0][0, 1:] == env.layout.empty).all()


def test_training_the_bundles_discriminator_changes_no_reward(tiny):
    env = LatentCanvasVectorEnv(1, tiny, autoreset_mode="disabled")
    codes = fill(env, env.reset(seed=0)[0])
    before = env.score(codes)
    with torch.no_grad():
        next(env.bundle.discriminator.parameters()).add_(0.01)
    assert torch.equal(env.score(codes), before)
    env.set_discriminator(env.bundle.discriminator, 0.05)
    assert not torch.equal(env.score(codes), before)
    env.load_discriminator(tiny_parts()["discriminator"].state_dict(), 0.05)
    assert torch.equal(env.score(codes), before)


def test_spaces_and_autoreset_mode_are_declared(tiny):
    env = LatentCanvasVectorEnv(3, tiny, autoreset_mode=AutoresetMode.SAME_STEP)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.single_observation_space == gym.spaces.Box(0, 17, (64,), np.int16)
    assert env.single_action_space == gym.spaces.Discrete(16)
    assert env.reset()[0] in env.observation_space

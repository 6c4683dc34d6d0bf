"""An episode is one thing, however it is run: step by step, at once, alone or in a batch."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close, tiny_parts
from gymnasium.vector import AutoresetMode

from ral_env import bundle
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


def test_given_codes_are_the_real_rows(tiny):
    codes = np.random.default_rng(0).integers(0, 16, (3, 8, 8))
    env = LatentCanvasVectorEnv(3, tiny)
    forms = [codes, [codes], codes.reshape(3, 64), torch.from_numpy(codes)]
    for form in forms:
        obs, _ = env.reset(options={"start": "continue", "rows": 2, "codes": form})
        assert (obs[:, :16] == codes.reshape(3, 64)[:, :16]).all() and (obs[:, 16:] == 16).all()
    for form in (codes[1], codes[1].tolist(), [codes[1]], codes[1].ravel()):
        obs, _ = env.reset(options={"start": "continue", "rows": 2, "codes": form})
        assert (obs[:, :16] == codes[1].ravel()[:16]).all()


def two_grids(count: int | None = None) -> list[np.ndarray]:
    """Codes of both levels of `tiny_two`, of one canvas or of ``count``."""
    rng, leading = np.random.default_rng(0), () if count is None else (count,)
    return [rng.integers(0, 16, (*leading, side, side)) for side in (8, 16)]


def flat_of(grids: list[np.ndarray]) -> np.ndarray:
    top, bottom = grids
    return np.concatenate(
        [top.reshape(*top.shape[:-2], 64), bottom.reshape(*top.shape[:-2], 256)], -1
    )


def test_given_codes_of_two_levels_are_the_real_rows_of_both(tiny_two):
    env = LatentCanvasVectorEnv(3, tiny_two)

    def begin(codes):
        obs, _ = env.reset(options={"start": "continue", "rows": 3, "codes": codes})
        return obs[:, :64].reshape(3, 8, 8), obs[:, 64:].reshape(3, 16, 16)

    each, one = two_grids(3), two_grids()
    tensors = [torch.from_numpy(grid) for grid in each]
    for form in (each, tuple(each), tensors, flat_of(each), torch.from_numpy(flat_of(each))):
        for cells, codes, rows in zip(begin(form), each, (3, 6), strict=True):
            assert (cells[:, :rows] == codes[:, :rows]).all() and (cells[:, rows:] == 16).all()
    nested = [grid.tolist() for grid in one]
    for form in (one, nested, flat_of(one), flat_of(one).tolist(), [grid[None] for grid in one]):
        for cells, codes, rows in zip(begin(form), one, (3, 6), strict=True):
            assert (cells[:, :rows] == codes[:rows]).all() and (cells[:, rows:] == 16).all()


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
    assert info["start"].tolist() == ["full", "continue"]
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


def test_observations_are_the_callers_own(tiny):
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


@pytest.mark.parametrize("rows", [4, 8])
def test_render_shows_written_cells_only(tiny, rows):
    env = LatentCanvasVectorEnv(2, tiny, render_mode="rgb_array")
    env.reset(seed=0, options={"start": "scratch", "rows": rows})

    def cells():  # (8, 8, 32, 32, 3): frames are magnified to 256 pixels, 32 a code
        frames = env.render()
        assert frames is not None and len(frames) == 2
        frame = frames[0]
        assert frame.shape == (256, 256, 3) and frame.dtype == np.uint8
        return frame.reshape(8, 32, 8, 32, 3).transpose(0, 2, 1, 3, 4)

    blank = cells()
    assert (blank[:rows] == blank[:rows, :, :1, :1, :1]).all()  # each unwritten cell one grey
    assert (blank[0, 0] != blank[0, 1]).all() and (blank[0, 0] == blank[1, 1]).all()  # a checker
    assert (blank[rows:] < blank[:rows].min()).all()  # absent cells are darker than both greys
    for action in (3, 4, 5):
        env.step(np.full(2, action))
    now = cells()
    changed = (now != blank).any((2, 3, 4))
    assert changed[0, :3].all() and changed.sum() == 3
    for action in range(rows * 8 - 4):
        env.step(np.full(2, action % 16))
    _, _, terminated, _, info = env.step(np.zeros(2, int))
    assert terminated.all()
    image = env.images(info["final_canvas"])[0].transpose(1, 2, 0)
    picture = cells()[:rows].transpose(0, 2, 1, 3, 4).reshape(rows * 32, 256, 3)
    assert np.array_equal(picture[::8, ::8], image)


# --- bad input ---


@pytest.mark.parametrize("action", [-1, 16, 1.0, True, "a", [1], None], ids=str)
def test_an_action_that_is_no_code_is_refused(tiny, action):
    env = LatentCanvasEnv(tiny)
    obs, _ = env.reset()
    with pytest.raises(ValueError, match="action.*got .*expected"):
        env.step(action)
    assert np.array_equal(env.step(np.int64(2))[0][1:], obs[1:])  # the canvas has not moved


@pytest.mark.parametrize("actions", [[1, 16], [1.0, 2.0], [1], 1, [[1, 2]]], ids=str)
def test_actions_that_are_no_codes_are_refused(tiny, actions):
    env = LatentCanvasVectorEnv(2, tiny)
    env.reset()
    with pytest.raises(ValueError, match="actions: got .*expected"):
        env.step(actions)


def test_a_step_before_reset_or_after_the_end_is_refused(tiny):
    env = LatentCanvasEnv(tiny, render_mode="rgb_array")
    for call in (lambda: env.step(0), env.render):
        with pytest.raises(ValueError, match="call reset"):
            call()
    env.reset(options={"start": "continue", "rows": 7})
    assert [env.step(0)[2] for _ in range(8)] == [False] * 7 + [True]
    with pytest.raises(ValueError, match=r"after the end.*call reset"):
        env.step(0)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((7, 8), int), r"shape \(7, 8\), expected"),
        (np.zeros((5, 64), int), r"shape \(5, 64\), expected"),
        (np.zeros((8, 8)), "dtype float64, expected integers"),
        (np.full((8, 8), 16), "got 16, expected codes from 0 to 15"),
        (np.full((8, 8), -1), "got -1, expected codes from 0 to 15"),
        ([np.zeros((8, 8), int)] * 2, "expected"),
    ],
)
def test_a_wrong_prefix_is_refused(tiny, codes, message):
    with pytest.raises(ValueError, match=message):
        LatentCanvasEnv(tiny).reset(options={"start": "continue", "rows": 2, "codes": codes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda top, bottom: [top], "expected grids"),
        (lambda top, bottom: top, r"shape \(8, 8\), expected grids"),
        (lambda top, bottom: [bottom], "expected grids"),
        (lambda top, bottom: [bottom, top], r"shapes \[\(16, 16\), \(8, 8\)\], expected"),
        (lambda top, bottom: [top, bottom, bottom], "expected"),
        (lambda top, bottom: [top, top], r"shapes \[\(8, 8\), \(8, 8\)\], expected"),
        (lambda top, bottom: [top, bottom[:, :15]], r"\(16, 15\)\], expected"),
        (lambda top, bottom: [top[:2], bottom[:4]], r"shapes \[\(2, 8\), \(4, 16\)\], expected"),
        (lambda top, bottom: top.ravel(), r"shape \(64,\), expected grids"),
        (lambda top, bottom: flat_of([top, bottom])[:48], r"shape \(48,\), expected grids"),
        (lambda top, bottom: [top, bottom + 0.5], "dtype float64, expected integers"),
        (lambda top, bottom: [top, bottom + 16], "expected codes from 0 to 15"),
        (lambda top, bottom: [top - 16, bottom], "expected codes from 0 to 15"),
        (lambda top, bottom: two_grids(2), r"shape \(2, 320\), expected"),
    ],
)
def test_a_wrong_prefix_of_two_levels_is_refused(tiny_two, change, message):
    options = {"start": "continue", "rows": 2, "codes": change(*two_grids())}
    env = LatentCanvasVectorEnv(3, tiny_two)
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "scratch", "rows": 3}, "rows=3: expected rows from 4 to 8.*discriminator"),
        ({"start": "scratch", "rows": 9}, "rows=9: expected rows from 4 to 8"),
        ({"start": "continue", "rows": 8}, "rows=8: expected rows from 1 to 7"),
        ({"start": "sideways"}, "start='sideways', expected one of"),
        ({"codes": np.zeros((8, 8), int)}, "expected start='continue'"),
        ({"row": 3}, r"unknown reset options \['row'\].*start.*rows"),
        ({"reset_mask": np.array([False])}, "reset_mask"),
    ],
)
def test_wrong_reset_options_are_refused(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        LatentCanvasEnv(tiny).reset(options=options)


def test_completing_what_was_not_empty_is_refused(tiny):
    env = LatentCanvasVectorEnv(2, tiny)
    with pytest.raises(ValueError, match="call reset"):
        env.complete(np.zeros((2, 64), int))
    obs, _ = env.reset(seed=0, options={"start": "continue", "rows": 3})
    codes = fill(env, obs)
    wrong = codes.copy()
    wrong[0, 0] = (wrong[0, 0] + 1) % 16
    with pytest.raises(ValueError, match="1 cells differ that were not EMPTY"):
        env.complete(wrong)
    for value, message in ((16, "got 16, expected codes"), (-1, "got -1, expected codes")):
        wrong = codes.copy()
        wrong[1, -1] = value
        with pytest.raises(ValueError, match=message):
            env.complete(wrong)
    with pytest.raises(ValueError, match=r"expected \(2, 64\)"):
        env.complete(codes[:1])
    assert env.complete(torch.from_numpy(codes))[2].all()  # refusals have changed nothing
    with pytest.raises(ValueError, match="finished: call reset"):
        env.complete(codes)


@pytest.mark.parametrize(
    "argument",
    [
        {"reward": "double"},
        {"reward_source": "dice"},
        {"start": "end"},
        {"autoreset_mode": "never"},
        {"render_mode": "human"},
        {"num_envs": 0},
    ],
    ids=str,
)
def test_unknown_settings_are_refused(tiny, argument):
    with pytest.raises(ValueError, match=f"{next(iter(argument))}=.*expected"):
        LatentCanvasVectorEnv(**{"bundle": tiny, "num_envs": 1} | argument)


def test_a_discriminator_that_does_not_fit_is_refused(tiny):
    env = LatentCanvasVectorEnv(1, tiny)
    net = tiny_parts()["discriminator"]
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="reward_scale=.*positive"):
            env.set_discriminator(net, scale)
    with pytest.raises(ValueError, match="input='sound', expected one of"):
        env.set_discriminator(net, 1.0, input="sound")
    with pytest.raises(ValueError, match="stride is 16, expected 1 to 8"):
        env.set_discriminator(net, 1.0, input="codes")
    with pytest.raises(ValueError, match="stride is None"):
        env.set_discriminator(torch.nn.Identity(), 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        env.load_discriminator({}, 1.0)


def test_scoring_an_unfinished_canvas_is_refused(tiny):
    env = LatentCanvasVectorEnv(2, tiny)
    obs, _ = env.reset()
    with pytest.raises(ValueError, match="finished canvases.*got 16"):
        env.score(obs)
    scratch, _ = env.reset(options={"start": "scratch", "rows": 5})
    mixed = np.stack([fill(env, obs)[0], fill(env, scratch)[0]])
    for codes in (mixed, mixed[::-1]):
        with pytest.raises(ValueError, match="one height"):
            env.images(codes)


def test_spaces_and_autoreset_mode_are_declared(tiny):
    env = LatentCanvasVectorEnv(3, tiny, autoreset_mode=AutoresetMode.SAME_STEP)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.single_observation_space == gym.spaces.Box(0, 17, (64,), np.int16)
    assert env.single_action_space == gym.spaces.Discrete(16)
    assert env.reset()[0] in env.observation_space

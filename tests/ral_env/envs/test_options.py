"""What callers hand to an environment is taken in all its forms, or refused with a word on why."""

import numpy as np
import pytest
import torch
from conftest import tiny_parts
from test_episode import fill

from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv

# --- the codes of a continue start ---


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


# --- refusals ---


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

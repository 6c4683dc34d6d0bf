"""``complete`` is one call for all steps that are left, be their score map known already or not."""

import numpy as np
import pytest
import torch
from test_episode import STARTS, assert_same, fill, play

from ral_env import bundle
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.reward import REWARD_SOURCES, REWARDS


@pytest.fixture(scope="module", params=["tiny", "tiny_two", "tiny_two_codes"])
def loaded(request):
    """Loaded once: environments copy it."""
    return bundle.load(request.getfixturevalue(request.param))


@pytest.mark.parametrize("options", STARTS, ids=lambda o: o["start"])
@pytest.mark.parametrize("source", REWARD_SOURCES)
@pytest.mark.parametrize("reward", REWARDS)
def test_a_known_score_map_changes_no_bit(loaded, reward, source, options):
    settings = {"reward": reward, "reward_source": source, "start": "partial"}
    one, other = (
        LatentCanvasVectorEnv(3, loaded, autoreset_mode="same_step", **settings) for _ in range(2)
    )
    for seed in (2, None):  # and the episode after, if the generators have drawn alike
        obs, _ = one.reset(seed=seed, options=options)
        assert np.array_equal(obs, other.reset(seed=seed, options=options)[0])
        codes = fill(one, obs)
        score_map = one.scorer.score_map(codes)
        assert_same(one.complete(codes), other.complete(codes, score_map=score_map))


def test_a_known_score_map_saves_decoding_and_scoring(tiny):
    """What is handed over is what is paid: normalised and clamped, but not computed again."""
    env = LatentCanvasVectorEnv(2, tiny, reward="intermediate", autoreset_mode="disabled")
    codes = fill(env, env.reset(seed=0)[0])
    known = torch.tensor([[0.02, -0.01], [0.04, 5.0]]).expand(2, 1, 2, 2).requires_grad_()
    env.discriminator.register_forward_pre_hook(lambda *_: pytest.fail("canvases were scored"))
    env.scorer.codec.decode = lambda codes: pytest.fail("canvases were decoded")
    _, rewards, *_, info = env.complete(codes, known)
    expected = np.array([[0.4, -0.2], [0.8, 1.0]], np.float32)  # of a reward scale of 0.05
    assert info["score_map"][1] == pytest.approx(expected, rel=1e-6)
    assert rewards == pytest.approx([2.0 * 16] * 2, rel=1e-6)


@pytest.mark.parametrize(
    "score_map",
    [
        torch.zeros(1, 1, 2, 2),
        torch.zeros(2, 2, 2),
        torch.zeros(2, 1, 2, 1),
        torch.zeros(2, 1, 8, 8),
        torch.zeros(2, 1, 2, 2, dtype=torch.int64),
        np.zeros((2, 1, 2, 2), np.float32),
        3.0,
    ],
    ids=lambda m: f"{type(m).__name__}{tuple(getattr(m, 'shape', ()))}",
)
@pytest.mark.usefixtures("no_shape_checks")
def test_a_score_map_of_another_shape_is_refused_and_changes_nothing(tiny, score_map):
    env = LatentCanvasVectorEnv(2, tiny)
    obs, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=r"score_map: got .*expected.*\(2, 1, 2, 2\)"):
        env.complete(fill(env, obs), score_map)
    assert env.complete(fill(env, obs))[2].all()


def test_a_score_map_of_fewer_rows_is_as_tall_as_they_are(tiny):
    env = LatentCanvasVectorEnv(2, tiny, autoreset_mode="disabled")
    obs, _ = env.reset(options={"start": "scratch", "rows": 5})
    with pytest.raises(ValueError, match=r"expected.*\(2, 1, 1, 2\)"):
        env.complete(fill(env, obs), torch.zeros(2, 1, 2, 2))
    env.complete(fill(env, obs), torch.zeros(2, 1, 1, 2))
    env.reset()
    mask = np.array([True, False])
    obs, _ = env.reset(options={"start": "scratch", "rows": 5, "reset_mask": mask})
    with pytest.raises(ValueError, match=r"canvases of \[5 8\] rows, expected one height"):
        env.complete(fill(env, obs), torch.zeros(2, 1, 1, 2))


def test_a_score_map_that_is_not_finite_is_refused(tiny):
    env = LatentCanvasVectorEnv(2, tiny)
    codes = fill(env, env.reset()[0])
    with pytest.raises(ValueError, match="8 of 8 scores are not finite"):
        env.complete(codes, torch.full((2, 1, 2, 2), torch.nan))


@pytest.mark.parametrize("source", ["discriminator", "random"])
@pytest.mark.parametrize("reward", REWARDS)
def test_an_episode_that_is_under_way_is_completed_as_steps_would(loaded, reward, source):
    stepped, whole = (
        LatentCanvasVectorEnv(3, loaded, reward=reward, reward_source=source) for _ in range(2)
    )
    for seed, steps in ((0, 1), (1, loaded.layout.length - 9), (2, loaded.layout.length - 1)):
        obs, _ = stepped.reset(seed=seed)
        whole.reset(seed=seed)
        codes = fill(stepped, obs)
        for cell in range(steps):
            obs = stepped.step(codes[:, cell])[0]
            whole.step(codes[:, cell])
        *_, last = play(stepped, obs, codes)
        assert_same(last, whole.complete(codes))

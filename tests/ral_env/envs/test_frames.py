"""Frames show what is written, tinted as asked, in a window or as an array."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from test_reward import Known

from ral_env.envs.single import LatentCanvasEnv
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.picture import ABSENT, BLANK, HIGH, LOW, REAL

SCORES = torch.tensor([[0.6, -0.4], [-0.2, 0.0]])  # of 32x32 pixels: 128 of a frame's to a patch


def frame_of(env: LatentCanvasVectorEnv) -> np.ndarray:
    """The first canvas's frame, uint8 (H, W, 3)."""
    frames = env.render()
    assert frames is not None
    return frames[0]


def frames_after(path, steps: int, overlays, **options) -> list[np.ndarray]:
    """What each overlay makes of one canvas; scored with SCORES."""
    frames = []
    for overlay in overlays:
        env = LatentCanvasVectorEnv(1, path, render_mode="rgb_array", overlay=overlay)
        env.set_discriminator(Known(SCORES), reward_scale=1.0)
        env.reset(seed=0, options=options)
        for n in range(steps):
            env.step([n % 16])
        frames.append(frame_of(env).astype(float))
    return frames


def mixed(frame: np.ndarray, colour, share: float) -> np.ndarray:
    return (1 - share) * frame + share * np.array(colour)


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


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
@pytest.mark.parametrize("steps", [0, 3])
def test_the_real_overlay_tints_exactly_the_rows_that_were_given(request, name, steps):
    path = request.getfixturevalue(name)
    plain, tinted = frames_after(path, steps, [None, "real"], start="continue", rows=3)
    assert tinted[:96] == pytest.approx(mixed(plain[:96], REAL, 0.3), abs=0.51)
    assert np.array_equal(tinted[96:], plain[96:])
    for options in ({"start": "full"}, {"start": "scratch", "rows": 5}):
        plain, tinted = frames_after(path, steps, [None, "real"], **options)
        assert np.array_equal(tinted, plain)


def test_the_score_overlay_tints_finished_rows_green_where_real_and_red_where_fake(tiny):
    def both(steps, **options):
        return frames_after(tiny, steps, [None, "scores"], **options)

    plain, tinted = both(31)  # one cell short of the 4 rows that can be scored
    assert np.array_equal(plain, tinted)
    for steps in (32, 39):  # the fifth row is begun, but not finished
        plain, tinted = both(steps)
        assert tinted[:128, :128] == pytest.approx(mixed(plain[:128, :128], HIGH, 0.3), abs=0.51)
        assert tinted[:128, 128:] == pytest.approx(mixed(plain[:128, 128:], LOW, 0.2), abs=0.51)
        assert np.array_equal(plain[128:], tinted[128:])
    plain, tinted = both(40)  # five rows: one row of patches, which all of them belong to
    assert tinted[:160, :128] == pytest.approx(mixed(plain[:160, :128], HIGH, 0.3), abs=0.51)
    assert np.array_equal(plain[160:], tinted[160:])
    plain, tinted = both(64)
    assert tinted[128:, :128] == pytest.approx(mixed(plain[128:, :128], LOW, 0.1), abs=0.51)
    assert np.array_equal(plain[128:, 128:], tinted[128:, 128:])  # scores 0: neither
    plain, tinted = both(40, start="scratch", rows=5)
    assert (tinted[:160] != plain[:160]).any(2).all() and (tinted[160:] == ABSENT).all()


def test_the_score_overlay_waits_for_the_finer_level(tiny_two):
    for steps, rows in ((64 + 127, 0), (64 + 128, 4), (64 + 159, 4), (64 + 160, 5)):
        plain, tinted = frames_after(tiny_two, steps, [None, "scores"])
        touched = (tinted != plain).any((1, 2))
        assert touched[: rows * 32].all() and not touched[rows * 32 :].any()


def test_both_overlays_lie_over_each_other(tiny):
    options = {"start": "continue", "rows": 4}
    real, both = frames_after(tiny, 1, ["real", "both"], **options)
    assert both[:128, :128] == pytest.approx(mixed(real[:128, :128], HIGH, 0.3), abs=0.51)
    assert both[:128, 128:] == pytest.approx(mixed(real[:128, 128:], LOW, 0.2), abs=0.51)
    assert np.array_equal(both[128:], real[128:])


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("argument", ["blue", True])
def test_an_unknown_overlay_is_refused(tiny, argument):
    with pytest.raises(ValueError, match="overlay=.*expected one of"):
        LatentCanvasEnv(tiny, overlay=argument)


def test_a_written_top_level_is_a_picture_before_the_bottom_is(tiny_two):
    env = LatentCanvasVectorEnv(1, tiny_two, render_mode="rgb_array", autoreset_mode="disabled")
    env.reset()
    assert set(np.unique(frame_of(env))) == set(BLANK)
    codes = np.random.default_rng(0).integers(0, 16, 320)
    for code in codes[:20]:
        env.step([code])
    frame = frame_of(env).reshape(8, 32, 8, 32, 3).swapaxes(1, 2)
    checker = (frame == frame[:, :, :1, :1, :1]).all((2, 3, 4))  # cells of one grey
    assert np.array_equal(checker.ravel(), np.arange(64) >= 20)
    for code in codes[20:64]:
        env.step([code])
    # What the top lets expect: the mean of what real images have beneath the same code.
    vqvae, top = env.bundle.vqvae, codes[:64].reshape(8, 8)
    real = env.bundle.split("train")
    real_top, real_bottom = real[:, :64].reshape(-1, 8, 8), real[:, 64:].reshape(-1, 16, 16)
    bottom = torch.zeros(1, 6, 16, 16)
    for y, x in np.ndindex(16, 16):
        n, h, w = np.nonzero(real_top == top[y // 2, x // 2])
        beneath = torch.from_numpy(real_bottom[n, 2 * h + y % 2, 2 * w + x % 2].astype(int))
        bottom[0, :, y, x] = vqvae.codebooks[1][beneath].mean(0)
    with torch.no_grad():
        vectors = vqvae.codebooks[0][torch.from_numpy(top)].permute(2, 0, 1)[None]
        image = vqvae.decode_vectors([vectors, bottom])[0].permute(1, 2, 0)
    expected = ((image + 1) * 127.5).round().clamp(0, 255).numpy()
    before = frame_of(env)
    assert before[::8, ::8] == pytest.approx(expected, abs=1)
    for code in codes[64:]:
        env.step([code])
    after = frame_of(env)
    assert not np.array_equal(before, after)
    assert np.array_equal(after[::8, ::8], env.images(codes[None])[0].transpose(1, 2, 0))


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
def test_a_window_shows_the_frame_and_closes(request, name, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame = pytest.importorskip("pygame")
    path, options = request.getfixturevalue(name), {"start": "continue", "rows": 5}
    shown = LatentCanvasEnv(path, render_mode="human", overlay="real")
    array = LatentCanvasEnv(path, render_mode="rgb_array", overlay="real")

    def assert_shown() -> None:
        pixels = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        assert np.array_equal(pixels, array.render()) and shown.render() is None

    for _ in range(2):  # a closed window opens again at the next reset
        for env in (shown, array):
            env.reset(seed=3, options=options)
        assert_shown()
        for action in (2, 5):
            for env in (shown, array):
                env.step(action)
            assert_shown()
        assert pygame.display.get_caption()[0] == "noise"
        shown.close()
        assert pygame.display.get_surface() is None
    shown.close()


def test_without_pygame_the_extra_is_named(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = LatentCanvasEnv(tiny, render_mode="human")
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"pip install 'ral-env\[window\]'"):
        env.reset()


def test_without_a_screen_a_window_is_refused(tiny, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    # What SDL falls back on where there is neither X nor Wayland: it shows nothing.
    monkeypatch.setattr(pygame.display, "init", lambda: None)
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "offscreen")
    env = LatentCanvasEnv(tiny, render_mode="human")
    with pytest.raises(ValueError, match="a window needs a screen"):
        env.reset()

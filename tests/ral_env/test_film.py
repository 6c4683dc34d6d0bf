"""Films: what a frame shows, one painter or two side by side."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

import ral_env  # noqa: F401  registers the ids
from ral_env import bundle, cli, film


def last_frame(path) -> np.ndarray:
    with Image.open(path) as image:
        image.seek(image.n_frames - 1)  # type: ignore[attr-defined]
        return np.asarray(image.convert("RGB"))


def test_two_films_are_shown_frame_by_frame():
    left = [np.full((64, 64, 3), grey, np.uint8) for grey in (1, 2)]
    right = [np.full((64, 64, 3), grey, np.uint8) for grey in (3, 4)]
    for shown, a, b in zip(film.side_by_side(left, right), left, right, strict=True):
        assert np.array_equal(shown[:, :64], a) and np.array_equal(shown[:, 66:], b)
        assert (shown[:, 64:66] == 255).all()
    with pytest.raises(ValueError, match="zip"):
        film.side_by_side(left, right[:1])


def test_another_painter_paints_beside_from_the_same_noise(tiny, tmp_path, capsys):
    """One that differs in a bias alone: what it paints is what it paints by itself."""
    made = bundle.load(tiny)
    with torch.no_grad():
        for value in made.priors[0].parameters():
            value.mul_(3.0)
    other = bundle.save(tmp_path / "other", made, metrics={})
    words = ["film", "--env", "RALBundle-v0", "--bundle", str(tiny), "--length", "2"]
    out = tmp_path / "film.gif"
    assert cli.main([*words, "--beside", str(other), "--out", str(out), "--size", "520"]) == 0
    assert "on noise" in capsys.readouterr().out
    shown = last_frame(out)
    assert shown.shape == (256, 520, 3)
    alone = [
        film.frames(gym.make("RALBundle-v0", bundle=b, render_mode="rgb_array"))[-1]
        for b in (tiny, other)
    ]
    assert not np.array_equal(alone[0], alone[1])
    for half, expected in zip((shown[:, :256], shown[:, 264:]), alone, strict=True):
        # A GIF has 64 colours.
        assert np.abs(half.astype(int) - expected).mean() < 8
        assert (
            np.abs(half.astype(int) - expected).mean()
            < np.abs(half.astype(int) - alone[expected is alone[0]]).mean()
        )


def test_a_painter_of_other_grids_is_refused(tiny, tiny_two, tmp_path, capsys):
    words = ["film", "--env", "RALBundle-v0", "--bundle", str(tiny), "--beside", str(tiny_two)]
    assert cli.main([*words, "--out", str(tmp_path / "film.gif")]) == 1
    assert "has other grids" in capsys.readouterr().err

"""``ral complete``: what is kept is of the image, what is written depends on the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from PIL import Image

from pretrain.data import faces
from ral_env import bundle, cli
from ral_env.complete import PAD, TILE, TITLE, Completion, command, complete, sheet
from ral_env.images import read


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two pictures, neither of a bundle's size."""
    rng = np.random.default_rng(0)
    for name, side in (("large", 50), ("small", 9)):
        noise = rng.integers(0, 256, (side, side + 7, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    return [str(tmp_path / f"{name}.png") for name in ("large", "small")]


def run(path: Path, files: list[str], **changes: Any) -> list[Completion]:
    """Completions on a tiny bundle; the PNG goes beside the pictures."""
    out = str(Path(files[0]).parent / "made" / "completion.png")
    arguments = {"env": "RALBundle-v0", "bundle": str(path), "count": 3, "out": out}
    return command(files, **(arguments | changes))


@pytest.mark.parametrize("name", ["tiny", "tiny_two", "tiny_two_codes"])
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_kept_rows_are_those_of_the_image_on_every_level(request, files, name, rows):
    path = request.getfixturevalue(name)
    found = bundle.load(path)
    for file, one in zip(files, run(path, files, rows=rows, peek=True), strict=True):
        pixels = torch.from_numpy(read(file, 32))[None].float() / 127.5 - 1
        codes = found.vqvae.encode(pixels)
        assert one.rows == rows and one.codes.shape == (3, found.layout.length)
        assert one.codes.dtype == np.int16 and 0 <= one.codes.min() <= one.codes.max() < 16
        for level, grid in enumerate(found.layout.unflatten(one.codes)):
            kept = rows * found.layout.ratio(level)
            assert (grid[:, :kept] == codes[level].numpy()[:, :kept]).all()
            assert (grid[:, kept:] != codes[level].numpy()[:, kept:]).any()  # the rest is written


def test_codes_images_and_rewards_belong_together(tiny_two, files):
    (one, _) = run(tiny_two, files)
    envs: Any = gym.make_vec(
        "RALBundle-v0", num_envs=3, bundle=str(tiny_two), autoreset_mode="disabled"
    )
    assert one.rows == 4  # half of 8
    assert np.array_equal(one.images, envs.images(one.codes))
    assert one.rewards.shape == (3,)
    scores = envs.score(one.codes).mean((1, 2, 3)).numpy()
    assert one.rewards == close(scores)
    envs.reset(options={"start": "continue", "rows": 4, "codes": one.codes})
    assert np.array_equal(envs.complete(one.codes)[1], one.rewards)
    assert np.array_equal(one.kept[:, :16], one.reconstruction[:, :16])
    assert (one.kept[:, 16:] == 128).all()


def test_nothing_of_the_hidden_rows_reaches_the_priors_unless_asked():
    """Two real faces with the upper half of one of them: the shipped encoder sees past the edge."""
    drawn, _ = faces(2, 32, seed=5)
    other = np.concatenate([drawn[0][:, :16], drawn[1][:, 16:]], 1)
    envs: Any = gym.make_vec("RALFaces32-v0", num_envs=2, autoreset_mode="disabled")
    blind = [complete(envs, image) for image in (drawn[0], other)]
    assert np.array_equal(blind[0].codes, blind[1].codes)
    seeing = [complete(envs, image, peek=True) for image in (drawn[0], other)]
    assert not np.array_equal(seeing[0].codes[:, :32], seeing[1].codes[:, :32])


def test_one_seed_is_one_completion(tiny_two, files):
    first, again = run(tiny_two, files, seed=3), run(tiny_two, files, seed=3)
    other, alone = run(tiny_two, files, seed=4), run(tiny_two, files[1:], seed=3)
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a.codes, b.codes) and np.array_equal(a.images, b.images)
        assert np.array_equal(a.rewards, b.rewards)
        assert not np.array_equal(a.codes, c.codes)
        assert len({codes.tobytes() for codes in a.codes}) == 3  # nor are two of them alike
    assert np.array_equal(alone[0].codes, first[1].codes)  # whatever other files are given


def test_at_temperature_0_the_likeliest_codes_are_written(tiny, files):
    (one, _) = run(tiny, files, temperature=0.0)
    assert (one.codes == one.codes[0]).all()


def test_the_png_shows_all_of_it(tiny, files, capsys):
    done = run(tiny, files)
    path = Path(files[0]).parent / "made" / "completion.png"
    with Image.open(path) as image:
        shown = np.asarray(image)
    # Titles, then two lines of original, reconstruction, kept and three completions.
    step = TILE + PAD
    assert shown.shape == (TITLE + PAD + 2 * step, PAD + 6 * step, 3)
    for line, (file, one) in enumerate(zip(files, done, strict=True)):
        expected = [read(file, 32), one.reconstruction, one.kept, *one.images]
        for column, tile in enumerate(expected):
            top, left = TITLE + PAD + line * step, PAD + column * step
            drawn = shown[top : top + TILE, left : left + TILE]
            large = tile.transpose(1, 2, 0).repeat(TILE // 32, 0).repeat(TILE // 32, 1)
            assert np.array_equal(drawn, large)
        titles = shown[:TITLE].min((0, 2)) < 128  # columns that hold ink
        assert titles[:TILE].any() and titles[-TILE:].any()
    printed = capsys.readouterr().out
    assert "4 of 8 rows kept" in printed and f"wrote {path}, on noise" in printed
    for file, one in zip(files, done, strict=True):
        assert f"{file}: " + ", ".join(f"{r:+.3f}" for r in one.rewards) in printed


def test_large_images_are_shown_as_they_are():
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 200, 200), np.uint8)
    shown = np.asarray(sheet([{"a": tiles[0], "b": tiles[1]}]))
    assert shown.shape == (TITLE + 2 * PAD + 200, 3 * PAD + 400, 3)
    assert np.array_equal(shown[TITLE + PAD : -PAD, PAD : PAD + 200], tiles[0].transpose(1, 2, 0))


def test_the_command_line_takes_several_files(tiny, files, capsys):
    out = Path(files[0]).parent / "c.png"
    words = ["--env", "RALBundle-v0", "--bundle", str(tiny), "--rows", "2", "--out", str(out)]
    assert cli.main(["complete", "--image", *files, "-n", "1", *words]) == 0
    with Image.open(out) as image:
        assert image.width == PAD + 4 * (TILE + PAD)
    assert "2 of 8 rows kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "8"], "rows=8, expected 1 to 7"),
        (["--rows", "0"], "rows=0, expected 1 to 7"),
        (["-n", "0"], "count=0, expected a number in [1, inf)"),
        (["--temperature", "-1"], "temperature=-1.0, expected a number in [0, inf)"),
        (["--image", "nowhere.png"], "nowhere.png cannot be read"),
        (["--image", __file__], "test_complete.py cannot be read"),
        (["--env", "RALFace32-v0"], "Did you mean: `RALFaces32`?"),
        (["--bundle", "digit"], "Did you mean 'digits'?"),
        (["--out", "."], "out='.' is a folder"),
    ],
)
def test_errors_are_one_line(tiny, files, capsys, words, message):
    out = Path(files[0]).parent / "none.png"
    before = ["--env", "RALBundle-v0", "--bundle", str(tiny), "--out", str(out)]
    assert cli.main(["complete", "--image", files[0], *before, *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ral: error: ") and error.count("\n") == 1 and message in error
    assert not out.exists()


def test_an_image_that_does_not_fit_is_refused(tiny):
    envs = gym.make_vec("RALBundle-v0", num_envs=2, bundle=str(tiny), autoreset_mode="disabled")
    for image in (np.zeros((3, 16, 16), np.uint8), np.zeros((3, 32, 32), np.float32)):
        with pytest.raises(ValueError, match=r"expected uint8 \(3, 32, 32\)"):
            complete(envs, image)

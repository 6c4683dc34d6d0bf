"""What the page may ask for: answers are those of environments and priors, bad questions words."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close
from PIL import Image

from ral_env import bundle
from ral_env.complete import complete as complete_image
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.images import read
from ral_env.nets import joint
from ral_env.tasks import TASKS
from ral_env.viewer.answers import answer
from ral_env.viewer.sources import Library


@pytest.fixture(params=["tiny", "tiny_two_codes"])
def path(request) -> str:
    """A bundle of one level, and one of two whose discriminator sees codes."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def ask(path):
    library = Library(Path("nowhere"), [path])
    return lambda question, **given: answer(library, question, {"source": path, **given})


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def of_url(url: str) -> np.ndarray:
    return pixels(base64.b64decode(url.partition(",")[2]))


def test_a_painting_is_a_sample_of_the_priors_and_all_that_they_expected(ask, path):
    found, made = ask("painting", policy="mle", seed=5, temperature=0.7), bundle.load(path)
    empty = [torch.full((1, *grid), made.layout.empty) for grid in made.layout.levels]
    grids = joint.sample(made.priors, empty, 0.7, torch.Generator().manual_seed(5))
    assert found["codes"] == made.layout.flatten(grids)[0].tolist()
    log_probs = made.layout.flatten(joint.log_prob(made.priors, grids, 0.7))[0]
    assert found["nats"] == pytest.approx((-log_probs.detach()).tolist(), abs=1e-4)
    above = [None, *grids[:-1]]
    expected = torch.cat([
        torch.distributions.Categorical(logits=prior.logits(grid, condition) / 0.7)
        .entropy().flatten()
        for prior, grid, condition in zip(made.priors, grids, above, strict=True)
    ])  # fmt: skip
    assert found["entropies"] == pytest.approx(expected.tolist(), abs=1e-4)
    env = LatentCanvasVectorEnv(1, path, autoreset_mode="disabled")
    env.reset()
    assert found["reward"] == close(env.complete(np.array([found["codes"]]))[1][0])


def test_all_probability_is_the_likeliest_codes_at_temperature_0(ask):
    found = ask("painting", policy="mle", seed=1, temperature=0)
    assert found["entropies"] == [0] * len(found["codes"])
    assert found["nats"] == [0] * len(found["codes"])


def test_a_real_picture_is_one_of_the_test_split(ask, path):
    made = bundle.load(path)
    test = np.asarray(made.split("test"))
    for number in (0, 3, len(test) + 1):
        found = ask("painting", policy="real", seed=number)
        assert found["codes"] == test[number % len(test)].tolist()


@pytest.mark.parametrize("id", TASKS)
@pytest.mark.filterwarnings("ignore::ral_env.StandInWarning")
def test_every_id_can_be_watched(id):
    library = Library(Path("nowhere"))
    about: Any = answer(library, "source", {"source": id})
    length = sum(height * width for height, width in about["levels"])
    for policy in ("mle", "real"):
        given = {"source": id, "policy": policy}
        painted: Any = answer(library, "painting", given)
        codes = painted["codes"]
        assert len(codes) == len(painted["entropies"]) == length
        steps = [length // 2, length]
        frames: Any = answer(library, "frames", {"source": id, "codes": codes, "steps": steps})
        side = TASKS[id].image_size
        assert pixels(frames).shape == (2 * side, side, 3)
        found: Any = answer(library, "candidates", {**given, "codes": codes, "cell": length // 2})
        assert len(found["candidates"]) == 5 and found["written"] == codes[length // 2]
        rows = about["levels"][0][0]
        scores: Any = answer(library, "scores", {"source": id, "codes": codes, "rows": rows})
        assert np.mean(scores["map"]) == pytest.approx(painted["reward"], abs=1e-3)


def test_frames_are_those_of_the_environment(ask, path):
    env: Any = gym.make("ral_env:RALBundle-v0", bundle=path, render_mode="rgb_array").unwrapped
    codes = ask("painting", policy="mle")["codes"]
    steps = [0, 1, 17, len(codes) - 1, len(codes)]
    frames = pixels(ask("frames", codes=codes, steps=steps)).reshape(5, 32, 32, 3)
    env.reset()
    for step, code in enumerate([*codes, None]):
        if step in steps:
            # Frames of environments are magnified, eight pixels to one here.
            assert np.array_equal(frames[steps.index(step)], env.render()[::8, ::8])
        if code is not None:
            env.step(code)


def test_saved_codes_decode_to_exactly_the_pixels_shown(ask, path):
    made = bundle.load(path)
    codes = ask("painting", policy="mle", seed=2)["codes"]
    saved = np.load(io.BytesIO(ask("npy", codes=[codes])))
    assert saved.dtype == np.int16 and saved.shape == (1, made.layout.length)
    with torch.no_grad():
        image = made.vqvae.decode(made.layout.as_grids(saved))[0]
    decoded = ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    shown = pixels(ask("frames", codes=codes, steps=[3, len(codes)]))[32:]
    assert np.array_equal(pixels(ask("picture", codes=codes)), decoded)
    assert np.array_equal(shown, decoded)
    film = Image.open(io.BytesIO(ask("gif", codes=codes, fps=10)))
    assert film.size == (256, 256) and film.info["duration"] == 100
    assert getattr(film, "n_frames", 1) > 50


def test_the_five_most_probable_codes_are_those_of_the_prior(ask, path):
    made = bundle.load(path)
    codes = ask("painting", policy="mle", seed=4)["codes"]
    for cell in (0, 20, made.layout.length - 1):
        found = ask("candidates", policy="mle", codes=codes, cell=cell, temperature=1.5)
        level, row, column = found["level"], found["row"], found["column"]
        assert made.layout.flatten([
            np.full(grid, i) for i, grid in enumerate(made.layout.levels)
        ])[cell] == level  # fmt: skip
        grids = made.layout.as_grids(np.array([codes]))
        condition = grids[level - 1] if level else None
        logits = made.priors[level].logits(grids[level], condition)[0, row, column]
        expected = (logits / 1.5).softmax(-1).detach()
        assert found["probabilities"] == pytest.approx(expected.tolist(), abs=2e-5)
        top = [each["code"] for each in found["candidates"]]
        assert top == expected.argsort(descending=True)[:5].tolist()
        assert found["written"] == codes[cell]
        # What comes after the cell changes nothing, and is not needed.
        before = codes[:cell] + [made.layout.empty] * (len(codes) - cell)
        again = ask("candidates", policy="mle", codes=before, cell=cell, temperature=1.5)
        assert again == {**found, "written": None}


def test_a_candidates_patch_is_cut_from_the_picture_that_it_would_make(ask, path):
    made = bundle.load(path)
    codes = ask("painting", policy="mle", seed=4)["codes"]
    found = ask("candidates", policy="mle", codes=codes, cell=10)  # row 1, column 2 of 8
    for each in found["candidates"]:
        tried = codes[:10] + [each["code"]] + [made.layout.empty] * (len(codes) - 11)
        whole = pixels(ask("picture", codes=tried))
        assert np.array_equal(of_url(each["patch"]), whole[0:12, 4:16])


def test_scores_are_what_rewards_are_made_of(ask, path):
    codes = ask("painting", policy="mle", seed=6)["codes"]
    canvas = np.array([codes], np.int16)
    single, intermediate, rowwise = (
        LatentCanvasVectorEnv(1, path, reward=reward, autoreset_mode="disabled")
        for reward in ("single", "intermediate", "rowwise")
    )
    paid = {}
    for env in (single, intermediate, rowwise):
        env.reset()
        _, reward, _, _, info = env.complete(canvas)
        paid[env.reward] = reward[0], info["step_rewards"][0]
    found = ask("scores", codes=codes, rows=8)
    assert np.mean(found["map"]) == pytest.approx(paid["single"][0], abs=1e-4)
    assert found["cells"] == pytest.approx(paid["intermediate"][1].tolist(), abs=1e-4)
    # The fifth row is paid, by itself, when the first five are finished.
    layout = single.layout
    five = np.array(ask("scores", codes=codes, rows=5)["cells"])
    row = layout.bands == 4
    step = np.flatnonzero(layout.written(5)).max()
    assert five[row].sum() == pytest.approx(paid["rowwise"][1][step], abs=1e-3)
    assert not five[layout.bands > 4].any()


def test_what_one_plays_earns_what_an_agent_would_earn(ask, path):
    start = ask("start", rows=6, seed=2)["codes"]
    made = bundle.load(path)
    real = np.asarray(made.split("test"))[2]
    head = made.layout.head(6)
    assert start == np.where(head, real, made.layout.empty).tolist()
    env: Any = gym.make("ral_env:RALBundle-v0", bundle=path).unwrapped
    observed, _ = env.reset(options={"start": "continue", "rows": 6, "codes": real.astype(int)})
    assert observed.tolist() == start
    rng, reward, codes = np.random.default_rng(0), 0.0, list(start)
    while made.layout.empty in codes:
        pick = int(rng.integers(16))
        codes[codes.index(made.layout.empty)] = pick
        _, reward, *_ = env.step(pick)
    mine = ask("finish", policy="mle", codes=codes)
    assert mine["codes"] == [codes] and mine["rewards"] == pytest.approx([reward], abs=1e-4)
    theirs = ask("finish", policy="mle", codes=start, count=3, seed=9)
    assert len(theirs["rewards"]) == 3 and len({tuple(each) for each in theirs["codes"]}) == 3
    for each in theirs["codes"]:
        assert np.array_equal(np.array(each)[head], real[head])


def test_completions_are_those_of_the_command(ask, path, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 47, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    file = (tmp_path / "noise.png").read_bytes()
    found = ask("complete", picture=file, rows=3, count=2, seed=4, temperature=0.9)
    envs = LatentCanvasVectorEnv(2, path, autoreset_mode="disabled")
    expected = complete_image(envs, read(file, 32), 3, 0.9, 4)
    assert found["codes"] == expected.codes.tolist() and found["rows"] == 3
    assert found["rewards"] == pytest.approx(expected.rewards.tolist(), abs=1e-4)
    shown = {each["title"]: of_url(each["url"]) for each in found["pictures"]}
    for title, tile in expected.columns().items():
        difference = shown[title].astype(int) - tile.transpose(1, 2, 0)
        assert abs(difference).max() <= 1  # in a batch a pixel may round to the next grey
    for i, codes in enumerate(found["codes"], start=1):
        assert np.array_equal(shown[f"completion {i}"], pixels(ask("picture", codes=codes)))
    # What the link holds of the picture is completed as the picture is.
    small = base64.b64decode(found["pictures"][0]["url"].partition(",")[2])
    again = ask("complete", picture=small, rows=3, count=2, seed=4, temperature=0.9)
    assert again == found


def test_a_wrong_file_gets_the_words_of_the_command(tmp_path, ask, capsys, path):
    from ral_env import cli

    wrong = tmp_path / "letter.png"
    wrong.write_text("no picture at all")
    words = ["--env", "RALBundle-v0", "--bundle", path, "--out", str(tmp_path / "out.png")]
    assert cli.main(["complete", "--image", str(wrong), *words]) == 1
    said = capsys.readouterr().err.removeprefix("ral: error: ").strip()
    with pytest.raises(ValueError) as refused:
        ask("complete", picture=wrong.read_bytes(), name=str(wrong))
    # Pillow's reason names the object in memory where the command has a file.
    head, tail = f"{wrong} cannot be read (", "): expected a PNG, JPEG or other image file"
    for message in (said, str(refused.value)):
        assert message.startswith(head) and message.endswith(tail)


def test_the_palette_shows_each_code_by_itself(ask, path):
    made = bundle.load(path)
    palettes = [pixels(ask("palette", level=i, above=3)) for i in range(len(made.layout.levels))]
    sides = [32 // height for height, _ in made.layout.levels]
    assert [each.shape for each in palettes] == [(16 * side, side, 3) for side in sides]
    patches, side = palettes[-1], sides[-1]
    # At the middle of a picture that holds one code alone, as far as the decoder sees.
    grids = [torch.full((1, *grid), 3) for grid in made.layout.levels]
    grids[-1][:] = 5
    with torch.no_grad():
        image = made.vqvae.decode([g[:, : g.shape[1] * 3 // 8] for g in grids])[0]
    whole = ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    top, left = (n // 2 // side * side for n in whole.shape[:2])
    assert patches[5 * side : 6 * side] == close(
        whole[top : top + side, left : left + side].astype(float), terms=1e5
    )  # a batch may round to the next grey


def test_the_same_seed_is_the_same_noise_for_every_policy(path):
    made = bundle.load(path)
    both = dataclasses.replace(made, policies=made.priors)
    from ral_env.viewer import paintings
    from ral_env.viewer.sources import Source

    source = Source("both", both)
    assert list(source.policies()) == ["mle", "policy"]
    empty = np.full(made.layout.length, made.layout.empty, np.int16)
    first, second = (
        paintings.sample(source, source.nets(name), empty, 1, 3, 1.0) for name in ("mle", "policy")
    )
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("question", "given", "message"),
    [
        ("paint", {}, "no question 'paint'"),
        ("painting", {}, "missing a required argument: 'policy'"),
        ("painting", {"policy": "mle", "colour": 1}, "unexpected keyword argument 'colour'"),
        ("painting", {"policy": "ppo"}, r"policy='ppo', expected one of \['mle'\]"),
        ("painting", {"policy": "mle", "seed": 1.5}, "seed=1.5, expected a whole number"),
        ("painting", {"policy": "mle", "seed": -1}, "seed=-1, expected a whole number from 0"),
        ("painting", {"policy": "mle", "temperature": "hot"}, "temperature='hot', expected"),
        ("painting", {"policy": "mle", "source": "/etc"}, "neither an id, nor the name of a bun"),
        ("painting", {"policy": "mle", "source": "nowhere/x"}, "is no run and no bundle"),
        ("picture", {"codes": [0, 1]}, "whole numbers from 0 to 16"),
        ("picture", {"codes": "x"}, "whole numbers from 0 to 16"),
        ("npy", {"codes": []}, "expected a list of canvases"),
        ("palette", {"level": 9}, "level=9, expected a whole number from 0"),
    ],
)
def test_a_bad_question_is_refused_in_words(ask, question, given, message):
    with pytest.raises(ValueError, match=message):
        ask(question, **given)


def test_cells_after_an_empty_one_are_expected_by_nobody(ask, path):
    length = bundle.load(path).layout.length
    codes = [0] * 5 + [16] * (length - 5)
    with pytest.raises(ValueError, match="cell=6, expected one before which no cell is empty"):
        ask("candidates", policy="mle", codes=codes, cell=6)
    with pytest.raises(ValueError, match="rows=8, expected rows that are written"):
        ask("scores", codes=codes, rows=8)
    with pytest.raises(ValueError, match="steps="):
        ask("frames", codes=codes, steps=[])

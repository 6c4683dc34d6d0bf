"""``ral sample`` and ``ral view``: what is written is the priors', and the seed's."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ral_env import bundle, cli, film
from ral_env.film import watch
from ral_env.nets import backends, joint
from ral_env.sample import command, draw, select_by_score


@pytest.mark.parametrize("name", ["tiny", "tiny_two"])
@pytest.mark.parametrize("backend", ["auto", "eager", "graph"])
def test_codes_are_samples_of_the_priors_and_pictures_show_them(request, tmp_path, name, backend):
    path, out = str(request.getfixturevalue(name)), tmp_path / "made" / "faces.png"
    command("RALBundle-v0", path, count=5, batch=4, seed=3, backend=backend, out=str(out))
    made = bundle.load(path)
    for prior in made.priors:
        backends.choose(prior, "auto" if backend == "auto" else "eager")
    generator = torch.Generator().manual_seed(3)
    expected = [
        joint.sample(made.priors, [torch.full((size, *g), made.layout.empty)
                     for g in made.layout.levels], generator=generator)
        for size in (4, 4 if backend == "graph" else 1)
    ]  # fmt: skip
    saved = np.load(out.with_suffix(".npz"))
    for level, grids in enumerate(zip(*expected, strict=True)):
        assert np.array_equal(saved[f"level_{level}"], torch.cat(grids)[:5].numpy())
    side = made.image_size
    times = max(1, 96 // side)
    first = made.vqvae.decode([grid[:1] for grid in expected[0]])[0]
    pixels = np.asarray(Image.open(out))[::times, ::times].transpose(2, 0, 1)[:, 2 : side + 2]
    shown = ((first + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    assert np.array_equal(pixels[:, :, 2 : side + 2], shown)
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["seed"] == 3 and told["backend"] == backend and told["dataset"] == made.dataset


def test_the_old_name_of_an_option_is_taken(tiny, tmp_path):
    words = ["--env", "RALBundle-v0", "--bundle", str(tiny), "--count", "1", "--way", "graph"]
    with pytest.warns(FutureWarning, match="--way is called --backend now"):
        assert cli.main(["sample", *words, "--out", str(tmp_path / "one.png")]) == 0
    assert json.loads((tmp_path / "one.json").read_text())["backend"] == "graph"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "count=0"),
        (["--out", "faces.jpg"], "faces.jpg"),
        (["--precision", "bfloat16"], "backend='auto'"),
        (["--temperature", "-1"], "temperature=-1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", *arguments]) == 1
    assert message in capsys.readouterr().err and not list(Path().iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample"], ["film"], ["view"], ["train"], ["demo"],
        ["complete", "--image", "none.png"], ["train", "--algo", "ppo"],
    ],
)  # fmt: skip
def test_the_id_of_another_project_is_refused(arguments, capsys):
    assert cli.main([*arguments, "--env", "CartPole-v1"]) == 1
    assert "'CartPole-v1' is no environment of codes" in capsys.readouterr().err


def test_a_window_shows_episodes_until_it_is_closed(tiny, monkeypatch, capsys):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(
        "ral_env.envs.single.LatentCanvasEnv.metadata", {"render_modes": ["human"], "render_fps": 0}
    )
    watch("RALBundle-v0", str(tiny), episodes=2, seed=5, pause=0)
    assert [line[:6] for line in capsys.readouterr().out.splitlines()] == ["seed 5", "seed 6"]

    asked_to_close, steps = film._asked_to_close, itertools.count()

    def closing() -> bool:
        if next(steps) == 70:  # 64 to an episode
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return asked_to_close()

    monkeypatch.setattr(film, "_asked_to_close", closing)
    watch("RALBundle-v0", str(tiny), seed=5, pause=0)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert pygame.display.get_surface() is None


def test_selected_images_are_those_that_the_discriminator_keeps_of_as_many_candidates(
    tiny, tmp_path, capsys
):
    out = tmp_path / "one.png"
    command("RALBundle-v0", str(tiny), count=3, batch=4, seed=3, select=4, out=str(out))
    made, generator = bundle.load(tiny), torch.Generator().manual_seed(3)
    candidates = draw(made, 12, 4, generator=generator)
    expected = select_by_score(made, candidates, 4, generator)
    saved = np.load(out.with_suffix(".npz"))["level_0"]
    assert np.array_equal(saved, expected[0].numpy()) and saved.shape == (3, 8, 8)
    groups = candidates[0].view(3, 4, 8, 8)
    for kept, group in zip(expected[0], groups, strict=True):
        assert any(torch.equal(kept, candidate) for candidate in group)
    assert json.loads(out.with_suffix(".json").read_text())["canvases_drawn"] == 12
    assert "4 times the cost" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["discriminator_training", "discriminator"])
def test_nothing_is_selected_by_a_score_that_is_no_density_ratio(tiny, recipe):
    made = dataclasses.replace(bundle.load(tiny), recipe={recipe: {"loss": "wgan-gp"}})
    candidates = [torch.zeros(4, 8, 8, dtype=torch.int64)]
    with pytest.raises(ValueError, match="'wgan-gp'.*needs one of the loss 'logistic'"):
        select_by_score(made, candidates, 2, None)

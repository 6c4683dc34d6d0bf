"""``ral pretrain``: help in groups of plain sentences, and the commands that start it."""

import re
import subprocess
import sys
import warnings

import pytest
from PIL import Image

from pretrain.recipes import RECIPES
from ral_env import bundle
from ral_env.cli import main


def help_of(capsys) -> str:
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    return capsys.readouterr().out


def test_help_is_grouped_and_plain(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    text = help_of(capsys)
    assert "Args:" not in text and "``" not in text
    what, where, how = (text.index(f"\n{title}:") for title in (
        "what to train", "where to write", "how to compute"))  # fmt: skip
    groups = {
        "what": (
            text[what:where],
            ("--recipe", "--set", "--data", "--classes", "--flip", "--seed"),
        ),
        "where": (text[where:how], ("--out", "--work")),
        "how": (text[how:], ("--device", "--threads", "--inception")),
    }
    for section, options in groups.values():
        for option in options:
            found = re.search(
                rf"^  {option} .*?  +(\S.*?)( \((type|default|required)|$)", section, re.M | re.S
            )
            assert found, option
            sentence = found[1]
            assert sentence[0].isupper() and sentence.endswith("."), sentence
    assert all(name in text for name in RECIPES)


def test_set_help_lists_the_fields_of_the_recipe(capsys):
    assert main(["pretrain", "--recipe", "celeba128", "--set", "help"]) == 0
    assert "  priors.1.hidden=512  (int) " in capsys.readouterr().out


@pytest.mark.parametrize("module", ["pretrain", "pretrain.run"])
def test_modules_are_the_command_too(module):
    """As ``torchrun -m pretrain.run`` starts it."""
    command = [sys.executable, "-m", module, "--recipe", "digits", "--set", "help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("What --set can change in the recipe 'digits'")
    assert not done.stderr


@pytest.mark.parametrize("words", [[], ["--recipe", "list"]])
def test_without_a_recipe_all_are_listed(words, capsys):
    assert main(["pretrain", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {row[0]: row for row in ([c.strip() for c in line.split("|")[1:-1]] for line in lines)
            if row}  # fmt: skip
    assert set(RECIPES) < set(rows) and len(rows) == len(RECIPES) + 2
    assert rows["recipe"] == [
        "recipe", "image size", "grids", "codes", "VQ-VAE", "priors", "discriminator", "images",
        "minutes",
    ]  # fmt: skip
    _, size, grids, codes, _, priors, _, source, minutes = rows["celeba128"]
    assert (size, grids, codes) == ("128", "16x16 + 32x32", "512")
    assert priors == "239 + 284" and source == "celeba" and minutes == "", "never measured here"
    assert "--recipe small64 --data FOLDER" in lines[-1]


def test_classes_reach_the_bundle_and_its_command(tmp_path, capsys):
    for i in range(30):
        place = tmp_path / "images" / ("dark", "light")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (200 * (i % 2), i, i)).save(place / f"{i}.png")
    out = tmp_path / "bundle"
    few = ["vqvae_training.steps=2", "prior_training.steps=2", "feature_steps=2", "fakes=16",
           "discriminator_steps=2", "discriminator_batch=4", "other_discriminator.steps=2",
           "other_discriminator.batch=4", "selfsupervised.steps=2", "prior.hidden=8",
           "prior.layers=1"]  # fmt: skip
    words = ["--recipe", "small32", "--data", str(tmp_path / "images"), "--classes", "true"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two steps leave codes unused
        assert main(["pretrain", *words, "--out", str(out), "--work", str(tmp_path / "work"),
                     "--set", *few]) == 0  # fmt: skip
    made = bundle.load(out)
    assert made.features is not None and made.features.config.outputs == 2
    assert "--data DIR --classes true" in made.recipe["command"]

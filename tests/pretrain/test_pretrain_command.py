"""``ral pretrain``: help in groups of plain sentences, and the commands that start it."""

import re
import subprocess
import sys

import pytest

from pretrain.recipes import RECIPES
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
        "what": (text[what:where], ("--recipe", "--set", "--data", "--flip", "--seed")),
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

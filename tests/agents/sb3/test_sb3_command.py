"""``ral train --algo ppo``: options reach the config, old ones too; the help says what each is."""

from __future__ import annotations

import dataclasses
import re

import pytest

from agents.sb3.cli import GROUPS, make_parser, parse
from agents.sb3.config import Config


def test_options_reach_the_config():
    words = ["--env", "RALDigits-v0", "--kl_coef", "0.5", "--discriminator.loss", "hinge",
             "--settings", '{"n_epochs": 3}', "--threads", "2", "--seed", "7"]  # fmt: skip
    config, out, threads, resume = parse("ppo", words)
    training = dataclasses.replace(Config().discriminator, loss="hinge")
    assert config == Config(
        env="RALDigits-v0", kl_coef=0.5, discriminator=training, settings={"n_epochs": 3}, seed=7
    )
    assert out == "runs/RALDigits-v0-ppo-7" and threads == 2 and not resume


def test_without_options_the_config_is_the_default():
    config, out, *_ = parse("a2c", ["--out", "somewhere"])
    assert config == Config() and out == "somewhere"


@pytest.mark.parametrize("words", [["--kl", "1.5"], ["--kl=1.5"]])
def test_the_old_name_of_the_penalty_is_understood(words):
    with pytest.warns(FutureWarning, match="--kl is called --kl_coef now"):
        config, *_ = parse("ppo", words)
    assert config.kl_coef == 1.5


def test_every_setting_is_in_one_group_of_the_help():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(field.name for field in dataclasses.fields(Config))


def test_the_help_is_in_sentences_of_its_own():
    text = re.sub(r"\s+", " ", make_parser("ppo").format_help())
    assert "Args:" not in text and ":func:" not in text
    for title in GROUPS:
        assert f"{title}: --" in text
    for field in dataclasses.fields(Config):
        found = re.search(rf" --{field.name}(?: [A-Z_]+| {{[^}}]*}}) ([^ ]+)", text)
        assert found and (found[1][0].isupper()), field.name

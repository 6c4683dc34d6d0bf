"""A config refuses settings that are out of their range, when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from agents.sb3.config import Config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("canvases", 1),
        ("rollouts", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("kl_coef", -0.1),
        ("value_warmup", -1),
        ("max_nats", 0),
        ("discriminator_updates", -1),
        ("discriminator_warmup", -1),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name, value):
    changes: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name}={value}, expected a number in "):
        Config(**changes)


def test_settings_at_the_ends_of_their_ranges_are_taken():
    config = Config(
        canvases=2, rollouts=1, kl_coef=0, value_warmup=0, max_nats=float("inf"),
        discriminator_updates=0, discriminator_warmup=0,
    )  # fmt: skip
    assert config.learning_rate is None

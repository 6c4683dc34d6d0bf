"""Configs refuse what is out of range, in words."""

from dataclasses import dataclass
from typing import Any

import pytest

from ral_env.ranges import check_ranges


@dataclass(frozen=True)
class Config:
    value: Any = 0.5

    def __post_init__(self) -> None:
        check_ranges(self, value="[0, 1)")


@pytest.mark.parametrize("value", [0, 0.999, None, (0, 0.5), [0.25]])
def test_what_lies_in_the_range_passes(value):
    assert Config(value).value == value


@pytest.mark.parametrize(
    "value",
    [1, -1e-9, float("nan"), float("inf"), 10**309, "0.5x", True, (0.5, 1), [[2]], object],
    ids=lambda value: repr(value)[:12],
)
def test_what_does_not_is_refused_with_name_value_and_range(value):
    with pytest.raises(ValueError, match=r"^value=.*, expected a number in \[0, 1\)$"):
        Config(value)


def test_brackets_include_the_end_and_parentheses_do_not():
    for interval, inside in {
        "[0, 1]": (0, 1),
        "(0, 1)": (),
        "(0, 1]": (1,),
        "[0, 1)": (0,),
    }.items():
        for end in (0, 1):
            holder = type("Holder", (), {"end": end})()
            if end in inside:
                check_ranges(holder, end=interval)
            else:
                with pytest.raises(ValueError, match="end="):
                    check_ranges(holder, end=interval)

"""Ranges of settings: every frozen config checks its own fields with :func:`check_ranges`, every
command its further arguments with :func:`check_values`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

SEED = "[0, 4294967295]"  # what numpy, Gymnasium and PyTorch all take
COUNT = "[1, inf)"
THREADS = "[1, 1024]"  # OpenMP ends a process that asks for more than the system gives
_INTERVAL = re.compile(r"^([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])$")


def check_ranges(config: Any, **ranges: str) -> None:
    """Refuse a config that has a field outside its range.

    Called from ``__post_init__``: ``check_ranges(self, learning_rate="(0, inf)", ema="[0, 1)")``.
    A bracket includes the end, a parenthesis does not. A field that is None is not set and passes;
    of a tuple or list every item is looked at. NaN is in no range.

    Args:
        config: the dataclass.
        ranges: for each field, an interval as mathematics writes it.

    Raises:
        ValueError: names the first such field, what it is and what was expected.
    """
    check_values({name: getattr(config, name) for name in ranges}, **ranges)


def check_values(values: Mapping[str, Any], **ranges: str) -> None:
    """Refuse values outside their range: a command's arguments, which no config holds.

    Args:
        values: by name; the names without a range pass.
        ranges: as of :func:`check_ranges`.

    Raises:
        ValueError: as of :func:`check_ranges`.
    """
    for name, interval in ranges.items():
        value = values[name]
        items = value if isinstance(value, tuple | list) else (value,)
        if value is not None and not all(_inside(item, interval) for item in _flat(items)):
            raise ValueError(f"{name}={value!r}, expected a number in {interval}")


def _flat(items: Iterable[Any]) -> Iterable[Any]:
    for item in items:
        yield from _flat(item) if isinstance(item, tuple | list) else (item,)


def _inside(value: Any, interval: str) -> bool:
    found = _INTERVAL.match(interval)
    assert found, f"{interval!r} is no interval"
    left, low, high, right = found.groups()
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    above = number >= float(low) if left == "[" else number > float(low)
    below = number <= float(high) if right == "]" else number < float(high)
    return above and below

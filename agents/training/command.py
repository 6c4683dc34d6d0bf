"""A config's fields as options of a command."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


def add_config(parser: Any, config: type, groups: Mapping[str, Sequence[str]]) -> None:
    """An option for each field, in the help's groups.

    Args:
        parser: jsonargparse's.
        config: a dataclass; its docstring says what each field is.
        groups: the fields of each group, by its title; every field is in one.
    """
    fields = {field.name for field in dataclasses.fields(config)}
    assert sorted(fields) == sorted(name for names in groups.values() for name in names)
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        group.add_class_arguments(config, as_group=False, skip=fields.difference(names))


def make_config(parser: Any, arguments: Any, config: type) -> Any:
    """The config that was asked for.

    Raises:
        ValueError: if a setting is out of its range.
    """
    chosen = parser.instantiate(arguments)
    return config(**{field.name: chosen[field.name] for field in dataclasses.fields(config)})

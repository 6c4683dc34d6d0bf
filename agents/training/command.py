"""A config's fields as options of a command, and the bundle that its environment runs on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium as gym

from ral_env.bundle import Bundle
from ral_env.envs.single import LatentCanvasEnv
from ral_env.tasks import expect_ours


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


def load_bundle(env: str, bundle: str | None = None) -> Bundle:
    """The bundle that an environment runs on.

    Args:
        env: Id of the environment.
        bundle: Name or path of a bundle that replaces it; None, or the word ``null``, replaces
            none.

    Raises:
        ValueError: If the id is not one of this package, or there is no such bundle.
    """
    expect_ours(env)
    arguments: dict[str, Any] = {} if bundle in (None, "null") else {"bundle": bundle}
    made = gym.make(env, **arguments)
    made.close()
    return cast(LatentCanvasEnv, made.unwrapped).bundle

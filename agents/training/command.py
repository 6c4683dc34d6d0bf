"""What the commands of `ral train` share: the run's options, a config's, its folder, its bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium as gym

from agents.training.run_folder import stored_config
from ral_env.bundle import Bundle
from ral_env.envs.single import LatentCanvasEnv
from ral_env.tasks import expect_ours


def add_run(group: Any, folder: str, resume: str = "Go on with the run in --out.") -> None:
    """The options ``--out``, ``--resume`` and ``--threads`` in a group of a parser.

    Args:
        group: jsonargparse's.
        folder: what ``--out`` is if not given, in words.
        resume: the help of ``--resume``.
    """
    group.add_argument(
        "--out",
        type=str | None,
        help=f"Folder for everything that is written; {folder} if not given.",
    )
    group.add_argument("--resume", action="store_true", help=resume)
    group.add_argument(
        "--threads", type=int, default=1, help="Number of torch's threads; small nets want one."
    )


def default_folder(env: str, algo: str, seed: int | str) -> str:
    """Where a run goes unless told otherwise."""
    return f"runs/{env}-{algo}-{seed}"


def stored_settings(out: str, kind: str, config: type) -> dict[str, Any] | None:
    """The config's fields as the run in a folder was asked for them; None if there is no run.

    Args:
        out: the folder.
        kind: see :func:`agents.training.run_folder.stored_config`.
        config: a dataclass.
    """
    stored = stored_config(out, kind)
    if stored is None:
        return None
    fields = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in stored.items() if name in fields}


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

"""``--set PATH=VALUE``: change any field of a recipe, with help made from its dataclasses."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentError, ArgumentParser

from pretrain.configs import Recipe
from ral_env import migrations

# `prior.hidden` stands for the field `hidden` of each of `priors`.
EVERY_LEVEL = {
    "prior": "priors",
    "prior_training": "prior_trainings",
    "oracle": "oracles",
    "oracle_training": "oracle_trainings",
}


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A recipe with some fields changed.

    Args:
        recipe: The recipe; it stays as it is.
        assignments: Changes, each ``PATH=VALUE``. A path names fields from the recipe down:
            ``vqvae.hidden=64``; ``priors.0.hidden=64`` for one level, ``prior.hidden=64`` for all.
            Old names of fields are understood, see :mod:`ral_env.migrations`.

    Raises:
        ValueError: If there is no such field (the message names near matches), or the value is not
            of its type or out of range.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ValueError(f"--set {assignment!r}, expected PATH=VALUE, as in vqvae.hidden=64")
        first, _, rest = path.partition(".")
        first = EVERY_LEVEL.get(first, first)
        known = migrations.path(f"{first}.{rest}" if rest else first, "recipe", f"--set {path}")
        recipe = _changed(recipe, known.split("."), text, path)
    return recipe


def _is_levels(value: Any) -> bool:
    """Whether it is a tuple of configs, one per level."""
    return isinstance(value, tuple) and bool(value) and is_dataclass(value[0])


def _changed(value: Any, path: list[str], text: str, whole: str) -> Any:
    """A config, or a tuple of them, with the field at ``path`` set to what ``text`` says."""
    name, *rest = path
    if _is_levels(value):
        if not name.isdigit():
            return tuple(_changed(item, path, text, whole) for item in value)
        level = int(name)
        if level >= len(value) or not rest:
            raise ValueError(f"--set {whole}: expected a level from 0 to {len(value) - 1}, a field")
        return (*value[:level], _changed(value[level], rest, text, whole), *value[level + 1 :])
    if not is_dataclass(value) or isinstance(value, type):
        raise ValueError(f"--set {whole}: {name!r} is a field of a plain value, which has none")
    known = [field.name for field in fields(value)]
    if name not in known:
        near = difflib.get_close_matches(name, known) or known
        raise ValueError(
            f"--set {whole}: no field {name!r} in {type(value).__name__}, expected one of "
            f"{', '.join(near)}"
        )
    inner = getattr(value, name)
    if inner == ():
        raise ValueError(f"--set {whole}: the recipe has no {name}")
    if rest:
        return replace(value, **{name: _changed(inner, rest, text, whole)})
    if is_dataclass(inner) or _is_levels(inner):
        raise ValueError(f"--set {whole}: {name!r} has fields: name one of them, {whole}.FIELD")
    return replace(value, **{name: _parse(get_type_hints(type(value))[name], text, whole)})


def _parse(kind: Any, text: str, whole: str) -> Any:
    parser: Any = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        return parser.parse_args([f"--value={'null' if text == 'None' else text}"]).value
    except ArgumentError as error:
        raise ValueError(f"--set {whole}={text}: expected {kind} ({error})") from error


@dataclass(frozen=True)
class Setting:
    """A field that can be set.

    Args:
        group: Path of the config that has the field, empty for the recipe itself.
        name: Name of the field.
        kind: Its type, as a person would write it.
        value: Its present value.
        about: What it is, in a sentence.
    """

    group: str
    name: str
    kind: str
    value: Any
    about: str

    @property
    def path(self) -> str:
        """What ``--set`` calls it."""
        return f"{self.group}.{self.name}" if self.group else self.name


def settings(config: Any, group: str = "") -> Iterator[Setting]:
    """All fields that can be set: those of a config, then those of the configs within it."""
    docs, hints = _descriptions(type(config)), get_type_hints(type(config))
    within: list[tuple[str, Any]] = []
    for field in fields(config):
        value = getattr(config, field.name)
        path = f"{group}.{field.name}" if group else field.name
        if is_dataclass(value):
            within.append((path, value))
        elif _is_levels(value):
            within += [(f"{path}.{level}", item) for level, item in enumerate(value)]
        elif value != ():  # no level has such a net
            kind = hints[field.name]
            name = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            yield Setting(group, field.name, name, value, docs.get(field.name, ""))
    for path, value in within:
        yield from settings(value, path)


def _descriptions(config: type) -> dict[str, str]:
    """What a config's fields are, by name, from its docstring and those of its bases."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__[:-1]):
        for param in parse(inspect.getdoc(kind) or "").params:
            about = re.sub(r":\w+:`~?([^`]*)`", r"\1", param.description or "")
            found[param.arg_name] = " ".join(about.replace("``", "").split())
    return found


def help_text(recipe: Recipe) -> str:
    """All that can be set: a section for each config, in it a line for each field."""
    lines = [
        f"What --set can change in the recipe {recipe.name!r}, and the values that it has.",
        "",
        f"{', '.join(f'{name}.FIELD' for name in EVERY_LEVEL)} change the field at every level.",
    ]
    about = _descriptions(Recipe)
    group = None
    for setting in settings(recipe):
        if setting.group != group:
            group = setting.group
            name, _, level = group.partition(".")
            title = f"{group}: {about[name]}" if group else "The recipe:"
            lines += ["", title + (f" This is level {level}." if level else "")]
        kind = f"({setting.kind})"
        lines.append(f"  {setting.path}={setting.value!r}  {kind} {setting.about}".rstrip())
    return "\n".join(lines)

"""``--set PATH=VALUE``: change any field of a recipe, with help made from its dataclasses."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentError, ArgumentParser

from pretrain.recipes import Recipe

# What stands for every level's own: `prior.hidden` is the hidden of each of `priors`.
EVERY_LEVEL = {
    "prior": "priors",
    "prior_training": "prior_trainings",
    "oracle": "oracles",
    "oracle_training": "oracle_trainings",
}


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A recipe with some fields changed.

    Args:
        assignments: ``PATH=VALUE`` each. A path names fields from the recipe down:
            ``vqvae.hidden=64``; ``priors.0.hidden=64`` for one level, ``prior.hidden=64`` for all.

    Raises:
        ValueError: if there is no such field (names near matches), or the value is not of its type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ValueError(f"--set {assignment!r}, expected PATH=VALUE, as in vqvae.hidden=64")
        first, *rest = path.split(".")
        recipe = _changed(recipe, [EVERY_LEVEL.get(first, first), *rest], text, path)
    return recipe


def _changed(value: Any, path: list[str], text: str, whole: str) -> Any:
    name, *rest = path
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        if not name.isdigit():
            return tuple(_changed(item, path, text, whole) for item in value)
        index = int(name)
        if index >= len(value) or not rest:
            raise ValueError(f"--set {whole}: expected a level from 0 to {len(value) - 1}, a field")
        return (*value[:index], _changed(value[index], rest, text, whole), *value[index + 1 :])
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
    if rest:
        return replace(value, **{name: _changed(inner, rest, text, whole)})
    if is_dataclass(inner) or (isinstance(inner, tuple) and inner and is_dataclass(inner[0])):
        raise ValueError(f"--set {whole}: {name!r} has fields of its own: name one, {whole}.FIELD")
    return replace(value, **{name: _parse(get_type_hints(type(value))[name], text, whole)})


def _parse(kind: Any, text: str, whole: str) -> Any:
    parser: Any = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        return parser.parse_args([f"--value={'null' if text == 'None' else text}"]).value
    except ArgumentError as error:
        raise ValueError(f"--set {whole}={text}: expected {kind} ({error})") from error


def paths(value: Any, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Every path that can be set: the path, its type, its present value, what it is."""
    docs = {
        p.arg_name: p.description or "" for p in parse(inspect.getdoc(type(value)) or "").params
    }
    for base in type(value).__mro__[1:-1]:
        inherited = parse(inspect.getdoc(base) or "").params
        docs = {p.arg_name: p.description or "" for p in inherited} | docs
    hints = get_type_hints(type(value))
    for field in fields(value):
        inner, path = getattr(value, field.name), f"{prefix}{field.name}"
        if is_dataclass(inner):
            yield from paths(inner, f"{path}.")
        elif isinstance(inner, tuple) and inner and is_dataclass(inner[0]):
            for level, item in enumerate(inner):
                yield from paths(item, f"{path}.{level}.")
        else:
            kind = hints[field.name]
            name = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            yield path, name, inner, " ".join(docs.get(field.name, "").split())


def help_text(recipe: Recipe) -> str:
    """What can be set, a line each."""
    lines = [f"What --set can change in the recipe {recipe.name!r}:", ""]
    for path, kind, value, about in paths(recipe):
        lines.append(f"  {path}={value!r}  ({kind}) {about}".rstrip())
    lines += ["", f"For all levels at once: {', '.join(f'{one}.FIELD' for one in EVERY_LEVEL)}."]
    return "\n".join(lines)

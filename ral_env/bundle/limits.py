"""What a manifest may say: its fields, their types, and limits of their sizes.

A bundle may come from anyone. Everything that its manifest says is checked here, before a net is
built or a file opened: no number in it can make reading take long or fill the memory. Both then
grow with the sizes of the files that are there.
"""

from __future__ import annotations

import re
import types
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

MANIFEST_BYTES = 2**24
DEPTH = 32  # of JSON within JSON
TEXT = 10_000  # characters of what is shown to people
NETS = 64  # in a bundle
LEVELS = 8
CELLS = 2**18  # codes of a canvas; the paper's largest has 5,120
SIZE = 2**16  # any number in a net's config: channels, codes, pixels, layers
SPLITS = ("train", "validation", "test")  # of every bundle
NUMBER = 1e30  # any other number

Pattern = Any  # see :func:`misfit`


def misfit(value: Any, pattern: Pattern, where: str = "it") -> str | None:
    """Where and how JSON does not fit a pattern, in words; None if it fits.

    Args:
        value: what was read.
        pattern: a predicate; or for an object a dict of patterns by field, all of which are
            expected, or one by a predicate of all names; or for a list a list of one pattern.
        where: what the value is called.
    """
    if isinstance(pattern, dict):
        if not isinstance(value, dict):
            return f"{where} is {_short(value)}, expected fields"
        every = next(iter(pattern))
        if callable(every):
            if odd := [name for name in value if not every(name)]:
                return f"{where} has the name {_short(odd[0])}"
            pattern = dict.fromkeys(value, pattern[every])
        if missing := [name for name in pattern if name not in value]:
            return f"{where} has no {missing[0]!r}"
        wrong = (misfit(value[name], inner, name) for name, inner in pattern.items())
    elif isinstance(pattern, list):
        if not isinstance(value, list):
            return f"{where} is {_short(value)}, expected a list"
        wrong = (misfit(inner, pattern[0], f"{where}[{n}]") for n, inner in enumerate(value))
    else:
        return None if pattern(value) else f"{where} is {_short(value)}"
    return next(filter(None, wrong), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def whole(low: int, high: int) -> Callable[[Any], bool]:
    """A predicate: whether it is an int from ``low`` to ``high``."""
    return lambda value: type(value) is int and low <= value <= high


def positive(value: Any) -> bool:
    """Whether it is a number above 0, and of a size that floats have."""
    return type(value) in (int, float) and 0 < value <= NUMBER


def is_text(value: Any) -> bool:
    """Whether it is text that can be shown and written anywhere; it may be empty."""
    return isinstance(value, str) and len(value) <= TEXT and value.isprintable()


def is_file_name(value: Any) -> bool:
    """Whether it is the name of a file in the bundle's folder."""
    return isinstance(value, str) and bool(re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,99}", value))


def _is_anything(value: Any) -> bool:
    return True


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_side(value: Any) -> bool:
    return value in ("image", "codes")


FORMAT_4: Pattern = {
    "version": is_text,
    "dataset": is_text,
    "recipe": _is_object,
    "layout": {"levels": [[whole(1, SIZE)]], "num_codes": whole(1, SIZE)},
    "codes": {"file": is_file_name, "packed": lambda value: isinstance(value, bool)},
    "splits": {is_text: [whole(0, 2**40)]},
    "nets": {is_file_name: {"file": is_file_name, "config": {is_text: _is_anything}}},
    "discriminators": [{"input": _is_side, "reward_scale": positive}],
    "features": [is_file_name],
    "test_features": {is_file_name: {"file": is_file_name, "of": is_text}},
    "files": {is_file_name: is_text},
}


def wrong_fields(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with the fields of a manifest of format 4, in words; None if nothing is."""
    if wrong := misfit(manifest, FORMAT_4):
        return wrong
    levels, inputs = manifest["layout"]["levels"], [d["input"] for d in manifest["discriminators"]]
    if not 1 <= len(levels) <= LEVELS or any(len(grid) != 2 for grid in levels):
        return f"levels are {_short(levels)}, expected 1 to {LEVELS} of (rows, columns)"
    if (cells := sum(rows * columns for rows, columns in levels)) > CELLS:
        return f"levels have {cells} cells, expected at most {CELLS}"
    splits = manifest["splits"]
    if any(len(edges) != 2 for edges in splits.values()) or not {*SPLITS} <= set(splits):
        return f"splits are {_short(splits)}, expected {SPLITS} with two numbers each"
    for name in ("discriminators", "nets"):
        if not 1 <= len(manifest[name]) <= NETS:
            return f"it has {len(manifest[name])} {name}, expected 1 to {NETS}"
    for names in (inputs, manifest["features"]):
        if len(set(names)) < len(names):
            return f"names are given twice: {_short(names)}"
    if wrong := _wrong_stems(list(manifest["nets"]), inputs, manifest["features"]):
        return wrong
    # Read with the manifest, where all else in a net's config is read with its weights.
    size = manifest["nets"]["vqvae"]["config"].get("image_size")
    return None if whole(1, SIZE)(size) else f"image_size of its VQ-VAE is {_short(size)}"


def _wrong_stems(
    stems: Sequence[str], inputs: Sequence[str], features: Sequence[str]
) -> str | None:
    """Which net is listed and not there, or there and not listed; None if all are both."""
    held: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        held[stem.partition("_")[0]].append(stem)
    listed = {"vqvae": ["vqvae"]}
    listed["discriminator"] = [f"discriminator_{input}" for input in inputs]
    listed["features"] = [f"features_{name}" for name in features]
    for kind in ("prior", "policy", "oracle"):  # one for each level from 0 on
        listed[kind] = [f"{kind}_{level}" for level in range(len(held[kind]))]
    for kind in {**listed, **held}:
        if sorted(listed.get(kind, [])) != sorted(held[kind]):
            return f"it lists {listed.get(kind, [])}, and holds {held[kind]}"
    return None


def depth(value: Any) -> int:
    """How deep JSON is nested; it is looked at level by level, not recursively."""
    found, level = 0, [value]
    while level:
        found += 1
        holders = (list(v.values()) if isinstance(v, dict) else v for v in level)
        level = [inner for held in holders if isinstance(held, list) for inner in held]
    return found


def wrong_config(kind: type, values: Mapping[str, Any]) -> str | None:
    """What is wrong with a stored config of a net, in words; None if nothing is.

    Args:
        kind: the config's dataclass, which may still refuse how its fields go together.
        values: its fields; tuples are lists.
    """
    hints = get_type_hints(kind)
    if unknown := [name for name in values if name not in hints]:
        return f"{unknown[0]!r} is no field of {kind.__name__}"
    for field in fields(kind):
        if field.name not in values and field.default is MISSING:
            return f"{field.name!r} of {kind.__name__} is missing"
    for name, value in values.items():
        if not _fits(value, hints[name]):
            expected = getattr(hints[name], "__name__", hints[name])
            return f"{name} is {_short(value)}, expected {expected} of at most {SIZE}"
    return None


def _fits(value: Any, hint: Any) -> bool:
    """Whether JSON is of the type that a field of a config has, and no larger than any may be."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, inner) for inner in get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        of_that_length = isinstance(value, list) and len(value) == len(inner)
        return of_that_length and all(map(_fits, value, inner))
    if hint is float:
        return type(value) in (int, float) and abs(value) <= SIZE  # NaN is not
    if hint is int:
        return type(value) is int and 0 <= value <= SIZE
    return is_text(value) if hint is str else type(value) is hint

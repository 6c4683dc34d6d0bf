"""Old names, and what they are called now: the one table of all that is stored or typed.

Whoever renames an option, a field of a config, a column of a table, a class or a module that files
or commands may name adds a line here. Old ones are read for as long as the line stands, with a
:class:`FutureWarning` that names the new one. It loads nothing but the standard library.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

# Modules: environment specs and pickles name them.
MODULES = {
    "ral_env.env": "ral_env.envs.single",
    "ral_env.vector": "ral_env.envs.vector",
    "ral_env.wrappers": "ral_env.envs.wrappers",
    "ral_env.own": "ral_env.bundle.custom",
    "ral_env.nets.slow": "ral_env.nets.uncached",
    "agents.discriminator": "agents.training.discriminator",
    "agents.mle": "agents.training.fit",
    "agents.run": "agents.training.run_folder",
    "agents.metrics": "agents.evaluation.metrics",
    "agents.evaluate": "agents.evaluation.evaluator",
}

# Classes and functions: where a module that is still there no longer has them.
NAMES = {
    "agents.sb3.HindsightRewards": "agents.sb3.StepRewards",
    "agents.sb3.callbacks.HindsightRewards": "agents.sb3.callbacks.StepRewards",
    "agents.training.Training": "agents.training.optimise.Training",
    "agents.training.Processes": "agents.training.processes.Processes",
    "agents.training.Checkpoint": "agents.training.checkpoint.Checkpoint",
    "ral_env.nets.cache.Part": "ral_env.nets.noise.SharedGenerator",
    "ral_env.nets.cache.gumbel": "ral_env.nets.noise.gumbel",
    "ral_env.nets.SlowPrior": "ral_env.nets.UncachedPrior",
    "ral_env.bundle.custom.OwnBundle": "ral_env.bundle.Bundle",
    "ral_env.bundle.custom.SlowPrior": "ral_env.nets.UncachedPrior",
    "benchmarks.demo.Generator": "agents.evaluation.evaluator.TemperedPrior",
    "pretrain.redraw.redraw": "pretrain.redraw.redraw_oracle",
}

# Fields, by what holds them: options of its command, its config.json, the settings in its
# checkpoints. Dots reach into configs within configs.
FIELDS: dict[str, dict[str, str]] = {
    "reinforce": {
        "batch": "canvases",
        "warmup": "discriminator_warmup",
        "kl_weight": "kl_loss_coef",
        "entropy_weight": "ent_coef",
        "mle_weight": "mle_coef",
    },
    "rounds": {},
    "sb3": {
        "kl": "kl_coef",
    },
    "checkpoint": {"game": "train_state"},  # of REINFORCE
    "recipe": {},
    "sample": {"way": "backend"},
    "training": {},  # checkpoints of one training
}

# A pretraining's config.json holds its recipe.
FIELDS["pretrain"] = {f"recipe.{old}": f"recipe.{new}" for old, new in FIELDS["recipe"].items()}

# Fields that came later, and what files without them mean, as in FIELDS.
ADDED: dict[str, dict[str, Any]] = {
    "training": {"context_noise": 0.0},
    "reinforce": {"guard_every": 0, "guard_nll": 1.01, "guard_patience": 10},
    "rounds": {"seconds": None, "elites": 0.0},
    "pretrain": {
        "recipe.prior_trainings.context_noise": 0.0,
        "recipe.oracle_trainings.context_noise": 0.0,
        "recipe.features.pool": 1,
        "recipe.vqvae.blocks": 2,
        "recipe.vqvae.narrow": False,
        "recipe.vqvae.enlarge": 1,
    },
}

# A recipe once had one prior and one oracle, not one of each for a level.
ONE_LEVEL = {
    "prior": "priors",
    "prior_training": "prior_trainings",
    "oracle": "oracles",
    "oracle_training": "oracle_trainings",
}

# Fields of stages that came later. A run from before had no such stages: it goes on with whatever
# is asked for now.
LATER_STAGES: dict[str, tuple[str, ...]] = {
    "pretrain": ("recipe.other_discriminator", "recipe.selfsupervised"),
}

# Columns of CSV files and keys of JSON results.
COLUMNS: dict[str, str] = {
    "test_nats": "forward_nll",
    "prior_test_nats": "prior_forward_nll",
    "FD": "fd",
    "FD - control": "fd_minus_control",
    "FD - MLE": "fd_minus_mle",
    "FD low": "fd_minus_mle_low",
    "FD high": "fd_minus_mle_high",
    "forward NLL": "forward_nll",
    "forward NLL - MLE": "forward_nll_minus_mle",
    "NLL_oracle": "nll_oracle",
    "oracle entropy": "oracle_entropy",
    "reverse KL": "reverse_kl",
    "reverse KL - MLE": "reverse_kl_minus_mle",
    "forward KL": "forward_kl",
    "temperature of MLE": "mle_temperature",
    "given": "seconds",
}


def renamed(values: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """``values`` under the names of today, with the fields that came later.

    Args:
        values: fields as they were stored; those of configs within are mappings, too.
        kind: whose fields, a key of :data:`FIELDS`.
        where: what they come from, for the warning.
    """
    found = copy.deepcopy(dict(values))
    for old, new in FIELDS[kind].items():
        holders, name = _holders(found, old)
        for holder in holders:
            if name in holder:
                holder[new.rpartition(".")[2]] = holder.pop(name)
                _warn(old, new, where)
    for added, value in ADDED.get(kind, {}).items():
        holders, name = _holders(found, added)
        for holder in holders:
            holder.setdefault(name, value)
    return found


def recipe(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A stored recipe as it would be written today, as far as it says so.

    Early ones had one level, and said ``decay`` of two things: whether the learning rate falls, and
    how fast the codebook forgets.

    Args:
        values: the recipe in a manifest.
        where: what it comes from, for the warning.
    """
    found = renamed(values, "recipe", where)
    if isinstance(found.get("prior"), dict) and "priors" not in found:
        if not found.get("oracle"):  # its training was there all the same
            found["oracle_training"] = None
        for old, new in ONE_LEVEL.items():
            found[new] = [one] if (one := found.pop(old, None)) else []
    for field in ("prior_trainings", "oracle_trainings", "vqvae_training"):
        holders, name = _holders(found, f"{field}.decay")
        for training in holders:
            if name in training:
                decay = training.pop(name)
                falls = {"schedule": "cosine" if decay else "constant"}
                training |= {"codebook_decay": decay} if field == "vqvae_training" else falls
    return found


def checkpoint(stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a checkpoint of a policy's training holds, under the names of today.

    Args:
        stored: its state.
        where: what it comes from, for the warning.
    """
    found = renamed(stored, "checkpoint", where)
    if "iteration" not in found:  # of rounds
        found["iteration"] = found["train_state"]["round"]
    found.setdefault("rows", found["iteration"])  # one an iteration
    return found


def with_later_stages(
    values: Mapping[str, Any], asked: Mapping[str, Any], kind: str
) -> dict[str, Any]:
    """A stored config with the fields that it lacks of stages that came later, as now asked for.

    Args:
        values: the stored config, under the names of today.
        asked: what is asked for now.
        kind: whose fields, a key of :data:`FIELDS`.
    """
    found = copy.deepcopy(dict(values))
    for later in LATER_STAGES.get(kind, ()):
        holders, name = _holders(found, later)
        wanted, _ = _holders(dict(asked), later)
        for holder, now in zip(holders, wanted, strict=False):
            if name in now:
                holder.setdefault(name, now[name])
    return found


def _holders(values: dict[str, Any], path: str) -> tuple[list[dict[str, Any]], str]:
    """The mappings that have, or could have, the field at a dotted path, and the field's name."""
    *steps, name = path.split(".")
    holders: list[Any] = [values]
    for step in steps:
        inner = [held[step] for held in holders if isinstance(held, dict) and step in held]
        holders = [one for many in inner for one in (many if isinstance(many, list) else [many])]
    return [holder for holder in holders if isinstance(holder, dict)], name


def columns(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row of a stored table, of a CSV or a JSON file, under the names of today.

    Args:
        row: its cells by column.
        where: what it comes from, for the warning.
    """
    for name in row:
        if name in COLUMNS:
            _warn(name, COLUMNS[name], where)
    return {COLUMNS.get(name, name): cell for name, cell in row.items()}


def path(path: str, kind: str, where: str) -> str:
    """A dotted path to a field under the names of today; numbers in it are places in a list.

    Args:
        kind: whose field, a key of :data:`FIELDS`.
        where: what it comes from, for the warning.
    """
    steps = path.split(".")
    names = [i for i, step in enumerate(steps) if not step.isdigit()]
    new = FIELDS[kind].get(".".join(steps[i] for i in names))
    if new is None:
        return path
    _warn(path, new, where)
    for i, step in zip(names, new.split("."), strict=True):
        steps[i] = step
    return ".".join(steps)


def options(arguments: Sequence[str], kind: str) -> list[str]:
    """Arguments of a command under the names of today; words of an option may be joined by dashes.

    Args:
        kind: whose options, a key of :data:`FIELDS`.
    """
    found = []
    for word in arguments:
        option, equals, value = word.partition("=")
        name = option[2:].replace("-", "_")
        if option.startswith("--") and name in FIELDS[kind]:
            new = FIELDS[kind][name]
            _warn(option, f"--{new}", "the command")
            word = f"--{new}{equals}{value}"
        found.append(word)
    return found


def old_keywords(kind: str) -> Callable[[Function], Function]:
    """Decorator of a function that takes its keyword arguments under their old names, too.

    Args:
        kind: whose arguments, a key of :data:`FIELDS`.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            return function(*args, **renamed(keywords, kind, "a keyword argument"))

        return cast(Function, call)

    return decorate


def old_names(module: str) -> Callable[[str], Any]:
    """A module's ``__getattr__``: what it no longer has, from where it is now."""

    def find(name: str) -> Any:
        new = NAMES.get(f"{module}.{name}")
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", new, "an import")
        return resolve(new)

    return find


def resolve(path: str) -> Any:
    """The object that a full dotted path names."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(f"no module of {path!r}")


def _warn(old: str, new: str, where: str) -> None:
    warnings.warn(f"{old} is called {new} now ({where})", FutureWarning, stacklevel=4)


class _OldModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets an old module's name stand for the module of today."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = MODULES[module.__name__]
        _warn(module.__name__, new, "an import")
        sys.modules[module.__name__] = importlib.import_module(new)


def install() -> None:
    """Let old modules be imported; the second call does nothing."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())

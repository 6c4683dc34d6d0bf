"""Which bundle an environment id runs on: the one it is named after, or a stand-in."""

from __future__ import annotations

import os
import warnings

from ral_env import StandInWarning
from ral_env.bundle import manifest as manifests
from ral_env.bundle.parts import Bundle
from ral_env.bundle.places import find, home, named
from ral_env.tasks import Task


def choose(task: Task) -> tuple[str, bool]:
    """Name of the bundle that an id runs on unless told otherwise, and whether it stands in."""
    there = named(task.bundle) is not None
    return (task.bundle, False) if there or not task.stand_in else (task.stand_in, True)


def place(name: str) -> str:
    """Where the user's bundle of that name belongs, as a command may say it."""
    root = home()
    return f"$RAL_ENV_HOME/bundles/{name}" if root is None else str(root / name)


def load_named(name: str, verify: bool = True) -> Bundle:
    """The bundle of that name, whatever folder of that name there is.

    Raises:
        ValueError: if there is none.
    """
    from ral_env.bundle.store import load  # needs torch, as what is above does not

    return load(named(name) or name, verify)


def trained_on(name: str) -> str:
    """What the bundle of that name was trained on, in words. Only its manifest is read.

    Raises:
        BundleError: if that is not what it should be, or speaks of a file that is not there.
        ValueError: if there is no such bundle.
    """
    file = find(named(name) or name) / "manifest.json"
    fields = manifests.parse(file)[1]
    manifests.check_files(file, fields)
    return fields["dataset"]


def make_command(task: Task) -> str:
    """The command that makes the bundle that an id is named after."""
    return f"ral pretrain --recipe {task.bundle} --data FOLDER --out {place(task.bundle)}"


def for_task(
    task: Task, bundle: str | os.PathLike[str] | Bundle | None = None, required: bool = False
) -> Bundle:
    """The bundle that an environment id runs on.

    Args:
        task: what the id stands for.
        bundle: name, path or loaded bundle that is to be used; None takes the id's own, or where
            that is not to be found, its stand-in.
        required: refuse the stand-in.

    Warns:
        StandInWarning: if it is the stand-in; names the command that makes the other.

    Raises:
        ValueError: if there is no such bundle, its images or grids are not the id's, or it would be
            the stand-in and ``required`` forbids it.
    """
    if bundle is None:
        found = _default(task, required)
    else:
        from ral_env.bundle.store import load

        found = load(bundle) if isinstance(bundle, str | os.PathLike) else bundle
    size, layout = found.image_size, found.layout
    expected = (task.image_size, task.levels, task.num_codes)
    if (size, layout.levels, layout.num_codes) != expected:
        raise ValueError(
            f"{task.id} has images of {task.image_size} pixels and grids {task.levels} of "
            f"{task.num_codes} codes, but the bundle {found!r} has {size} pixels and grids "
            f"{layout.levels} of {layout.num_codes} codes: choose another bundle, another id (`ral "
            "envs` lists them), or RALBundle-v0, which takes a bundle of any shape"
        )
    return found


def _default(task: Task, required: bool) -> Bundle:
    """The bundle that an id is named after, or its stand-in with a warning."""
    name, stands_in = choose(task)
    if not stands_in:
        return load_named(name)
    missing = (
        f"{task.id}: no bundle {task.bundle!r} was found, which is trained on {task.images}. "
        f"Make it with `{make_command(task)}`"
    )
    if required:
        raise ValueError(f"{missing}, or leave bundle_required out to run on a stand-in.")
    bundle = load_named(name)
    warnings.warn(
        f"{missing}. Until then it runs on the stand-in {name!r}: {bundle.dataset}.",
        StandInWarning,
        stacklevel=3,
    )
    return bundle

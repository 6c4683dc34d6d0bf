"""Bundles are loaded, and saved whole or not at all."""

from __future__ import annotations

import copyreg
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ral_env.bundle.folder import nets_by_stem, read, write
from ral_env.bundle.packing import packed_bytes
from ral_env.bundle.parts import Bundle, from_nets
from ral_env.bundle.places import absolute, find
from ral_env.bundle.verify import obstacle, verify_bundle, wrong_codes
from ral_env.files import check_room, locked, told


def load(name_or_path: str | os.PathLike[str], verify: bool = True) -> Bundle:
    """Open a bundle, by name or by path. Its nets are built when they are first asked for.

    Args:
        name_or_path: a bare word is a name, of a shipped bundle or of one in
            :func:`ral_env.bundle.home`, or where there is none, a folder; a ``Path``, and what has
            a separator in it, is a path.
        verify: check every hash, weight shape and code at once. Without, only that the files exist;
            the hash of each is checked when it is read.

    Raises:
        BundleError: names the file that is missing, cut, altered or of another format. A manifest
            of format 4 is checked in any case, by its checksum.
        ValueError: no such bundle, or a word that is a name and a folder.
    """
    bundle = read(find(name_or_path))
    if verify:
        verify_bundle(bundle)
    return bundle


def save(
    path: str | os.PathLike[str],
    bundle: Bundle | None = None,
    *,
    metrics: Mapping[str, Any],
    half: bool = False,
    **parts: Any,
) -> Path:
    """Write a bundle in format 4, whole or not at all; one that is there already is replaced.

    ``save(path, dataclasses.replace(bundle, priors=policies), metrics={})`` writes a loaded bundle
    with other priors; ``save(path, vqvae=..., codes=..., ..., metrics={})`` writes trained nets.

    Args:
        path: the bundle's folder.
        bundle: what is written. Codes that are a memory map are copied some rows at a time.
        metrics: JSON-able numbers that were measured on it.
        half: store weights in 16 bits, which halves the files; they are loaded as 32 bits.
        parts: instead of ``bundle``, the arguments of :func:`ral_env.bundle.from_nets`.

    Returns:
        The absolute folder.

    Raises:
        ValueError: if the parts do not fit each other, a split other than ``"tuning"`` is missing
            or two of them share rows, a net is not of this package's kinds (see :func:`storable`),
            or ``path`` exists and is no bundle.
        DiskError: if it cannot be written, or there is no room; what was there stays.
    """
    path = absolute(path)
    check_place(path)
    if bundle is None:
        bundle = from_nets(**parts)
    elif parts:
        raise TypeError(f"{', '.join(parts)} given beside a bundle: use dataclasses.replace")
    if why := obstacle(bundle):
        raise ValueError(f"{bundle!r} cannot be saved: {why}")
    if why := wrong_codes(bundle):
        raise ValueError(f"{bundle!r} cannot be saved: its codes array {why}")

    fresh = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    size = size_of(bundle, half)
    with told(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(path.parent, size, f"bundle {path.name}")
        with locked(path.parent, wait=True) as alone:
            if alone:
                _recover(path)
            try:
                fresh.mkdir()
                write(fresh, bundle, metrics, half)
                load(fresh)  # what would not load is not kept
                _replace(fresh, path)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
    return path


def check_place(path: Path) -> None:
    """See that a bundle may be saved there, which would replace one that is there already.

    Raises:
        ValueError: if something else is there.
    """
    if path.exists() and not (path / "manifest.json").is_file():
        raise ValueError(f"{path} exists and is not a bundle: choose another path or remove it")


def recover(path: str | os.PathLike[str]) -> None:
    """Put a bundle back that was lost when its writer died, and remove what writers have left.

    :func:`save` does so, too. While another process saves in the same folder, nothing is done.
    """
    path = Path(path)
    with locked(path.parent, wait=False) as alone:
        if alone:
            _recover(path)


def _recover(path: Path) -> None:
    for old in path.parent.glob(f".{path.name}.????????.old"):
        if path.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, path)
    for fresh in path.parent.glob(f".{path.name}.????????"):
        shutil.rmtree(fresh)


def size_of(bundle: Bundle, half: bool = False) -> int:
    """Bytes that a bundle's files need, about; 0 if it cannot be saved.

    Args:
        half: whether weights are stored in 16 bits.
    """
    if bundle.path:
        return sum(file.stat().st_size for file in bundle.path.iterdir())
    if not storable(bundle):
        return 0
    weights = [v for net in nets_by_stem(bundle).values() for v in net.state_dict().values()]
    flat = bundle.flat_codes
    return (
        sum(value.numel() * value.element_size() for value in weights) // (1 + half)
        + len(flat) * packed_bytes(flat.shape[1], bundle.layout.num_codes)
        + sum(stored.values.nbytes for stored in bundle.test_features.values())
    )


def storable(bundle: Bundle) -> bool:
    """Whether :func:`save` can write this bundle.

    Its nets have to be this package's own, which are made again from their configs. A codec or a
    prior of another make has none: only its weights can be saved. Its parts have to fit each other,
    and no two of its splits may share rows.
    """
    return obstacle(bundle) is None


def _replace(fresh: Path, path: Path) -> None:
    """Rename ``fresh`` to ``path``; an old folder there is deleted only when that has succeeded."""
    if not path.exists():
        os.rename(fresh, path)
        return
    old = fresh.with_name(fresh.name + ".old")
    os.rename(path, old)
    try:
        os.rename(fresh, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old)


def _reduce(bundle: Bundle) -> Any:
    """How a bundle is pickled and copied: one that was read from a folder is opened there again.

    A pickled memory map would carry its data along.
    """
    if bundle.path:
        return load, (str(bundle.path), False)
    return object.__reduce_ex__(bundle, 4)


copyreg.pickle(Bundle, _reduce)

"""Where bundles are: those that ship with the package, the user's, and any other folder."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ral_env.bundle import hub

SHIPPED = Path(__file__).parents[1] / "bundles"


def home() -> Path | None:
    """The folder of the user's own bundles, ``$RAL_ENV_HOME/bundles``.

    Without that variable it is in the home folder, and None where there is none either, as in some
    containers.
    """
    root = os.environ.get("RAL_ENV_HOME")
    if root:
        return absolute(root) / "bundles"
    folder = os.path.expanduser("~")
    return None if folder.startswith("~") else Path(folder, ".cache", "ral_env", "bundles")


def _roots() -> list[Path]:
    """The folders that bundles are looked up in by name: shipped ones first."""
    own = home()
    return [SHIPPED] if own is None else [SHIPPED, own]


def names() -> list[str]:
    """Names of the bundles found: those shipped with the package, and the user's."""
    return sorted({file.parent.name for root in _roots() for file in _manifests(root)})


def _manifests(root: Path) -> list[Path]:
    # A leading dot marks a bundle that is being written.
    return [file for file in root.glob("*/manifest.json") if not file.parent.name.startswith(".")]


def named(name: str) -> Path | None:
    """The folder of the bundle of that name, a shipped one or else the user's; None without one."""
    return next((root / name for root in _roots() if _holds_bundle(root / name)), None)


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The absolute folder of a bundle.

    A ``Path``, and what has a separator in it, is a path; a bare word is a name, or where no bundle
    has that name, a folder. ``hub:OWNER/NAME@REVISION`` is on the Hugging Face Hub, and is fetched
    (:mod:`ral_env.bundle.hub`).

    Raises:
        ValueError: if there is none, and what else there is; or if a word names one bundle and is
            also a folder that holds another.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and text.startswith(hub.SCHEME):
        return hub.fetch(text)
    if isinstance(name_or_path, os.PathLike) or Path(text).name != text:
        folder = absolute(text)
        if not _holds_bundle(folder):
            raise ValueError(f"no bundle {text!r}: no manifest.json in {folder}. {_known(text)}")
        return folder
    found, here = named(text), Path(text).absolute()
    if found is None and not _holds_bundle(here):
        places = " and ".join(map(str, _roots()))
        raise ValueError(f"no bundle {text!r} in {places}. {_known(text)}")
    if found is None or not _holds_bundle(here) or here.samefile(found):
        return found or here
    raise ValueError(
        f"{text!r} is the name of a bundle and a folder here: write {str(found)!r} for the one, "
        f"{os.path.join(os.curdir, text)!r} for the other"
    )


def _known(text: str) -> str:
    """What there is in place of a bundle that was not found."""
    near = difflib.get_close_matches(Path(text).name, names())
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {names()}."
    return (
        f"{hint} `ral pretrain` makes a bundle; reinstalling ral-env brings the shipped ones back."
    )


def _holds_bundle(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def absolute(path: str | os.PathLike[str]) -> Path:
    """An absolute path, which stays right when the working folder changes; ``~`` is home."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"{os.fspath(path)!r} begins with ~, and no such home folder is known: write the path "
            "in full"
        ) from error

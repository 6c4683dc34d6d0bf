"""Bundles on the Hugging Face Hub: ``hub:OWNER/NAME`` or ``hub:OWNER/NAME@REVISION``.

Only a manifest, and the safetensors and npy files that it lists, are ever asked for: no pickle is
fetched, whatever else the repository holds. Each file is compared with the SHA-256 in the manifest
before anything opens it. The Hub's own cache keeps them.
"""

from __future__ import annotations

import re
from pathlib import Path

from ral_env import __version__
from ral_env.bundle import manifest as manifests
from ral_env.bundle.manifest import BundleError
from ral_env.files import sha256

SCHEME = "hub:"
FETCHED = (".safetensors", ".npy")
_ADDRESS = re.compile(
    r"hub:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>(?!.*[.][.])[\w.][\w./-]*))?", re.ASCII
)


def fetch(address: str) -> Path:
    """The folder, on this machine, of a bundle on the Hub; what is not there yet is downloaded.

    A revision is a branch (``main`` if not given), a tag or a commit. What a branch or tag is now
    is asked each time; without a connection it is what it was last time. A commit that is here is
    not asked for again.

    Raises:
        ValueError: if it is no such address, huggingface_hub is not installed, there is no such
            repository, revision or bundle, it may not be read, or it cannot be reached and is not
            here.
        BundleError: if the manifest is not what it should be, lists a file of another kind, or a
            file is not what the manifest says. That file is not kept.
    """
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise ValueError(f"bundle {address!r}, expected hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    repository, revision = found["repository"], found["revision"] or "main"
    manifest = _download(address, repository, "manifest.json", revision)
    fields = manifests.parse(manifest)[1]
    commit = manifest.parent.name
    for name, expected in fields["files"].items():
        if not name.endswith(FETCHED):
            raise BundleError(manifest, f"lists {name!r}: only {FETCHED} files are fetched")
        file = _download(address, repository, name, commit)
        if sha256(file) != expected:
            file.resolve().unlink()
            raise BundleError(file, f"of {address} is not the one that its manifest lists")
    return manifest.parent


def name_of(folder: Path) -> str | None:
    """``OWNER/NAME@COMMIT`` of a folder that :func:`fetch` returned; None of any other."""
    kind, *repository = folder.parent.parent.name.split("--")
    if folder.parent.name != "snapshots" or kind != "models" or len(repository) < 2:
        return None
    return f"{repository[0]}/{'--'.join(repository[1:])}@{folder.name[:12]}"


def _download(address: str, repository: str, name: str, revision: str) -> Path:
    """One file of a repository, from the cache or the Hub."""
    try:
        import httpx2
        from huggingface_hub import HfApi, errors
    except ModuleNotFoundError as error:
        raise ValueError(
            f"bundle {address!r} needs {error.name}: pip install 'ral-env[hub]'"
        ) from error
    try:
        api = HfApi(library_name="ral-env", library_version=__version__)
        return Path(api.hf_hub_download(repository, name, revision=revision))
    except errors.LocalEntryNotFoundError as error:
        why = f"{name} is not on this machine, and the Hub cannot be reached"
        raise ValueError(f"bundle {address!r}: {why} ({error.__cause__ or error})") from error
    except errors.EntryNotFoundError as error:
        raise ValueError(f"bundle {address!r}: the repository has no {name} there") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"bundle {address!r}: no branch, tag or commit {revision!r}; the repository's page "
            "lists them"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"bundle {address!r}: no such repository, or a private one: look at its name, or log "
            "in with `hf auth login`"
        ) from error
    except (OSError, httpx2.HTTPError) as error:  # of the Hub, the connection, or a cut download
        raise ValueError(
            f"bundle {address!r}: {name} was not downloaded ({error}). The same command goes on "
            "where it stopped"
        ) from error

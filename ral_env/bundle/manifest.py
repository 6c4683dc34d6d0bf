"""``manifest.json``: what a bundle's folder holds, under a checksum; older formats as format 4.

Format 2 is the first. Format 3 added mixtures as oracles. Format 4 added all that
:mod:`ral_env.bundle.folder` describes, and the checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ral_env.bundle import limits
from ral_env.files import sha256

FORMAT = 4
READ = (2, 3, FORMAT)


class BundleError(ValueError):
    """A bundle's file is missing, cut, altered, or does not fit the others."""

    def __init__(self, file: Path, what: str):
        super().__init__(
            f"bundle file {file}: {what}. Reinstall ral-env if the bundle came with it, "
            "or make the bundle again with `ral pretrain`."
        )


def check_hash(file: Path, digest: str) -> Path:
    """The file of a bundle, whose SHA-256 is the one that the manifest gives.

    Raises:
        BundleError: if it is not, or the file cannot be read.
    """
    try:
        found = sha256(file)
    except OSError as error:
        raise BundleError(file, f"cannot be read ({error})") from error
    if found != digest:
        raise BundleError(
            file, f"is cut or altered (SHA-256 {found[:12]}..., expected {digest[:12]}...)"
        )
    return file


def checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of all of a manifest but its own ``checksum``.

    It is taken of the fields as JSON in ASCII, with sorted keys and no spaces: it depends on what
    the manifest says and not on how that is laid out.
    """
    fields = {name: value for name, value in manifest.items() if name != "checksum"}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write(file: Path, fields: Mapping[str, Any]) -> None:
    """Write a manifest of today's format, and its checksum."""
    manifest = json.loads(json.dumps({"format": FORMAT, **fields}))
    text = json.dumps(manifest | {"checksum": checksum(manifest)}, indent=2)
    file.write_text(text + "\n", encoding="utf-8")


def parse(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A manifest, its format, its checksum and its fields checked.

    One of format 2 or 3 has no checksum.

    Returns:
        The manifest as it was written; and in the fields of format 4, whichever it is of: its files
        keep their names.

    Raises:
        BundleError: if it is of a format that is not read, was altered, or is not what it should
            be.
    """
    try:
        if file.stat().st_size > limits.MANIFEST_BYTES:
            raise ValueError(f"more than {limits.MANIFEST_BYTES} bytes")
        manifest = json.loads(file.read_bytes())
        if limits.depth(manifest) > limits.DEPTH:
            raise ValueError(f"nested deeper than {limits.DEPTH}")
        if manifest["format"] not in READ:
            known = f"{', '.join(map(str, READ[:-1]))} and {READ[-1]}"
            raise BundleError(
                file, f"is of format {manifest['format']}, this version reads {known}"
            )
        if "checksum" in manifest or manifest["format"] == FORMAT:
            found, expected = checksum(manifest), str(manifest["checksum"])
            if found != expected:
                raise BundleError(
                    file, f"is altered (checksum {found[:12]}..., expected {expected[:12]}...)"
                )
        fields = as_format_4(manifest)
        if wrong := limits.wrong_fields(fields):
            raise ValueError(wrong)
    except BundleError:
        raise
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise BundleError(file, f"is not a readable manifest ({error!r})") from error
    return manifest, fields


def check_files(file: Path, fields: Mapping[str, Any]) -> None:
    """Check that all files that a manifest speaks of are listed with their hashes, and there.

    Args:
        file: the manifest.
        fields: its fields, those of format 4.

    Raises:
        BundleError: names the first that is not.
    """
    parts = [fields["codes"], *fields["nets"].values(), *fields["test_features"].values()]
    if missing := {part["file"] for part in parts} - set(fields["files"]):
        raise BundleError(file, f"does not list {sorted(missing)}")
    for name in fields["files"]:
        if not (file.parent / name).is_file():
            raise BundleError(file.parent / name, "is missing")


def as_format_4(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest in the fields of format 4, whichever it is of; its files keep their names.

    Raises:
        KeyError, TypeError, AttributeError: if an older one is not what it should be.
    """
    fields = dict(manifest)
    if fields["format"] == FORMAT:
        return fields
    configs, discriminator = fields.pop("configs"), fields.pop("discriminator")
    nets = {
        "vqvae": _net("vqvae", configs["vqvae"]),
        f"discriminator_{discriminator['input']}": _net("discriminator", configs["discriminator"]),
    }
    for kind in ("prior", "oracle"):
        for level, config in enumerate(configs[f"{kind}s"]):
            nets[f"{kind}_{level}"] = _net(f"{kind}_{level}", config)
    if configs["features"]:  # all of them were trained on classes or attributes
        nets["features_labels"] = _net("features", configs["features"])
    return fields | {
        "version": "",
        "nets": nets,
        "discriminators": [discriminator],
        "features": ["labels"] if configs["features"] else [],
        "test_features": {},
        "codes": {"file": "codes.npy", "packed": False},
    }


def _net(stem: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"file": f"{stem}.safetensors", "config": config}

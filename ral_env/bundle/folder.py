"""The files of a bundle: safetensors, JSON and npy in one folder, and no pickle.

Format 4, which is written; formats 2 and 3 are read, too (:mod:`ral_env.bundle.manifest`):

``manifest.json``
    Says what there is: the data set in words, the recipe, a version that the maker gives, the
    layout of the codes, the splits, figures that were measured, library versions; the config and
    the file of every net; the SHA-256 of every other file; and ``checksum``, the SHA-256 of all of
    that, which is the bundle's digest, too.
``vqvae.safetensors``
    The tokeniser.
``discriminator_<input>.safetensors``
    A discriminator that sees ``codes``, one that sees ``image``, or both. The manifest lists them
    with their reward scales; environments score with the first unless they are told otherwise.
``prior_<level>.safetensors``, ``policy_<level>.safetensors``, ``oracle_<level>.safetensors``
    Level 0 is the top. Policies (priors that were fine-tuned) and oracles (the true distribution of
    a synthetic experiment; a mixture if its config has ``styles``): one for each level, or none.
``features_<name>.safetensors``
    The feature nets of Fréchet distances, in the manifest's order. ``labels`` is one that was
    trained on classes or attributes.
``features_<name>.npy``
    That net's features of real images of the test part, float16 or float32 (n, features). The
    manifest says what they are of.
``codes.npy``
    Flat real codes, packed to their bits (:mod:`ral_env.bundle.packing`): uint8 (N, bytes a row).

A net's stem is the name of its file in format 4 without the ending; of older formats it is the
name that the file would have now. What comes before the first underscore is the net's kind.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as serialise
from torch import nn

from ral_env import __version__, migrations
from ral_env.bundle import manifest as manifests
from ral_env.bundle.hub import name_of
from ral_env.bundle.manifest import BundleError, check_hash
from ral_env.bundle.packing import PackedCodes, blocks, codes_dtype, pack, packed_bytes
from ral_env.bundle.parts import Bundle, Later, StoredFeatures
from ral_env.bundle.stored_arrays import read_array
from ral_env.bundle.stored_nets import kind_of, read_net, tuples
from ral_env.files import sha256
from ral_env.layout import CodeLayout


def read(folder: Path) -> Bundle:
    """The bundle in a folder. Its manifest is read, all else when it is first asked for.

    A file's hash is compared with the manifest's when it is read: it may have changed since.

    Raises:
        BundleError: if the manifest is altered, of a format that is not read or not what it should
            be, or a file is missing.
    """
    file = folder / "manifest.json"
    manifest, fields = manifests.parse(file)
    manifests.check_files(file, fields)
    nets: Mapping[str, Any] = fields["nets"]

    def whole(part: Mapping[str, Any]) -> Path:
        return check_hash(folder / part["file"], fields["files"][part["file"]])

    def net(stem: str) -> nn.Module:
        return read_net(whole(nets[stem]), stem, nets[stem]["config"])

    def levels(kind: str) -> Later[Any]:
        count = sum(kind_of(stem) == kind for stem in nets)
        return Later(lambda: tuple(net(f"{kind}_{level}") for level in range(count)))

    first, *others = ((str(d["input"]), float(d["reward_scale"])) for d in fields["discriminators"])
    layout = _layout(file, fields["layout"])
    parts: dict[str, Any] = {
        "vqvae": Later(lambda: net("vqvae")),
        "discriminator": Later(lambda: net(f"discriminator_{first[0]}")),
        "other_discriminators": Later(
            lambda: {input: (net(f"discriminator_{input}"), scale) for input, scale in others}
        ),
        "priors": levels("prior"),
        "policies": levels("policy"),
        "oracles": levels("oracle"),
        "feature_nets": Later(
            lambda: {name: net(f"features_{name}") for name in fields["features"]}
        ),
        "test_features": Later(
            lambda: {
                name: StoredFeatures(read_array(whole(stored)), stored["of"])
                for name, stored in fields["test_features"].items()
            }
        ),
        "flat_codes": Later(
            lambda: _read_codes(whole(fields["codes"]), fields["codes"]["packed"], layout)
        ),
        "recipe": Later(partial(migrations.recipe, fields["recipe"], str(file))),
    }
    bundle = Bundle(
        **parts,
        discriminator_input=first[0],
        reward_scale=first[1],
        splits={name: tuples(edges) for name, edges in fields["splits"].items()},
        layout=layout,
        image_size=nets["vqvae"]["config"]["image_size"],
        dataset=fields["dataset"],
        version=str(fields["version"]),
        name=name_of(folder) or folder.resolve().name,
    )
    object.__setattr__(bundle, "path", folder)
    object.__setattr__(bundle, "manifest", manifest)
    return bundle


def write(folder: Path, bundle: Bundle, metrics: Mapping[str, Any], half: bool) -> None:
    """Write a bundle's files into an empty folder; arguments as those of ``save``."""
    nets = nets_by_stem(bundle)
    for stem, net in nets.items():
        state = {key: value.cpu().contiguous() for key, value in net.state_dict().items()}
        if half:
            state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        (folder / f"{stem}.safetensors").write_bytes(serialise(state))  # save_file gives it 0600
    for name, stored in bundle.test_features.items():
        np.save(folder / f"features_{name}.npy", np.ascontiguousarray(stored.values))
    _write_codes(folder / "codes.npy", bundle)
    layout = bundle.layout
    fields = {
        "version": bundle.version,
        "dataset": bundle.dataset,
        "recipe": dict(bundle.recipe),
        "layout": {"levels": layout.levels, "num_codes": layout.num_codes},
        "codes": {"file": "codes.npy", "packed": True},
        "splits": {name: [int(edge) for edge in edges] for name, edges in bundle.splits.items()},
        "nets": {
            stem: {"file": f"{stem}.safetensors", "config": asdict(net.config)}
            for stem, net in nets.items()
        },
        "discriminators": [
            {"input": input, "reward_scale": float(bundle.discriminator_for(input)[1])}
            for input in bundle.discriminator_inputs
        ],
        "features": list(bundle.feature_nets),
        "test_features": {
            name: {"file": f"features_{name}.npy", "of": stored.of}
            for name, stored in bundle.test_features.items()
        },
        "metrics": dict(metrics),
        "files": {file.name: sha256(file) for file in sorted(folder.iterdir())},
        "versions": {
            "ral_env": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    manifests.write(folder / "manifest.json", fields)


def nets_by_stem(bundle: Bundle) -> dict[str, Any]:
    """A bundle's nets, by the stems of their files."""
    nets: dict[str, Any] = {"vqvae": bundle.vqvae}
    for input in bundle.discriminator_inputs:
        nets[f"discriminator_{input}"] = bundle.discriminator_for(input)[0]
    levels = {"prior": bundle.priors, "policy": bundle.policies, "oracle": bundle.oracles}
    for kind, per_level in levels.items():
        nets |= {f"{kind}_{level}": net for level, net in enumerate(per_level)}
    return nets | {f"features_{name}": net for name, net in bundle.feature_nets.items()}


def _layout(file: Path, stored: Mapping[str, Any]) -> CodeLayout:
    try:
        return CodeLayout(tuples(stored["levels"]), stored["num_codes"])
    except ValueError as error:
        raise BundleError(file, f"is not a readable manifest ({error})") from error


def _read_codes(file: Path, packed: bool, layout: CodeLayout) -> Any:
    """Flat codes (N, length), memory-mapped and read-only."""
    flat, length = read_array(file), layout.length
    if packed:
        dtype, size = np.dtype(np.uint8), packed_bytes(length, layout.num_codes)
    else:
        dtype, size = np.dtype(codes_dtype(layout.num_codes)), length
    if flat.ndim != 2 or flat.shape[1] != size or flat.dtype != dtype:
        raise BundleError(file, f"holds {flat.dtype} {flat.shape}, expected {dtype} (N, {size})")
    return PackedCodes(flat, length, layout.num_codes) if packed else flat


def _write_codes(file: Path, bundle: Bundle) -> None:
    """Pack a bundle's codes into a file, some rows at a time: they may be a large memory map."""
    flat, num_codes = bundle.flat_codes, bundle.layout.num_codes
    size = packed_bytes(flat.shape[1], num_codes)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(flat), size)}
    with file.open("wb") as stream:  # a full disk would end a memory map without a word
        np.lib.format.write_array_header_1_0(stream, header)
        for rows in blocks(*flat.shape):
            stream.write(pack(np.asarray(flat[rows]), num_codes).tobytes())

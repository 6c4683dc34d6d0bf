"""The files of a bundle: safetensors, JSON and npy in one folder, and no pickle.

``manifest.json`` names the data set, the recipe, the nets' configs, and the SHA-256 of every other
file: ``vqvae.safetensors``, ``discriminator.safetensors``, ``prior_<level>.safetensors`` (0 is the
top level), ``codes.npy`` (flat real codes) and, where there are any, ``oracle_<level>.safetensors``
(the true distribution of a synthetic experiment; a mixture if its config has ``styles``) and
``features.safetensors`` (the feature net of Fréchet distances). A file's name without its ending is
called the net's stem.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ral_env import __version__, migrations
from ral_env.bundle.parts import SPLITS, Bundle, Later, codes_dtype
from ral_env.layout import CodeLayout
from ral_env.nets import (
    VQVAE,
    FeatureNet,
    FeatureNetConfig,
    Mixture,
    MixtureConfig,
    PatchGAN,
    PatchGANConfig,
    PixelCNN,
    PixelCNNConfig,
    VQVAEConfig,
)

FORMAT = 3
READ = (2, FORMAT)  # 3 added mixtures as oracles
# What a stem's net may be, the level left out, and what each net is made from.
NETS: dict[str, tuple[type[nn.Module], ...]] = {
    "vqvae": (VQVAE,),
    "discriminator": (PatchGAN,),
    "prior": (PixelCNN,),
    "oracle": (PixelCNN, Mixture),
    "features": (FeatureNet,),
}
CONFIGS: dict[type[nn.Module], type] = {
    VQVAE: VQVAEConfig,
    PatchGAN: PatchGANConfig,
    PixelCNN: PixelCNNConfig,
    Mixture: MixtureConfig,
    FeatureNet: FeatureNetConfig,
}


class BundleError(ValueError):
    """A bundle's file is missing, cut, altered, or does not fit the others."""

    def __init__(self, file: Path, what: str):
        super().__init__(
            f"bundle file {file}: {what}. Reinstall ral-env if the bundle came with it, "
            "or make the bundle again with `ral pretrain`."
        )


def read(folder: Path) -> Bundle:
    """The bundle in a folder. Its manifest is read, all else when it is first asked for.

    Raises:
        BundleError: if the manifest is of a format that is not read, or a file is missing.
        KeyError, TypeError, ValueError: if the manifest is not what it should be.
    """
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    if manifest["format"] not in READ:
        raise BundleError(
            file,
            f"is of format {manifest['format']}, this version reads {' and '.join(map(str, READ))}",
        )
    stored = stored_configs(manifest)
    needed = {f"{stem}.safetensors" for stem in stored} | {"codes.npy"}
    if missing := needed - set(manifest["files"]):
        raise BundleError(file, f"does not list {sorted(missing)}")
    for name in manifest["files"]:
        if Path(name).name != name or not (folder / name).is_file():
            raise BundleError(folder / name, "is missing")

    def nets(kind: str) -> Later[Any]:
        stems = [stem for stem in stored if stem.startswith(kind)]
        return Later(lambda: tuple(_read_net(folder, stem, stored[stem]) for stem in stems))

    def net(stem: str) -> Later[Any]:
        return Later(lambda: _read_net(folder, stem, stored[stem]))

    layout = CodeLayout(_tuples(manifest["layout"]["levels"]), manifest["layout"]["num_codes"])
    bundle = Bundle(
        vqvae=net("vqvae"),
        discriminator=net("discriminator"),
        discriminator_input=manifest["discriminator"]["input"],
        reward_scale=float(manifest["discriminator"]["reward_scale"]),
        priors=nets("prior"),
        oracles=nets("oracle"),
        features=net("features") if "features" in stored else None,
        flat_codes=Later(partial(_read_codes, folder / "codes.npy", layout)),
        splits={name: _tuples(edges) for name, edges in manifest["splits"].items()},
        layout=layout,
        image_size=manifest["configs"]["vqvae"]["image_size"],
        dataset=manifest["dataset"],
        recipe=Later(partial(migrations.renamed, manifest["recipe"], "recipe", str(file))),
        name=folder.resolve().name,
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
        save_file(state, folder / f"{stem}.safetensors")
    flat, layout = bundle.flat_codes, bundle.layout
    dtype = codes_dtype(layout.num_codes)
    stored = np.lib.format.open_memmap(folder / "codes.npy", "w+", dtype, flat.shape)
    for rows in blocks(flat):
        stored[rows] = flat[rows]
    stored.flush()
    configs = {stem: asdict(net.config) for stem, net in nets.items()}
    manifest = {
        "format": FORMAT,
        "dataset": bundle.dataset,
        "recipe": dict(bundle.recipe),
        "layout": {"levels": layout.levels, "num_codes": layout.num_codes},
        "configs": {
            "vqvae": configs["vqvae"],
            "discriminator": configs["discriminator"],
            "priors": [configs[stem] for stem in configs if stem.startswith("prior")],
            "oracles": [configs[stem] for stem in configs if stem.startswith("oracle")],
            "features": configs.get("features"),
        },
        "discriminator": {
            "input": bundle.discriminator_input,
            "reward_scale": float(bundle.reward_scale),
        },
        "splits": {name: [int(edge) for edge in bundle.splits[name]] for name in SPLITS},
        "metrics": dict(metrics),
        "files": {file.name: sha256(file) for file in sorted(folder.iterdir())},
        "versions": {
            "ral_env": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def stored_configs(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The nets' configs as the manifest holds them, by the nets' stems."""
    configs = manifest["configs"]
    levels = {
        f"{kind}_{level}": values
        for kind in ("prior", "oracle")
        for level, values in enumerate(configs[f"{kind}s"])
    }
    found = {"vqvae": configs["vqvae"], "discriminator": configs["discriminator"], **levels}
    return found | ({"features": configs["features"]} if configs["features"] else {})


def nets_by_stem(bundle: Bundle) -> dict[str, Any]:
    """A bundle's nets, by the stems of their files."""
    nets: dict[str, Any] = {"vqvae": bundle.vqvae, "discriminator": bundle.discriminator}
    nets |= {f"prior_{level}": prior for level, prior in enumerate(bundle.priors)}
    nets |= {f"oracle_{level}": oracle for level, oracle in enumerate(bundle.oracles)}
    return nets | ({"features": bundle.features} if bundle.features else {})


def config_of(stem: str, values: Mapping[str, Any]) -> Any:
    """A net's config, from what the manifest holds."""
    return CONFIGS[_class_of(stem, values)](**{k: _tuples(value) for k, value in values.items()})


def build(stem: str, values: Mapping[str, Any]) -> nn.Module:
    """A net with new weights, from its config as the manifest holds it."""
    return _class_of(stem, values)(config_of(stem, values))


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blocks(flat: np.ndarray) -> Iterator[slice]:
    """All rows, 16384 at a time: there may be more on disk than fit the memory."""
    return (slice(first, first + 2**14) for first in range(0, len(flat), 2**14))


def _class_of(stem: str, values: Mapping[str, Any]) -> type[nn.Module]:
    kind = stem.partition("_")[0]
    return Mixture if kind == "oracle" and "styles" in values else NETS[kind][0]


def _tuples(value: Any) -> Any:
    """JSON's lists back to the tuples that the configs hold."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _read_net(folder: Path, stem: str, values: Mapping[str, Any]) -> nn.Module:
    file = folder / f"{stem}.safetensors"
    try:
        net = build(stem, values)
        net.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(file, f"does not fit its config ({error})") from error
    return net.eval()


def _read_codes(file: Path, layout: CodeLayout) -> np.ndarray:
    """Flat codes (N, length), memory-mapped and read-only."""
    try:
        flat = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise BundleError(file, f"is not a readable array ({error})") from error
    dtype, length = codes_dtype(layout.num_codes), layout.length
    if flat.ndim != 2 or flat.shape[1] != length or flat.dtype != dtype:
        raise BundleError(
            file, f"holds {flat.dtype} {flat.shape}, expected {np.dtype(dtype)} (N, {length})"
        )
    return flat

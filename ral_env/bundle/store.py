"""A bundle: one folder with everything that an environment is made of. safetensors, JSON, npy.

``manifest.json`` names the data set, the recipe, the nets' configs, and the SHA-256 of every other
file: ``vqvae.safetensors``, ``discriminator.safetensors``, ``prior_<level>.safetensors`` (top is
0), ``codes.npy`` (flat real codes) and, where there are any, ``oracle_<level>.safetensors`` (the
true distribution of a synthetic experiment; a mixture if its config has ``styles``) and
``features.safetensors`` (a metric's feature net).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import platform
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import ral_env
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
from ral_env.tasks import Task

FORMAT = 3
READ = (2, FORMAT)  # 3 added mixtures as oracles
SHIPPED = Path(ral_env.__file__).parent / "bundles"
SPLITS = ("train", "validation", "test")
KINDS: dict[str, tuple[type[nn.Module], type]] = {
    "vqvae": (VQVAE, VQVAEConfig),
    "discriminator": (PatchGAN, PatchGANConfig),
    "prior": (PixelCNN, PixelCNNConfig),
    "oracle": (PixelCNN, PixelCNNConfig),
    "mixture": (Mixture, MixtureConfig),
    "features": (FeatureNet, FeatureNetConfig),
}


def home() -> Path:
    """The folder of the user's own bundles: ``$RAL_ENV_HOME/bundles``."""
    root = os.environ.get("RAL_ENV_HOME") or Path.home() / ".cache" / "ral_env"
    return Path(root).expanduser() / "bundles"


def names() -> list[str]:
    """Names of the bundles found: those shipped with the package, and the user's."""
    return sorted({file.parent.name for root in (SHIPPED, home()) for file in _manifests(root)})


def _manifests(root: Path) -> list[Path]:
    # A leading dot marks a bundle that is being written.
    return [file for file in root.glob("*/manifest.json") if not file.parent.name.startswith(".")]


class BundleError(ValueError):
    """A bundle's file is missing, cut, altered, or does not fit the others."""

    def __init__(self, file: Path, what: str):
        super().__init__(
            f"bundle file {file}: {what}. Reinstall ral-env if the bundle came with it, "
            "or make the bundle again with `ral pretrain`."
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tuples(value: Any) -> Any:
    """JSON's lists back to the tuples that the configs hold."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Bundle:
    """A bundle on disk. Nets are built when first asked for: on the CPU, in eval mode.

    Attributes:
        path: the folder.
        manifest: the parsed ``manifest.json``.
        dataset: what the nets were trained on.
        recipe: the settings that made it.
        layout: the code grids.
        image_size: side of the square image, in pixels.
        discriminator_input: ``"image"``, or ``"codes"`` for codebook vectors on the finest grid.
        reward_scale: divides the discriminator's scores before they are clamped to [-1, 1].
        splits: first row of the codes and the row after the last, of each split.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path = path
        self.manifest = manifest
        self.dataset: str = manifest["dataset"]
        self.recipe: dict[str, Any] = manifest["recipe"]
        self.layout = CodeLayout(
            _tuples(manifest["layout"]["levels"]), manifest["layout"]["num_codes"]
        )
        self.image_size: int = manifest["configs"]["vqvae"]["image_size"]
        self.discriminator_input: str = manifest["discriminator"]["input"]
        self.reward_scale = float(manifest["discriminator"]["reward_scale"])
        self.splits: Mapping[str, Sequence[int]] = manifest["splits"]

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, dataset={self.dataset!r}, layout={self.layout})"

    def __reduce__(self):
        # A pickled memory map would carry its data along: open the folder again instead.
        return load, (str(self.path), False)

    @cached_property
    def vqvae(self) -> VQVAE:
        """Encoder, codebook, decoder."""
        return self._net("vqvae")

    @cached_property
    def discriminator(self) -> PatchGAN:
        """Scores patches; real is high."""
        return self._net("discriminator")

    @cached_property
    def priors(self) -> tuple[PixelCNN, ...]:
        """One MLE prior a level, top first."""
        return tuple(self._net(stem) for stem in self._stems() if stem.startswith("prior"))

    @cached_property
    def oracles(self) -> tuple[PixelCNN | Mixture, ...]:
        """The true distribution of the codes, one net a level, top first; empty if not known."""
        return tuple(self._net(stem) for stem in self._stems() if stem.startswith("oracle"))

    @cached_property
    def features(self) -> FeatureNet | None:
        """The net that Fréchet distances are taken in."""
        return self._net("features") if self.manifest["configs"]["features"] else None

    @cached_property
    def flat_codes(self) -> np.ndarray:
        """Real codes (N, length), uint8 or uint16, memory-mapped and read-only."""
        file = self.path / "codes.npy"
        try:
            flat = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError(file, f"is not a readable array ({error})") from error
        dtype, length = codes_dtype(self.layout.num_codes), self.layout.length
        if flat.ndim != 2 or flat.shape[1] != length or flat.dtype != dtype:
            raise BundleError(
                file, f"holds {flat.dtype} {flat.shape}, expected {np.dtype(dtype)} (N, {length})"
            )
        return flat

    @property
    def codes(self) -> tuple[np.ndarray, ...]:
        """Real codes, a grid (N, h, w) a level, top first."""
        return tuple(self.layout.unflatten(self.flat_codes))

    def split(self, name: str) -> np.ndarray:
        """Flat real codes (n, length) of ``"train"``, ``"validation"`` or ``"test"``."""
        if name not in self.splits:
            raise ValueError(f"split {name!r}, expected one of {list(self.splits)}")
        start, end = self.splits[name]
        return self.flat_codes[start:end]

    def _stems(self) -> list[str]:
        """The nets, by their files' names."""
        configs = self.manifest["configs"]
        levels = [
            f"{kind}_{level}"
            for kind in ("prior", "oracle")
            for level in range(len(configs[f"{kind}s"]))
        ]
        return ["vqvae", "discriminator", *levels, *(["features"] if configs["features"] else [])]

    def _kind(self, stem: str) -> tuple[type[nn.Module], Any]:
        """A net's class, and its config."""
        kind, _, level = stem.partition("_")
        configs = self.manifest["configs"]
        values = configs[f"{kind}s"][int(level)] if level else configs[stem]
        net, config = KINDS["mixture" if kind == "oracle" and "styles" in values else kind]
        return net, config(**{key: _tuples(value) for key, value in values.items()})

    def _config(self, stem: str) -> Any:
        return self._kind(stem)[1]

    def _build(self, stem: str) -> Any:
        net, config = self._kind(stem)
        return net(config)

    def _net(self, stem: str) -> Any:
        file = self.path / f"{stem}.safetensors"
        try:
            net = self._build(stem)
            net.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise BundleError(file, f"does not fit its config ({error})") from error
        return net.eval()

    def _check(self) -> None:
        """Hashes, then shapes, then how the parts fit each other."""
        for name, digest in self.manifest["files"].items():
            if (found := _sha256(self.path / name)) != digest:
                raise BundleError(
                    self.path / name,
                    f"is cut or altered (SHA-256 {found[:12]}..., expected {digest[:12]}...)",
                )
        for stem in self._stems():
            file = self.path / f"{stem}.safetensors"
            try:
                with torch.device("meta"):  # shapes only: nothing large is built
                    expected = {
                        k: tuple(v.shape) for k, v in self._build(stem).state_dict().items()
                    }
                with safe_open(file, framework="pt") as stored:
                    names = stored.keys()  # it is no dict: it cannot be iterated over
                    found = {k: tuple(stored.get_slice(k).get_shape()) for k in names}
            except (OSError, SafetensorError, TypeError, ValueError) as error:
                raise BundleError(file, f"is not readable with its config ({error})") from error
            if odd := sorted(dict(found.items() ^ expected.items())):
                raise BundleError(file, f"does not fit its config in {', '.join(odd[:5])}")

        manifest = self.path / "manifest.json"
        levels, num_codes = self.layout.levels, self.layout.num_codes
        vqvae, discriminator = self._config("vqvae"), self._config("discriminator")
        if (vqvae.grids, vqvae.num_codes) != (levels, num_codes):
            raise BundleError(manifest, f"{self.layout} does not fit the VQ-VAE's {vqvae}")
        above = [None, *levels[:-1]]  # what each level's net is conditioned on
        for kind in ("prior", "oracle"):
            nets = [self._config(stem) for stem in self._stems() if stem.startswith(kind)]
            fits = [(n.grid, n.num_codes, n.condition_grid) for n in nets] == [
                (grid, num_codes, condition) for grid, condition in zip(levels, above, strict=True)
            ]
            if not fits and (nets or kind == "prior"):
                raise BundleError(manifest, f"{self.layout} does not fit the {kind}s' {nets}")
        channels = {"image": 3, "codes": vqvae.code_dim * len(levels)}
        if discriminator.in_channels != channels.get(self.discriminator_input):
            raise BundleError(
                manifest,
                f"discriminator has input {self.discriminator_input!r} and "
                f"{discriminator.in_channels} channels, expected one of {channels}",
            )
        if not 0 < self.reward_scale < float("inf"):
            raise BundleError(manifest, f"reward_scale {self.reward_scale}, expected above 0")
        flat = self.flat_codes
        if any(not 0 <= a < b <= len(flat) for a, b in self.manifest["splits"].values()):
            raise BundleError(
                manifest, f"splits {self.manifest['splits']} do not fit {len(flat)} images"
            )
        if (highest := max(flat[rows].max() for rows in _blocks(flat))) >= num_codes:
            raise BundleError(
                self.path / "codes.npy", f"holds code {highest}, expected 0 to {num_codes - 1}"
            )


def codes_dtype(num_codes: int) -> type[np.unsignedinteger]:
    """In what codes are stored: uint8 for up to 256 of them, else uint16."""
    return np.uint8 if num_codes <= 256 else np.uint16


def _blocks(flat: np.ndarray) -> Iterator[slice]:
    """All rows, some at a time: there may be more on disk than fit the memory."""
    return (slice(first, first + 2**14) for first in range(0, len(flat), 2**14))


def storable(bundle: Bundle) -> bool:
    """Whether its nets have configs, so that :func:`save` can write them."""
    return type(bundle) is Bundle


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a bundle: a shipped name, else the user's, else a path.

    Raises:
        ValueError: if there is none; names near matches and the places searched.
    """
    text = os.fspath(name_or_path)
    places = [SHIPPED / text, home() / text, Path(text).expanduser()]
    for place in places:
        if (place / "manifest.json").is_file():
            return place
    near = difflib.get_close_matches(text, names())
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {names()}."
    searched = ", ".join(map(str, places))
    raise ValueError(
        f"no bundle {text!r} (no manifest.json in {searched}). {hint} "
        "`ral pretrain` makes a bundle; reinstalling ral-env brings the shipped ones back."
    )


def choose(task: Task) -> tuple[str, bool]:
    """Name of the bundle that an id runs on unless told otherwise, and whether it stands in."""
    there = any((root / task.bundle / "manifest.json").is_file() for root in (SHIPPED, home()))
    return (task.bundle, False) if there or not task.stand_in else (task.stand_in, True)


def make_command(task: Task) -> str:
    """The command that makes the bundle that an id is named after."""
    return f"ral pretrain --recipe {task.bundle} --data FOLDER --out {home() / task.bundle}"


def for_task(
    task: Task, bundle: str | os.PathLike[str] | Bundle | None = None, required: bool = False
) -> Bundle:
    """The bundle that an environment id runs on.

    Args:
        bundle: name, path or loaded bundle that is to be used; None takes the id's own, or where
            that is not to be found, its stand-in.
        required: refuse the stand-in.

    Warns:
        StandInWarning: if it is the stand-in; names the command that makes the other.

    Raises:
        ValueError: if there is no such bundle, its images or grids are not the id's, or it would be
            the stand-in and ``required`` forbids it.
    """
    name, stands_in = choose(task)
    if bundle is None and stands_in:
        missing = (
            f"{task.id}: no bundle {task.bundle!r} was found, which is trained on {task.images}. "
            f"Make it with `{make_command(task)}`"
        )
        if required:
            raise ValueError(f"{missing}, or leave bundle_required out to run on a stand-in.")
        bundle = load(name)
        warnings.warn(
            f"{missing}. Until then it runs on the stand-in {name!r}: {bundle.dataset}.",
            ral_env.StandInWarning,
            stacklevel=2,
        )
    bundle = name if bundle is None else bundle
    found = bundle if isinstance(bundle, Bundle) else load(bundle)
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


def load(name_or_path: str | os.PathLike[str], verify: bool = True) -> Bundle:
    """Open a bundle, by name or by path.

    Args:
        name_or_path: looked up among the shipped bundles, then in :func:`home`, then as a path.
        verify: check every hash, weight shape and code. Without, only that the files exist.

    Raises:
        BundleError: names the file that is missing, cut, altered or of another format.
        ValueError: no such bundle.
    """
    path = find(name_or_path)
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text())
        if manifest["format"] not in READ:
            raise BundleError(
                file,
                f"is of format {manifest['format']}, this version reads "
                f"{' and '.join(map(str, READ))}",
            )
        bundle = Bundle(path, manifest)
        needed = {f"{stem}.safetensors" for stem in bundle._stems()} | {"codes.npy"}
        if missing := needed - set(manifest["files"]):
            raise BundleError(file, f"does not list {sorted(missing)}")
        for name in manifest["files"]:
            if Path(name).name != name or not (path / name).is_file():
                raise BundleError(path / name, "is missing")
        if verify:
            bundle._check()
    except BundleError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(file, f"is not a readable manifest ({error!r})") from error
    return bundle


def save(
    path: str | os.PathLike[str],
    *,
    vqvae: VQVAE,
    discriminator: PatchGAN,
    discriminator_input: str,
    reward_scale: float,
    priors: Sequence[PixelCNN],
    codes: np.ndarray | Sequence[np.ndarray],
    splits: Mapping[str, Sequence[int]],
    dataset: str,
    recipe: Mapping[str, Any],
    metrics: Mapping[str, Any],
    oracles: Sequence[PixelCNN | Mixture] = (),
    features: FeatureNet | None = None,
    half: bool = False,
) -> Path:
    """Write a bundle, whole or not at all; one that is there already is replaced.

    Args:
        path: the bundle's folder.
        codes: real codes, flat (N, length) or a list of grids (N, h, w), one a level. A flat memory
            map is copied some rows at a time.
        splits: ``{"train": (start, end), "validation": ..., "test": ...}``, rows of ``codes``.
        recipe: JSON-able settings that made it.
        metrics: JSON-able numbers that were measured on it.
        oracles: the true distribution of the codes, where it is known, one net a level.
        features: the net that Fréchet distances are taken in.
        half: store weights in 16 bits, which halves the files; they are loaded as 32 bits.

    Raises:
        ValueError: if the parts do not fit each other, or ``path`` exists and is no bundle.
    """
    path = Path(path).expanduser()
    if path.exists() and not (path / "manifest.json").is_file():
        raise ValueError(f"{path} exists and is not a bundle: choose another path or remove it")
    if set(splits) != set(SPLITS):
        raise ValueError(f"splits are {list(splits)}, expected {list(SPLITS)}")
    layout = CodeLayout(vqvae.config.grids, vqvae.config.num_codes)
    flat = np.asarray(
        codes if getattr(codes, "ndim", 0) == 2 else layout.flatten([np.asarray(c) for c in codes])
    )
    ranges = [(flat[rows].min(), flat[rows].max()) for rows in _blocks(flat)]  # read once
    lowest, highest = min(low for low, _ in ranges), max(high for _, high in ranges)
    if lowest < 0 or highest >= layout.num_codes:
        raise ValueError(
            f"codes run from {lowest} to {highest}, expected 0 to {layout.num_codes - 1}"
        )
    nets: dict[str, Any] = {"vqvae": vqvae, "discriminator": discriminator}
    nets |= {f"prior_{level}": prior for level, prior in enumerate(priors)}
    nets |= {f"oracle_{level}": oracle for level, oracle in enumerate(oracles)}
    nets |= {"features": features} if features else {}

    fresh = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    fresh.mkdir(parents=True)
    try:
        for stem, net in nets.items():
            state = {key: value.cpu().contiguous() for key, value in net.state_dict().items()}
            if half:
                state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
            save_file(state, fresh / f"{stem}.safetensors")
        dtype = codes_dtype(layout.num_codes)
        stored = np.lib.format.open_memmap(fresh / "codes.npy", "w+", dtype, flat.shape)
        for rows in _blocks(flat):
            stored[rows] = flat[rows]
        stored.flush()
        manifest = {
            "format": FORMAT,
            "dataset": dataset,
            "recipe": dict(recipe),
            "layout": {"levels": layout.levels, "num_codes": layout.num_codes},
            "configs": {
                "vqvae": asdict(vqvae.config),
                "discriminator": asdict(discriminator.config),
                "priors": [asdict(prior.config) for prior in priors],
                "oracles": [asdict(oracle.config) for oracle in oracles],
                "features": asdict(features.config) if features else None,
            },
            "discriminator": {"input": discriminator_input, "reward_scale": float(reward_scale)},
            "splits": {name: [int(edge) for edge in splits[name]] for name in SPLITS},
            "metrics": dict(metrics),
            "files": {file.name: _sha256(file) for file in sorted(fresh.iterdir())},
            "versions": {
                "ral_env": ral_env.__version__,
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        load(fresh)  # what would not load is not kept
        _replace(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return path


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

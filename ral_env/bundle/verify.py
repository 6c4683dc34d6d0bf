"""Whether a bundle's files are whole, and its parts fit each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from ral_env.bundle.folder import nets_by_stem
from ral_env.bundle.limits import SPLITS
from ral_env.bundle.manifest import BundleError, as_format_4, check_hash
from ral_env.bundle.packing import PackedCodes, blocks
from ral_env.bundle.parts import TUNING, Bundle, StoredFeatures
from ral_env.bundle.stored_nets import NETS, kind_of, read_net
from ral_env.layout import CodeLayout


def verify_bundle(bundle: Bundle) -> None:
    """Check a bundle that was read from a folder: hashes, then weights, then how all fits.

    Raises:
        BundleError: names the file that is wrong.
    """
    assert bundle.path, "it was not read from a folder"
    for name, digest in bundle.manifest["files"].items():
        check_hash(bundle.path / name, digest)
    fields, configs = as_format_4(bundle.manifest), {}
    for stem, net in fields["nets"].items():
        made: Any = read_net(bundle.path / net["file"], stem, net["config"])
        configs[stem] = made.config
    wrong = (
        misfit(bundle.layout, configs)
        or _wrong_features(bundle.test_features, configs)
        or _wrong_ranges(bundle)
    )
    if wrong:
        raise BundleError(bundle.path / "manifest.json", wrong)
    if wrong := wrong_codes(bundle):
        raise BundleError(bundle.path / "codes.npy", wrong)


def obstacle(bundle: Bundle) -> str | None:
    """Why a bundle could not be read again if it was saved, in words; None if it can.

    Nets are made again from their configs. Those of other packages, and subclasses of this one's,
    have none that could be read. The codes are not looked at: there may be many.
    """
    nets = nets_by_stem(bundle)
    for stem, net in nets.items():
        kinds = NETS[kind_of(stem)]
        if type(net) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            return f"its {stem} is a {type(net).__name__}, expected a ral_env.nets.{expected}"
    for name in bundle.feature_nets:
        if not re.fullmatch("[a-z][a-z0-9_]*", name):  # it is part of a file's name
            return f"a feature net is called {name!r}, expected small letters, digits and _"
    configs = {stem: net.config for stem, net in nets.items()}
    return (
        misfit(bundle.layout, configs)
        or _wrong_features(bundle.test_features, configs)
        or _wrong_splits(bundle)
    )


def wrong_codes(bundle: Bundle) -> str | None:
    """Whether a code of a bundle is outside the codebook, in words; None if all are inside."""
    flat, num_codes = bundle.flat_codes, bundle.layout.num_codes
    if isinstance(flat, PackedCodes) and num_codes == flat.largest + 1:
        return None  # its bits can tell no other code: not to be read for nothing
    for rows in blocks(*flat.shape):
        part = np.asarray(flat[rows])
        low, high = int(part.min()), int(part.max())
        if low < 0 or high >= num_codes:
            return f"holds code {low if low < 0 else high}, expected 0 to {num_codes - 1}"
    return None


def _wrong_splits(bundle: Bundle) -> str | None:
    """Which split is missing, or which two share rows; None if all are there and none overlap."""
    splits = dict(bundle.splits)
    if set(splits) - {TUNING} != set(SPLITS):
        return f"splits are {list(splits)}, expected {list(SPLITS)} and, at will, {TUNING!r}"
    for (one, (a, b)), (other, (c, d)) in combinations(splits.items(), 2):
        if max(a, c) < min(b, d):
            return f"splits {one!r} and {other!r} share rows: {splits}"
    return None


def misfit(layout: CodeLayout, configs: Mapping[str, Any]) -> str | None:
    """How nets, given by their configs and stems, do not fit the layout; None if they do."""
    levels, num_codes = layout.levels, layout.num_codes
    vqvae = configs["vqvae"]
    if (vqvae.grids, vqvae.num_codes) != (levels, num_codes):
        return f"{layout} does not fit the VQ-VAE's {vqvae}"
    above = [None, *levels[:-1]]  # the grids that each level's net is conditioned on
    for kind, plural in (("prior", "priors"), ("policy", "policies"), ("oracle", "oracles")):
        nets = [config for stem, config in configs.items() if kind_of(stem) == kind]
        fits = [(n.grid, n.num_codes, n.condition_grid) for n in nets] == [
            (grid, num_codes, condition) for grid, condition in zip(levels, above, strict=True)
        ]
        if not fits and (nets or kind == "prior"):
            return f"{layout} does not fit the {plural}' {nets}"
    channels = {"image": 3, "codes": vqvae.code_dim * len(levels)}
    for stem, config in configs.items():
        kind, _, input = stem.partition("_")
        if kind == "discriminator" and config.in_channels != channels.get(input):
            return (
                f"discriminator has input {input!r} and {config.in_channels} channels, expected "
                f"one of {channels}"
            )
        sides = {"image": vqvae.image_size, "codes": levels[-1][0]}
        if kind == "discriminator" and 2**config.layers > sides[input]:
            return (
                f"discriminator has {config.layers} strided layers, too many for the "
                f"{sides[input]} rows of the {input} input"
            )
    return None


def _wrong_features(stored: Mapping[str, StoredFeatures], configs: Mapping[str, Any]) -> str | None:
    """What is wrong with stored features; None if nothing is."""
    for name, features in stored.items():
        net, values = configs.get(f"features_{name}"), features.values
        if net is None:
            return f"features of {name!r} are stored, and there is no such feature net"
        fits = values.ndim == 2 and len(values) and values.shape[1] == net.features
        if not fits or values.dtype not in (np.float16, np.float32):
            return (
                f"stored features of {name!r} are {values.dtype} {values.shape}, expected float16 "
                f"or float32 (n, {net.features})"
            )
        if not isinstance(features.of, str) or not np.isfinite(values).all():
            return f"stored features of {name!r} hold what is not finite, or do not say what of"
    return None


def _wrong_ranges(bundle: Bundle) -> str | None:
    """Which splits are empty or reach beyond the codes; None if all are within."""
    count = len(bundle.flat_codes)
    if all(0 <= start < end <= count for start, end in bundle.splits.values()):
        return None
    return f"splits {dict(bundle.splits)} do not fit {count} images"

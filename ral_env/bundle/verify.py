"""Whether a bundle's files are whole, and its parts fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ral_env.bundle.folder import (
    NETS,
    BundleError,
    blocks,
    build,
    config_of,
    nets_by_stem,
    sha256,
    stored_configs,
)
from ral_env.bundle.parts import Bundle
from ral_env.layout import CodeLayout


def verify_bundle(bundle: Bundle) -> None:
    """Check a bundle that was read from a folder: hashes, then weights' shapes, then how all fits.

    Raises:
        BundleError: names the file that is wrong.
    """
    assert bundle.path, "it was not read from a folder"
    for name, digest in bundle.manifest["files"].items():
        if (found := sha256(bundle.path / name)) != digest:
            raise BundleError(
                bundle.path / name,
                f"is cut or altered (SHA-256 {found[:12]}..., expected {digest[:12]}...)",
            )
    stored = stored_configs(bundle.manifest)
    for stem, values in stored.items():
        file = bundle.path / f"{stem}.safetensors"
        try:
            with torch.device("meta"):  # shapes only: nothing large is built
                expected = {k: tuple(v.shape) for k, v in build(stem, values).state_dict().items()}
            with safe_open(file, framework="pt") as weights:
                names = weights.keys()  # it is no dict: it cannot be iterated over
                found = {k: tuple(weights.get_slice(k).get_shape()) for k in names}
        except (OSError, SafetensorError, TypeError, ValueError) as error:
            raise BundleError(file, f"is not readable with its config ({error})") from error
        if odd := sorted(dict(found.items() ^ expected.items())):
            raise BundleError(file, f"does not fit its config in {', '.join(odd[:5])}")

    configs = {stem: config_of(stem, values) for stem, values in stored.items()}
    wrong = _misfit(bundle.layout, bundle.discriminator_input, configs) or _wrong_settings(bundle)
    if wrong:
        raise BundleError(bundle.path / "manifest.json", wrong)
    highest, num_codes = code_range(bundle.flat_codes)[1], bundle.layout.num_codes
    if highest >= num_codes:
        raise BundleError(
            bundle.path / "codes.npy", f"holds code {highest}, expected 0 to {num_codes - 1}"
        )


def obstacle(bundle: Bundle) -> str | None:
    """Why a bundle's nets could not be read again if they were saved, in words; None if they can.

    Nets are made again from their configs. Those of other packages, and subclasses of this one's,
    have none that could be read.
    """
    nets = nets_by_stem(bundle)
    for stem, net in nets.items():
        kinds = NETS[stem.partition("_")[0]]
        if type(net) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            return f"its {stem} is a {type(net).__name__}, expected a ral_env.nets.{expected}"
    configs = {stem: net.config for stem, net in nets.items()}
    return _misfit(bundle.layout, bundle.discriminator_input, configs)


def code_range(flat: Any) -> tuple[int, int]:
    """The lowest and the highest of flat codes (N, length), which are read once."""
    ranges = [(flat[rows].min(), flat[rows].max()) for rows in blocks(flat)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _misfit(layout: CodeLayout, discriminator_input: str, configs: Mapping[str, Any]) -> str | None:
    """How nets, given by their configs and stems, do not fit the layout; None if they do."""
    levels, num_codes = layout.levels, layout.num_codes
    vqvae, discriminator = configs["vqvae"], configs["discriminator"]
    if (vqvae.grids, vqvae.num_codes) != (levels, num_codes):
        return f"{layout} does not fit the VQ-VAE's {vqvae}"
    above = [None, *levels[:-1]]  # the grids that each level's net is conditioned on
    for kind in ("prior", "oracle"):
        nets = [config for stem, config in configs.items() if stem.startswith(kind)]
        fits = [(n.grid, n.num_codes, n.condition_grid) for n in nets] == [
            (grid, num_codes, condition) for grid, condition in zip(levels, above, strict=True)
        ]
        if not fits and (nets or kind == "prior"):
            return f"{layout} does not fit the {kind}s' {nets}"
    channels = {"image": 3, "codes": vqvae.code_dim * len(levels)}
    if discriminator.in_channels != channels.get(discriminator_input):
        return (
            f"discriminator has input {discriminator_input!r} and {discriminator.in_channels} "
            f"channels, expected one of {channels}"
        )
    return None


def _wrong_settings(bundle: Bundle) -> str | None:
    """What is wrong with a bundle's numbers; None if nothing is."""
    if not 0 < bundle.reward_scale < float("inf"):
        return f"reward_scale {bundle.reward_scale}, expected above 0"
    count = len(bundle.flat_codes)
    if any(not 0 <= start < end <= count for start, end in bundle.splits.values()):
        return f"splits {dict(bundle.splits)} do not fit {count} images"
    return None

"""The safetensors files of a bundle: nets, made again from their configs.

A file's header is compared with the config before a net is built, so building costs no more than
the file is large, and what it holds is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ral_env.bundle.limits import wrong_config
from ral_env.bundle.manifest import BundleError
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
from ral_env.nets.unfilled import unfilled

# What nets of a kind may be, and what each is made from.
NETS: dict[str, tuple[type[nn.Module], ...]] = {
    "vqvae": (VQVAE,),
    "discriminator": (PatchGAN,),
    "prior": (PixelCNN,),
    "policy": (PixelCNN,),
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
# How numbers of a type may be stored, as safetensors calls it.
STORED = {torch.float32: ("F16", "F32"), torch.int64: ("I64",)}


def kind_of(stem: str) -> str:
    """What kind of net has this stem: a key of :data:`NETS`, if the manifest is right."""
    return stem.partition("_")[0]


def read_net(file: Path, stem: str, values: Mapping[str, Any]) -> nn.Module:
    """A net on the CPU, in 32 bits and in eval mode, whatever are the defaults of the process.

    Raises:
        BundleError: if the file is not as :func:`empty_net` expects it, or holds what is not
            finite.
    """
    net = empty_net(file, stem, values)
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise BundleError(file, f"cannot be read ({error})") from error
    # Copies: what is read is a view of the file, which may change.
    weights = {
        name: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for name, value in stored.items()
    }
    if odd := [name for name, value in weights.items() if not torch.isfinite(value).all()]:
        raise BundleError(file, f"holds weights that are not finite in {', '.join(odd[:5])}")
    net.load_state_dict(weights, assign=True)
    return net.eval()


def empty_net(file: Path, stem: str, values: Mapping[str, Any]) -> Any:
    """The net of a config without its weights, whose names, shapes and types are in the file.

    Args:
        file: only its header is read.
        stem: says what kind of net it is.
        values: its config, as the manifest holds it.

    Raises:
        BundleError: if there is no such net, or the file is not one of its weights.
    """
    kind = kind_of(stem)
    if kind not in NETS:
        raise BundleError(file, f"is not readable: there are no nets of the kind {kind!r}")
    made_of = Mixture if kind == "oracle" and "styles" in values else NETS[kind][0]
    shapes, types = _header(file)
    wrong = wrong_config(CONFIGS[made_of], values)
    for field, value in values.items():
        if wrong or not field.endswith(("layers", "blocks")):
            continue
        if value > len(shapes):  # it would take for ever
            wrong = f"{field}={value}, of {len(shapes)} tensors"
    if wrong:
        raise BundleError(file, f"is not readable with its config ({wrong})")
    try:
        config = CONFIGS[made_of](**{name: tuples(value) for name, value in values.items()})
        with unfilled():  # shapes only
            net = made_of(config).to(torch.float32)
    except (RuntimeError, ValueError) as error:  # sizes that do not go together
        raise BundleError(file, f"is not readable with its config ({error})") from error
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    if odd := sorted(dict(shapes.items() ^ expected.items())):
        raise BundleError(file, f"does not fit its config in {', '.join(odd[:5])}")
    for name, value in net.state_dict().items():
        if types[name] not in (allowed := STORED[value.dtype]):
            raise BundleError(file, f"holds {name} as {types[name]}, expected one of {allowed}")
    return net


def _header(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes of the tensors in a safetensors file, and the types of their numbers, by name."""
    try:
        with safe_open(file, framework="pt") as weights:
            parts = [(name, weights.get_slice(name)) for name in weights.keys()]  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in parts}
            return shapes, {name: part.get_dtype() for name, part in parts}
    except (OSError, OverflowError, SafetensorError) as error:
        raise BundleError(file, f"is not readable ({error})") from error


def tuples(value: Any) -> Any:
    """JSON's lists back to the tuples that configs hold."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value

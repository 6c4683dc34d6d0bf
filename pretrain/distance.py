"""How far reconstructions are from their images: Fréchet distances, by torchmetrics."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.data import Images, Pixels
from pretrain.pixels import chunks, to_bytes, to_float
from pretrain.stages import Pretraining
from ral_env.bundle import absolute
from ral_env.files import sha256
from ral_env.nets import VQVAE, FeatureNet


def measure_distance(
    run: Pretraining,
    images: Images,
    vqvae: VQVAE,
    features: FeatureNet | None,
    inception: Path | None,
) -> dict[str, Any]:
    """The stage: the distances of the test images' reconstructions, see :func:`reconstruction`."""
    found = run.folder.once(
        "distance", lambda: reconstruction(vqvae, images.part("test"), features, inception)
    )
    run.folder.say("reconstruction distance", found)
    return found


@torch.no_grad()
def reconstruction(
    vqvae: VQVAE,
    images: Pixels,
    features: FeatureNet | None,
    inception: str | Path | None = None,
) -> dict[str, Any]:
    """Fréchet distances of images to their reconstructions U(E(x)).

    Args:
        vqvae: Makes the reconstructions.
        images: uint8 images (N, 3, S, S).
        features: A bundle's feature net. None leaves out the distance in its features.
        inception: File of the weights that torch-fidelity publishes for FID
            (``weights-inception-2015-12-05-6726825d.pth``). None leaves out FID. Images are resized
            to 299 pixels without antialiasing, as the first implementation did. torch-fidelity
            unpickles the file: use one that you trust.

    Returns:
        ``images`` (N), and with a feature net ``features`` (its distance) and ``space`` (its name),
        and with the weights ``rFID`` and ``inception`` (their SHA-256).

    Raises:
        ValueError: See :func:`check_inception`.
    """
    found: dict[str, Any] = {"images": len(images)}
    spaces: dict[str, FeatureNet | Path] = {}
    if features is not None and len(images) > 1:
        spaces["features"] = features
        found["space"] = features.config.name
    if inception is not None:
        spaces["rFID"] = check_inception(inception)
        found["inception"] = sha256(spaces["rFID"])
    for name, space in spaces.items():
        metric = _frechet_distance(space)
        for part in chunks(images):
            decoded = vqvae.decode(vqvae.encode(to_float(part)))
            metric.update(part, real=True)
            metric.update(to_bytes(decoded), real=False)
        found[name] = metric.compute().item()
    return found


def _frechet_distance(space: FeatureNet | Path) -> Any:
    """torchmetrics' distance in a feature net's space, or in Inception's of the weights' file."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    if isinstance(space, FeatureNet):
        return FrechetInceptionDistance(feature=_OfBytes(space))
    return FrechetInceptionDistance(
        feature=2048, feature_extractor_weights_path=str(space), antialias=False
    )


def check_inception(inception: str | Path) -> Path:
    """The file of Inception's weights, and the library that takes them, are there.

    Raises:
        ValueError: If one is not.
    """
    file = absolute(inception)
    if not file.is_file():
        raise ValueError(
            f"no file {file}: expected the weights that torch-fidelity publishes with its "
            "release, weights-inception-2015-12-05-6726825d.pth"
        )
    if importlib.util.find_spec("torch_fidelity") is None:
        raise ValueError("FID needs torch-fidelity: pip install 'ral-env[fid]'")
    return file


class _OfBytes(nn.Module):
    """A feature net as torchmetrics wants it: of uint8 images."""

    def __init__(self, net: FeatureNet):
        super().__init__()
        self.net = net
        self.num_features = net.config.features

    def forward(self, images: Tensor) -> Tensor:
        return self.net.features(to_float(images))

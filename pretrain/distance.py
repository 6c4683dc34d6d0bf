"""How far reconstructions are from their images: Fréchet distances, by torchmetrics."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.data import Pixels
from pretrain.vqvae import chunks, to_float
from ral_env.nets import VQVAE, FeatureNet


class _Bytes(nn.Module):
    """A feature net as torchmetrics wants it: of uint8 images."""

    def __init__(self, net: FeatureNet):
        super().__init__()
        self.net = net
        self.num_features = net.config.features

    def forward(self, images: Tensor) -> Tensor:
        return self.net.features(to_float(images))


@torch.no_grad()
def reconstruction(
    vqvae: VQVAE, images: Pixels, features: FeatureNet | None, inception: str | None = None
) -> dict[str, Any]:
    """Fréchet distances of images uint8 (N, 3, S, S) to U(E(x)), in what feature spaces there are.

    Args:
        features: a bundle's own feature net; none, no distance in it.
        inception: file of the weights that torch-fidelity publishes for FID
            (``weights-inception-2015-12-05-6726825d.pth``); none, no FID. Images are resized to 299
            pixels without antialiasing, as the first implementation did. torch-fidelity unpickles
            the file: use one that you trust.

    Returns:
        ``images`` (N), and where there is one ``features`` with the ``space`` it is in, and
        ``rFID`` with the weights' SHA-256 as ``inception``.

    Raises:
        ValueError: if the file is not there, or what FID needs is not installed.
    """
    found: dict[str, Any] = {"images": len(images)}
    spaces: dict[str, Any] = {}
    if features is not None and len(images) > 1:
        spaces["features"] = _Bytes(features)
        found["space"] = features.config.name
    if inception is not None:
        file = Path(inception)
        if not file.is_file():
            raise ValueError(
                f"no file {file}: expected the weights that torch-fidelity publishes with its "
                "release, weights-inception-2015-12-05-6726825d.pth"
            )
        found["inception"] = hashlib.sha256(file.read_bytes()).hexdigest()
        spaces["rFID"] = file
    if not spaces:
        return found
    from torchmetrics.image.fid import FrechetInceptionDistance

    for name, space in spaces.items():
        try:
            if isinstance(space, Path):
                metric = FrechetInceptionDistance(
                    feature=2048, feature_extractor_weights_path=str(space), antialias=False
                )
            else:
                metric = FrechetInceptionDistance(feature=space)
        except ModuleNotFoundError as error:
            raise ValueError("FID needs torch-fidelity: pip install 'ral-env[fid]'") from error
        for part in chunks(images):
            decoded = vqvae.decode(vqvae.encode(to_float(part)))
            metric.update(part, real=True)
            metric.update(((decoded + 1) * 127.5).round().byte(), real=False)
        found[name] = metric.compute().item()
    return found

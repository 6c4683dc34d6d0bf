"""Stage 1: a VQ-VAE learns to write images as grids of codes (paper section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents.training.optimise import Training, optimise
from agents.training.processes import Processes
from pretrain.data import Pixels
from ral_env.nets import VQVAE, VQVAEConfig

VALIDATION_BYTES = 2**28


@dataclass(frozen=True)
class VQVAETraining(Training):
    """How a VQ-VAE learns, beside what every training has.

    Args:
        beta: weight of the commitment loss; the paper's is 0.25.
        codebook_decay: of the moving averages that make the codebook.
        revive_below: a code whose moving count falls below this is replaced by an input vector.
        shift: augmentation: move each image by up to this many pixels, edges repeated.
    """

    steps: int = 3000
    final_rate: float = 0.0
    beta: float = 0.25
    codebook_decay: float = 0.99
    revive_below: int = 2
    shift: int = 0


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def shifted(images: Tensor, shift: int, generator: torch.Generator | None = None) -> Tensor:
    """Move each image by up to ``shift`` pixels in both directions; edge pixels are repeated."""
    if not shift:
        return images
    size = images.shape[-1]
    padded = F.pad(images.float(), (shift,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, offsets, strict=True)]
    )


def chunk(images: Pixels) -> int:
    """Images that a pass without gradient takes at a time: 512 of 32 pixels."""
    return max(8, 2**19 // images[:1].shape[-1] ** 2)


def chunks(images: Pixels) -> Iterator[Tensor]:
    """All images in order, uint8 (n, 3, S, S), as many at a time as :func:`chunk` says."""
    size = chunk(images)
    for first in range(0, len(images), size):
        yield images[first : first + size]


@torch.no_grad()
def encode(vqvae: VQVAE, images: Tensor) -> Tensor:
    """A batch of uint8 images (n, 3, S, S) to flat int64 codes (n, length), top first."""
    grids = vqvae.encode(to_float(images.to(vqvae.codebooks.device)))
    return torch.cat([grid.flatten(1) for grid in grids], 1)


def extract(vqvae: VQVAE, images: Pixels) -> np.ndarray:
    """Flat int64 codes (N, length) of all images, in memory; :mod:`pretrain.codes` writes them to
    a file."""
    vqvae.eval()
    return torch.cat([encode(vqvae, part) for part in chunks(images)]).cpu().numpy()


def usage(codes: np.ndarray, config: VQVAEConfig) -> dict[str, float]:
    """How well flat codes (N, length) use the codebooks.

    Returns:
        ``perplexity`` (exp of the entropy of code frequencies) and ``used``; for finer levels of a
        hierarchy ``perplexity_1``, ``used_1``, and so on.
    """
    found: dict[str, float] = {}
    first = 0
    for level, (height, width) in enumerate(config.grids):
        part = codes[:, first : first + height * width]
        first += height * width
        counts = np.zeros(config.num_codes, np.int64)
        for row in range(0, len(part), 2**14):  # they may be on disk, and many
            counts += np.bincount(part[row : row + 2**14].ravel(), minlength=config.num_codes)
        share = counts / part.size
        nonzero = share[share > 0]
        suffix = f"_{level}" if level else ""
        found[f"perplexity{suffix}"] = float(np.exp(-(nonzero * np.log(nonzero)).sum()))
        found[f"used{suffix}"] = len(nonzero)
    return found


def codebooks(config: VQVAEConfig, training: VQVAETraining) -> list[Any]:
    """What learns the codebooks, one a level: the library keeps the moving averages, k-means start
    and dead-code revival; our net keeps just the codebooks that come out."""
    from vector_quantize_pytorch import VectorQuantize

    return [
        VectorQuantize(
            dim=config.code_dim,
            codebook_size=config.num_codes,
            decay=training.codebook_decay,
            commitment_weight=training.beta,
            rotation_trick=False,
            kmeans_init=True,
            threshold_ema_dead_code=training.revive_below,
            accept_image_fmap=True,
        )
        for _ in range(config.levels)
    ]


def losses(vqvae: VQVAE, quantisers: Sequence[Any], shift: int, batch: Tensor) -> dict[str, Tensor]:
    """``reconstruction`` and ``commitment`` of uint8 images (n, 3, S, S)."""
    images = to_float(shifted(batch, shift))
    commitments = []

    def nearest(level: int, vectors: Tensor) -> Tensor:
        quantised, _, commitment = quantisers[level](vectors)
        commitments.append(commitment)
        return quantised

    decoded = vqvae.decode_vectors(vqvae.quantise(images, nearest))
    commitment = torch.stack(commitments).sum()
    return {"reconstruction": F.mse_loss(decoded, images), "commitment": commitment}


def fit(
    config: VQVAEConfig,
    images: Pixels,
    validation: Pixels,
    training: VQVAETraining,
    seed: int = 0,
    **options: Any,
) -> tuple[VQVAE, list[dict[str, float]]]:
    """Train a VQ-VAE on uint8 images (N, 3, S, S).

    Args:
        images: read a batch at a time; ``training.workers`` processes do it ahead.
        validation: the first of these, up to 256 MB, are kept in memory and looked at each time:
            87,381 of 32 pixels, 1,365 of 256.
        options: ``log``, ``checkpoint``, ``device``: see :func:`agents.training.optimise.optimise`.

    Returns:
        The net, and rows of ``step``, ``seconds``, ``train_reconstruction``, ``train_commitment``,
        ``reconstruction`` (mean squared error on the validation images, pixels in [-1, 1]), and
        what :func:`usage` says of their codes.
    """
    held = validation[: VALIDATION_BYTES // validation[:1].nbytes]
    # It looks once, when it is built, whether there are processes to share its averages with.
    Processes(options.get("device", "cpu"))
    torch.manual_seed(seed)
    vqvae = VQVAE(config)
    quantisers = codebooks(config, training)

    def validate(net: Any) -> dict[str, float]:
        books = [quantiser.codebook.detach() for quantiser in quantisers]
        net.codebooks.copy_(torch.stack(books))
        error = reconstruction_error(net, held)
        return {"reconstruction": error, **usage(extract(net, held), config)}

    rows = optimise(
        vqvae,
        partial(losses, vqvae, quantisers, training.shift),
        lambda index: images[index],
        len(images),
        validate,
        training,
        seed=seed,
        also=quantisers,
        **options,
    )
    return vqvae, rows


@torch.no_grad()
def reconstruction_error(vqvae: VQVAE, images: Pixels) -> float:
    """Mean squared error of U(E(x)) over uint8 images, pixels in [-1, 1]."""
    vqvae.eval()
    total = 0.0
    for part in chunks(images):
        x = to_float(part.to(vqvae.codebooks.device))
        total += F.mse_loss(vqvae.decode(vqvae.encode(x)), x).item() * len(part)
    return total / len(images)

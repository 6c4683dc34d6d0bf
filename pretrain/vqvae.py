"""Stage 1: a VQ-VAE learns to write images as grids of codes (paper section 3)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ral_env.nets import VQVAE, VQVAEConfig


@dataclass(frozen=True)
class VQVAETraining:
    """How a VQ-VAE learns.

    Args:
        steps: updates.
        batch: images an update; the paper's is 128.
        learning_rate: of Adam, cosine to zero.
        beta: weight of the commitment loss; the paper's is 0.25.
        decay: of the moving averages that make the codebook.
        revive_below: a code whose moving count falls below this is replaced by an input vector.
        shift: augmentation: move each image by up to this many pixels, edges repeated.
    """

    steps: int = 3000
    batch: int = 128
    learning_rate: float = 1e-3
    beta: float = 0.25
    decay: float = 0.99
    revive_below: int = 2
    shift: int = 0


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def shifted(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to ``shift`` pixels in both directions; edge pixels are repeated."""
    if not shift:
        return images
    size = images.shape[-1]
    padded = F.pad(images.float(), (shift,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, offsets, strict=True)]
    )


@torch.no_grad()
def extract(vqvae: VQVAE, images: Tensor, batch: int = 512) -> np.ndarray:
    """Stage 2's data: uint8 images (N, 3, S, S) to flat codes (N, length), int64, top first."""
    vqvae.eval()
    parts = [
        torch.cat([grid.flatten(1) for grid in vqvae.encode(to_float(part))], 1)
        for part in images.split(batch)
    ]
    return torch.cat(parts).numpy()


def usage(codes: np.ndarray, num_codes: int) -> dict[str, float]:
    """Codebook usage: ``perplexity`` (exp of the entropy of code frequencies) and ``used``."""
    share = np.bincount(codes.ravel(), minlength=num_codes) / codes.size
    nonzero = share[share > 0]
    return {
        "perplexity": float(np.exp(-(nonzero * np.log(nonzero)).sum())),
        "used": len(nonzero),
    }


def fit(
    config: VQVAEConfig,
    images: Tensor,
    validation: Tensor,
    training: VQVAETraining,
    seed: int = 0,
    log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[VQVAE, list[dict[str, float]]]:
    """Train a VQ-VAE on uint8 images (N, 3, S, S).

    Returns:
        The net, and rows of ``step``, ``seconds``, ``reconstruction`` (mean squared error on the
        validation images, pixels in [-1, 1]), ``perplexity`` and ``used`` (codes, of the same).
    """
    # The library keeps the moving averages, k-means start and dead-code revival; our net keeps
    # just the codebook that comes out.
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    vqvae = VQVAE(config)
    quantise = VectorQuantize(
        dim=config.code_dim,
        codebook_size=config.num_codes,
        decay=training.decay,
        commitment_weight=training.beta,
        rotation_trick=False,
        kmeans_init=True,
        threshold_ema_dead_code=training.revive_below,
        accept_image_fmap=True,
    )
    optimizer = torch.optim.Adam(vqvae.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    every = max(1, training.steps // 10)
    start, history = time.perf_counter(), []
    for step in range(1, training.steps + 1):
        vqvae.train()
        quantise.train()
        index = torch.randint(len(images), (training.batch,), generator=generator)
        batch = to_float(shifted(images[index], training.shift, generator))
        quantised, _, commitment = quantise(vqvae.encode_vectors(batch))
        loss = F.mse_loss(vqvae.decode_vectors(quantised), batch) + commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == training.steps:
            vqvae.codebook.copy_(quantise.codebook.detach())
            codes = extract(vqvae, validation)
            history.append(
                {
                    "step": step,
                    "seconds": time.perf_counter() - start,
                    "reconstruction": reconstruction_error(vqvae, validation),
                    **usage(codes, config.num_codes),
                }
            )
            if log:
                log(history[-1])
    vqvae.eval()
    return vqvae, history


@torch.no_grad()
def reconstruction_error(vqvae: VQVAE, images: Tensor, batch: int = 512) -> float:
    """Mean squared error of U(E(x)) over uint8 images, pixels in [-1, 1]."""
    vqvae.eval()
    total = 0.0
    for part in images.split(batch):
        x = to_float(part)
        total += F.mse_loss(vqvae.decode(vqvae.encode(x)), x).item() * len(part)
    return total / len(images)

"""Stage 1: a VQ-VAE learns to write images as grids of codes (paper section 3)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents.training.files import Row
from agents.training.optimise import optimise
from agents.training.processes import Processes
from pretrain.base import begin_from
from pretrain.configs import VQVAETraining
from pretrain.data import Images, Pixels
from pretrain.pixels import chunks, shifted, to_bytes, to_float
from pretrain.stages import SHOWN, Pretraining
from ral_env.nets import VQVAE, VQVAEConfig
from ral_env.picture import tiled

VALIDATION_BYTES = 2**28


def train_vqvae(run: Pretraining, images: Images) -> tuple[VQVAE, dict[str, Any]]:
    """The stage: train the recipe's VQ-VAE, or with a base its decoder; warn if a codebook has
    collapsed.

    Returns:
        The net, and the figures ``reconstruction`` (see :func:`fit`) and ``vqvae_curve`` (rows).
    """
    recipe = run.recipe
    shown = images.part("validation")[:SHOWN]

    @torch.no_grad()
    def draw(net: VQVAE) -> np.ndarray:
        """A row of images, and below it their reconstructions."""
        x = to_float(shown.to(net.codebooks.device))
        decoded = to_bytes(net.decode(net.encode(x))).cpu()
        return tiled(torch.cat([shown, decoded]).numpy(), len(shown), fill=255)

    net, rows = fit(
        recipe.vqvae,
        images.part("train"),
        images.part("validation"),
        recipe.vqvae_training,
        run.seed,
        base=run.base and run.base.vqvae,
        **run.optimiser_options("vqvae", draw),
    )
    best = min(rows, key=lambda row: row["reconstruction"])
    warn_of_collapse(best, recipe.vqvae, run.base and run.base.name)
    metrics = {"reconstruction": best["reconstruction"], "vqvae_curve": rows}
    return run.rounded(net), metrics


def warn_of_collapse(usage: Row, config: VQVAEConfig, base: str | None = None) -> None:
    """Warn of levels whose codebook's perplexity is below an eighth of its codes.

    Args:
        usage: See :func:`usage`.
        config: Sizes of the net.
        base: Name of the bundle whose codes they are; None if they were learnt here.
    """
    remedy = (
        "Try fewer codes, a larger batch, a smaller codebook_decay, revive_below=2 or more, or "
        "more images"
    )
    if base is not None:
        remedy = f"They are the codes of {base}: try images that are like its own, or another base"
    for level in range(config.levels):
        perplexity = usage[f"perplexity_{level}" if level else "perplexity"]
        if perplexity < config.num_codes / 8:
            warnings.warn(
                f"the codebook of level {level} has collapsed: its perplexity is "
                f"{perplexity:.1f} of {config.num_codes} codes. {remedy}",
                stacklevel=3,
            )


def fit(
    config: VQVAEConfig,
    images: Pixels,
    validation: Pixels,
    training: VQVAETraining,
    seed: int = 0,
    base: VQVAE | None = None,
    **options: Any,
) -> tuple[VQVAE, list[Row]]:
    """Train a VQ-VAE on uint8 images (N, 3, S, S).

    Args:
        config: Sizes of the net.
        images: Training images, read a batch at a time, ahead by ``training.workers`` processes.
        validation: Validation images. The first of them, up to 256 MB, are held in memory and used
            at each validation: 87,381 of 32 pixels, 1,365 of 256.
        training: How it learns.
        seed: Seed of the weights, the codebooks, the order of images and augmentation.
        base: A smaller one that fits (see :mod:`pretrain.base`), which the net begins from: only
            the decoder learns. None trains everything.
        options: ``log``, ``label``, ``checkpoint`` and ``device`` of
            :func:`agents.training.optimise.optimise`.

    Returns:
        The net, and rows of ``step``, ``seconds``, ``train_reconstruction``, ``train_commitment``
        (without a base), ``reconstruction`` (mean squared error on the validation images, pixels in
        [-1, 1]), and the figures of :func:`usage` for their codes.
    """
    held_out = validation[: VALIDATION_BYTES // validation[:1].nbytes]
    # A codebook looks once, when it is built, whether there are processes to share averages with.
    Processes(options.get("device", "cpu"))
    torch.manual_seed(seed)
    vqvae = VQVAE(config)
    quantisers: list[Any] = []
    if base is None:
        quantisers = codebooks(config, training)
        learnt = partial(losses, vqvae, quantisers, training.shift)
    else:
        begin_from(vqvae, base)
        learnt = partial(decoder_losses, vqvae, training.shift)

    def validate(net: Any) -> Row:
        if quantisers:
            vectors = [quantiser.codebook.detach() for quantiser in quantisers]
            net.codebooks.copy_(torch.stack(vectors))
        error = reconstruction_error(net, held_out)
        return {"reconstruction": error, **usage(extract(net, held_out), config)}

    rows = optimise(
        vqvae,
        learnt,
        lambda index: images[index],
        len(images),
        validate,
        training,
        seed=seed,
        also=quantisers,
        **options,
    )
    return vqvae, rows


def codebooks(config: VQVAEConfig, training: VQVAETraining) -> list[Any]:
    """The modules that learn the codebooks, one per level.

    The library has the moving averages, the k-means start and the revival of dead codes; our net
    takes over just the codebooks that come out.
    """
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
    """``reconstruction`` and ``commitment`` losses of uint8 images (n, 3, S, S)."""
    images = to_float(shifted(batch, shift))
    commitments = []

    def nearest(level: int, vectors: Tensor) -> Tensor:
        quantised, _, commitment = quantisers[level](vectors)
        commitments.append(commitment)
        return quantised

    decoded = vqvae.decode_vectors(vqvae.quantise(images, nearest))
    commitment = torch.stack(commitments).sum()
    return {"reconstruction": F.mse_loss(decoded, images), "commitment": commitment}


def decoder_losses(vqvae: VQVAE, shift: int, batch: Tensor) -> dict[str, Tensor]:
    """``reconstruction`` loss of uint8 images (n, 3, S, S), whose codes are chosen in 32 bits, as
    :meth:`VQVAE.encode` does."""
    images = to_float(shifted(batch, shift))
    with torch.autocast(images.device.type, enabled=False):
        vectors = vqvae.lookup(vqvae.encode(images))
    return {"reconstruction": F.mse_loss(vqvae.decode_vectors(vectors), images)}


@torch.no_grad()
def reconstruction_error(vqvae: VQVAE, images: Pixels) -> float:
    """Mean squared error of U(E(x)) over uint8 images, pixels in [-1, 1]."""
    vqvae.eval()
    total = 0.0
    for part in chunks(images):
        x = to_float(part.to(vqvae.codebooks.device))
        total += F.mse_loss(vqvae.decode(vqvae.encode(x)), x).item() * len(part)
    return total / len(images)


@torch.no_grad()
def encode(vqvae: VQVAE, images: Tensor) -> Tensor:
    """A batch of uint8 images (n, 3, S, S) to flat int64 codes (n, length), coarsest level
    first."""
    grids = vqvae.encode(to_float(images.to(vqvae.codebooks.device)))
    return torch.cat([grid.flatten(1) for grid in grids], 1)


def extract(vqvae: VQVAE, images: Pixels) -> np.ndarray:
    """Flat int64 codes (N, length) of all images, in memory.

    :mod:`pretrain.codes` writes those of a whole data set to a file.
    """
    vqvae.eval()
    return torch.cat([encode(vqvae, part) for part in chunks(images)]).cpu().numpy()


def usage(codes: np.ndarray, config: VQVAEConfig) -> Row:
    """How well flat codes (N, length) use the codebooks.

    Returns:
        ``perplexity`` (exp of the entropy of code frequencies) and ``used`` (number of codes that
        occur); for finer levels of a hierarchy ``perplexity_1``, ``used_1``, and so on.
    """
    figures: Row = {}
    first = 0
    for level, (height, width) in enumerate(config.grids):
        part = codes[:, first : first + height * width]
        first += height * width
        counts = np.zeros(config.num_codes, np.int64)
        for row in range(0, len(part), 2**14):  # they may be on disk, and many
            counts += np.bincount(part[row : row + 2**14].ravel(), minlength=config.num_codes)
        frequencies = counts / part.size
        nonzero = frequencies[frequencies > 0]
        suffix = f"_{level}" if level else ""
        figures[f"perplexity{suffix}"] = float(np.exp(-(nonzero * np.log(nonzero)).sum()))
        figures[f"used{suffix}"] = len(nonzero)
    return figures

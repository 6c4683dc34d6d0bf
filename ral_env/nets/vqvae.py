"""VQ-VAE: images to grids of codes and back (paper section 3; sizes in supplement Tables 4-10)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes of a VQ-VAE, in the words of the paper's tables.

    Args:
        image_size: side of the square image, in pixels.
        hidden: channels of the trunk.
        residual: inner channels of a residual block.
        layers: strided convolutions; each halves the side, so the grid is image_size / 2**layers.
        num_codes: entries of the codebook.
        code_dim: length of a codebook vector.
        levels: code grids of an image. One is built so far.
    """

    image_size: int
    hidden: int = 128
    residual: int = 64
    layers: int = 3
    num_codes: int = 512
    code_dim: int = 64
    levels: int = 1

    def __post_init__(self) -> None:
        if self.levels != 1:
            raise ValueError(f"levels={self.levels}: only one level of codes is supported")
        if self.image_size % 2**self.layers:
            raise ValueError(
                f"image_size={self.image_size} is not divisible by 2**layers={2**self.layers}"
            )

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of each level's code grid, top first."""
        side = self.image_size // 2**self.layers
        return ((side, side),)


class ResidualBlock(nn.Module):
    def __init__(self, hidden: int, residual: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(hidden, residual, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(residual, hidden, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class VQVAE(nn.Module):
    """Encoder E, codebook C and decoder U.

    The decoder is fully convolutional: a grid of any number of rows decodes to a picture that is
    only that tall, which is what partial generation needs (paper section 4.3).
    """

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = config
        hidden, residual = config.hidden, config.residual
        # The paper's "transposed convolution for downsampling" is read as a strided convolution.
        down: list[nn.Module] = []
        for layer in range(config.layers):
            down += [nn.Conv2d(hidden if layer else 3, hidden, 3, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(
            *down,
            nn.Conv2d(hidden, hidden, 3, padding=1),
            ResidualBlock(hidden, residual),
            ResidualBlock(hidden, residual),
            nn.ReLU(),
            nn.Conv2d(hidden, config.code_dim, 1),
        )
        up: list[nn.Module] = []
        for layer in range(config.layers):
            last = layer == config.layers - 1
            up += [nn.ReLU(), nn.ConvTranspose2d(hidden, 3 if last else hidden, 4, 2, padding=1)]
        self.decoder = nn.Sequential(
            nn.Conv2d(config.code_dim, hidden, 3, padding=1),
            ResidualBlock(hidden, residual),
            ResidualBlock(hidden, residual),
            *up,
        )
        # A buffer, not a parameter: moving averages write it, no gradient does (see pretrain).
        self.codebook: Tensor
        self.register_buffer("codebook", torch.randn(config.num_codes, config.code_dim))

    def encode_vectors(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to vectors before quantisation (B, code_dim, h, w)."""
        return self.encoder(images)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Codebook vectors (B, code_dim, h, w) to images (B, 3, H, W), not clamped."""
        return self.decoder(vectors)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [-1, 1] to codes: one int64 grid (B, h, w) a level, top first.

        Raises:
            ValueError: if the images have another shape or are not floating point.
        """
        size = self.config.image_size
        if images.dim() != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"images have shape {tuple(images.shape)}, expected (B, 3, {size}, {size})"
            )
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}, expected floats in [-1, 1]")
        vectors = self.encode_vectors(images).permute(0, 2, 3, 1)  # (B, h, w, D)
        distances = torch.cdist(vectors.flatten(0, 2), self.codebook)  # (B*h*w, K)
        return [distances.argmin(1).view(vectors.shape[:3])]

    def lookup(self, codes: list[Tensor]) -> Tensor:
        """Codes, a grid a level, to their codebook vectors (B, code_dim, h, w)."""
        (grid,) = codes
        return F.embedding(grid.long(), self.codebook).permute(0, 3, 1, 2)

    def decode(self, codes: list[Tensor]) -> Tensor:
        """Codes, a grid (B, h, w) a level, to images (B, 3, H, W) in [-1, 1].

        Any number of rows decodes; a picture is ``2**layers`` pixels tall for each row of codes.
        """
        return self.decode_vectors(self.lookup(codes)).clamp(-1, 1)

    def represent(self, codes: list[Tensor], kind: str) -> Tensor:
        """What a discriminator is shown of these codes: their ``image``, or the ``codes``' vectors.

        Raises:
            ValueError: if ``kind`` is neither.
        """
        if kind not in ("image", "codes"):
            raise ValueError(f"discriminator input {kind!r}, expected 'image' or 'codes'")
        return self.decode(codes) if kind == "image" else self.lookup(codes)

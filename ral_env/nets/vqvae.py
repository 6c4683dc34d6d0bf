"""VQ-VAE and VQ-VAE-2: images to grids of codes and back.

Paper section 3, sizes in supplement Tables 4-10. Two levels are those of Razavi et al. 2019,
"Generating Diverse High-Fidelity Images with VQ-VAE-2" (arXiv 1906.00446): the top codes are chosen
first, and the bottom encoder is told what they decode to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ral_env.nets.protocol import represent
from ral_env.nets.shapes import Grid, Grids, GridVectors, Images, Inputs
from ral_env.ranges import check_ranges


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes of a VQ-VAE, in the words of the paper's tables.

    Args:
        image_size: Side of the square image, in pixels.
        hidden: Number of channels of the encoder and the decoder.
        residual: Number of inner channels of a residual block.
        layers: Number of strided convolutions of the encoder, down to the finest grid; each halves
            the side of what it sees: of the image, averaged where ``enlarge`` says so.
        num_codes: Number of entries of each level's codebook.
        code_dim: Length of a codebook vector.
        levels: Number of code grids of an image. The finest has image_size / enlarge / 2**layers
            cells a side, each coarser one half as many.
        blocks: Number of residual blocks at each grid, in the encoder and in the decoder. The
            paper has 2; more of them see further, and cost little where the grid is coarse.
        narrow: Whether each doubling of the resolution above the finest grid halves the number of
            channels, instead of the paper's ``hidden`` at every resolution: most of the time goes
            there.
        enlarge: Side of the squares, in pixels, over which the image is averaged before the encoder
            sees it; a power of two. The codes are those of an image that much smaller, and the
            decoder has log2(enlarge) strided stages more than the encoder. 1 averages nothing.

    Raises:
        ValueError: If a size is out of its range, ``enlarge`` is no power of two, or the image's
            side cannot be halved so often.
    """

    image_size: int
    hidden: int = 128
    residual: int = 64
    layers: int = 3
    num_codes: int = 512
    code_dim: int = 64
    levels: int = 1
    blocks: int = 2
    narrow: bool = False
    enlarge: int = 1

    def __post_init__(self) -> None:
        check_ranges(
            self,
            image_size="[1, inf)",
            hidden="[1, inf)",
            residual="[1, inf)",
            layers="[1, inf)",
            num_codes="[1, inf)",
            code_dim="[1, inf)",
            levels="[1, inf)",
            blocks="[1, inf)",
            enlarge="[1, inf)",
        )
        if 2**self.averagings != self.enlarge:
            raise ValueError(f"enlarge={self.enlarge}, expected a power of two: 1, 2, 4, ...")
        halvings = self.averagings + self.layers + self.levels - 1
        if self.image_size % 2**halvings:
            raise ValueError(
                f"image_size={self.image_size} is not divisible by 2**{halvings}={2**halvings} "
                f"(layers={self.layers}, levels={self.levels}, enlarge={self.enlarge})"
            )

    @property
    def averagings(self) -> int:
        """How often the image's side is halved before the encoder sees it: log2 of ``enlarge``."""
        return self.enlarge.bit_length() - 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels after each strided convolution, those of the finest grid last."""
        return self._channels(self.layers)

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        """Number of channels before each strided stage of the decoder, those of the finest grid
        first."""
        return self._channels(self.layers + self.averagings)[::-1]

    def _channels(self, resolutions: int) -> tuple[int, ...]:
        """Number of channels at so many resolutions, that of the finest grid and its doublings;
        the grid's last."""
        doublings = range(resolutions - 1, -1, -1)
        return tuple(max(1, self.hidden >> n) if self.narrow else self.hidden for n in doublings)

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of each level's code grid, top first."""
        finest = self.image_size // self.enlarge // 2**self.layers
        sides = [finest // 2**above for above in reversed(range(self.levels))]
        return tuple((side, side) for side in sides)


class ResidualBlock(nn.Module):
    """x + f(x), where f has a 3x3 and a 1x1 convolution.

    Args:
        hidden: Number of channels of x.
        residual: Number of channels between the convolutions.
    """

    def __init__(self, hidden: int, residual: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(hidden, residual, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(residual, hidden, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, hidden, h, w) to features of the same shape."""
        return x + self.body(x)


class VQVAE(nn.Module):
    """Encoder E, codebook C (one for each level) and decoder U.

    The decoder is fully convolutional: grids of any number of rows decode to a picture that is only
    that tall, which is what partial generation needs (paper section 4.3).
    """

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = config
        hidden, residual, dim = config.hidden, config.residual, config.code_dim
        above = range(config.levels - 1)  # levels that have a finer one below them

        def body() -> list[nn.Module]:
            return [ResidualBlock(hidden, residual) for _ in range(config.blocks)]

        # The paper's "transposed convolution for downsampling" is read as a strided convolution.
        down: list[nn.Module] = []
        for finer, coarser in pairwise((3, *config.channels)):
            down += [nn.Conv2d(finer, coarser, 3, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(
            *down, nn.Conv2d(hidden, hidden, 3, padding=1), *body(), nn.ReLU()
        )
        self.coarser = nn.ModuleList(
            nn.Sequential(nn.Conv2d(hidden, hidden, 3, stride=2, padding=1), *body(), nn.ReLU())
            for _ in above
        )
        # What a level's codes tell the encoder of the next finer one.
        self.finer = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, hidden, 3, padding=1),
                *body(),
                nn.ReLU(),
                nn.ConvTranspose2d(hidden, hidden, 4, 2, padding=1),
            )
            for _ in above
        )
        self.project = nn.ModuleList(
            nn.Conv2d(2 * hidden if level else hidden, dim, 1) for level in range(config.levels)
        )
        self.enlarge = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.ConvTranspose2d(dim, dim, 4, 2, padding=1)
                    for _ in range(config.levels - 1 - level)
                )
            )
            for level in above
        )
        up: list[nn.Module] = []
        for coarser, finer in pairwise((*config.decoder_channels, 3)):
            up += [nn.ReLU(), nn.ConvTranspose2d(coarser, finer, 4, 2, padding=1)]
        self.decoder = nn.Sequential(
            nn.Conv2d(config.levels * dim, hidden, 3, padding=1), *body(), *up
        )
        # A buffer, not a parameter: moving averages write it, no gradient does (see pretrain).
        self.codebooks: Tensor  # (levels, num_codes, code_dim)
        codebooks = torch.empty(config.levels, config.num_codes, dim)
        self.register_buffer("codebooks", nn.init.normal_(codebooks))

    def averaged(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) as the encoder sees them: (B, 3, H / enlarge, W / enlarge).

        They are halved one time after another: the codes are then, to the bit, those of a VQ-VAE
        with the same weights and a smaller ``enlarge``, whose images were averaged as often as it
        takes.
        """
        for _ in range(self.config.averagings):
            images = F.avg_pool2d(images, 2)
        return images

    def quantise(self, images: Tensor, nearest: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        """Encode, with the caller's quantiser: the pass that pretraining and :meth:`encode` share.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            nearest: Called with a level (0 is the top) and its vectors (B, code_dim, h, w); returns
                the quantised vectors, of the same shape.

        Returns:
            What ``nearest`` returned for each level, top first.
        """
        features = [self.encoder(self.averaged(images))]
        for coarser in self.coarser:
            features.insert(0, coarser(features[0]))
        vectors: list[Tensor] = []
        for level, (project, x) in enumerate(zip(self.project, features, strict=True)):
            if level:
                x = torch.cat([x, self.finer[level - 1](vectors[-1])], 1)
            vectors.append(nearest(level, project(x)))
        return vectors

    def decode_vectors(self, vectors: Sequence[GridVectors]) -> Images:
        """Codebook vectors (B, code_dim, h, w), a level each, to images (B, 3, H, W), unclamped."""
        above = [enlarge(v) for enlarge, v in zip(self.enlarge, vectors[:-1], strict=True)]
        return self.decoder(torch.cat([*above, vectors[-1]], 1))

    @torch.no_grad()
    def encode(self, images: Images) -> list[Grid]:
        """Images (B, 3, H, W) in [-1, 1] to codes: one int64 grid (B, h, w) a level, top first.

        Raises:
            ValueError: If the images have another shape or are not floating point.
        """
        size = self.config.image_size
        if images.dim() != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"images have shape {tuple(images.shape)}, expected (B, 3, {size}, {size})"
            )
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}, expected floats in [-1, 1]")
        codes: list[Tensor] = []

        def nearest(level: int, vectors: Tensor) -> Tensor:
            flat = vectors.permute(0, 2, 3, 1)  # (B, h, w, D)
            distances = torch.cdist(flat.flatten(0, 2), self.codebooks[level])  # (B*h*w, K)
            codes.append(distances.argmin(1).view(flat.shape[:3]))
            return self._vectors(level, codes[-1])

        self.quantise(images, nearest)
        return codes

    def _vectors(self, level: int, grid: Tensor) -> Tensor:
        """Codes (B, h, w) of a level to their codebook vectors (B, code_dim, h, w)."""
        return F.embedding(grid.long(), self.codebooks[level]).permute(0, 3, 1, 2)

    def lookup(self, codes: Grids) -> list[GridVectors]:
        """Codes, a grid (B, h, w) a level, to their codebook vectors (B, code_dim, h, w) each.

        Raises:
            ValueError: If there are not as many grids as levels.
        """
        if len(codes) != self.config.levels:
            raise ValueError(f"{len(codes)} grids of codes, expected {self.config.levels}")
        return [self._vectors(level, grid) for level, grid in enumerate(codes)]

    def decode(self, codes: Grids) -> Images:
        """Codes, a grid (B, h, w) a level, to images (B, 3, H, W) in [-1, 1].

        Any number of rows decodes; a picture is ``enlarge * 2**layers`` pixels tall for each row of
        the finest grid.
        """
        return self.decode_vectors(self.lookup(codes)).clamp(-1, 1)

    def represent(self, codes: Grids, kind: str) -> Inputs:
        """See :func:`ral_env.nets.represent`."""
        return represent(self, codes, kind)

"""What an image tokeniser and a prior have to do, whoever made them.

:class:`VQVAE` and :class:`PixelCNN` are one each. Others are torch modules that have these
methods; they need not inherit anything from here.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F

from ral_env.nets.shapes import Codes, Condition, Grids, Images, Inputs, LogProbs


@runtime_checkable
class Codec(Protocol):
    """Decodes codes to images. Codes are a list: an int64 grid (B, h, w) a level, coarsest first.

    Two methods more are called where a codec has them:

    - ``encode(images) -> codes``, of float32 images (B, 3, S, S) in [-1, 1]: for ``ral complete``.
    - ``lookup(codes) -> vectors``, (B, D, h, w) a level: for discriminators that see ``"codes"``.
    """

    def decode(self, codes: Grids, /) -> Images:
        """Return images, float32 (B, 3, H, W) in [-1, 1].

        Grids may have fewer rows than a whole image's, all levels in proportion: they decode to the
        upper part of an image, whose height is smaller in proportion.
        """
        ...


@runtime_checkable
class Sampler(Protocol):
    """Writes the codes (B, h, w) of a level."""

    def sample(
        self,
        prefix: Codes,
        condition: Condition | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Codes:
        """Return the prefix, int64 (B, h, w), with every EMPTY cell written, all others as given.

        EMPTY is ``num_codes``. All randomness comes from ``generator``. ``condition`` and
        ``temperature`` are those of :class:`Prior`.
        """
        ...


@runtime_checkable
class Prior(Sampler, Protocol):
    """A distribution over a level's codes (B, h, w), one after the other in raster order.

    ``condition`` holds the codes of the level above, int64 (B, h', w'), and is None for the
    coarsest level. Both may have fewer rows than those of a whole image.
    """

    def log_prob(
        self, codes: Codes, condition: Condition | None = None, temperature: float = 1.0
    ) -> LogProbs:
        """log G of every code given those before it, in nats: (B, h, w). Differentiable.

        ``temperature`` divides the logits.
        """
        ...


def represent(codec: Codec, codes: Grids, kind: str) -> Inputs:
    """The discriminator's input for these codes.

    Args:
        codec: Decodes the codes, or looks up their vectors.
        codes: A grid (B, h, w) a level, the coarsest first.
        kind: ``image`` for images (B, 3, H, W), or ``codes`` for the vectors of all levels on the
            finest grid, coarser ones repeated: (B, sum of D, h, w).

    Raises:
        ValueError: If ``kind`` is neither, or the codec has no vectors.
    """
    if kind not in ("image", "codes"):
        raise ValueError(f"discriminator input {kind!r}, expected 'image' or 'codes'")
    if kind == "image":
        return codec.decode(codes)
    lookup: Any = getattr(codec, "lookup", None)
    if lookup is None:
        raise ValueError(
            f"a discriminator that sees 'codes' needs the codec's vectors, but "
            f"{type(codec).__name__} has no lookup(codes): add it, or let it see 'image'"
        )
    vectors = lookup(codes)
    size = vectors[-1].shape[2:]
    return torch.cat([*(F.interpolate(v, size) for v in vectors[:-1]), vectors[-1]], 1)

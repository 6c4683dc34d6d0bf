"""Image files as a person expects to see them."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageOps


def read(file: str | os.PathLike[str], size: int) -> np.ndarray:
    """One image file: upright, on white where it is see-through, its middle square, resized.

    Args:
        file: of any kind that Pillow opens; of an animation the first frame.
        size: pixels a side; smaller images are enlarged, larger ones shrunk without aliasing.

    Returns:
        uint8 RGB (3, size, size).

    Raises:
        ValueError: if the file cannot be read (``__cause__`` is Pillow's own error), or ``size`` is
            below 1.
    """
    if size < 1:
        raise ValueError(f"size={size}, expected 1 pixel or more")
    try:
        return _square(file, size)
    # Pillow's readers of broken files raise any of these.
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): expected a PNG, JPEG or other image file"
        ) from error


def _square(file: str | os.PathLike[str], size: int) -> np.ndarray:
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits: a plain conversion would clip all to white
        upright = Image.fromarray(np.clip(np.asarray(upright) / 257, 0, 255).astype(np.uint8))
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")  # what is see-through shows white, not hidden colours
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    upright = upright.convert("RGB")
    square = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).transpose(2, 0, 1).copy()

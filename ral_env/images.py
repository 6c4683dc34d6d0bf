"""Image files as a person expects to see them."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageOps


def read(
    file: str | os.PathLike[str] | bytes | Image.Image, size: int, crop: int | None = None
) -> np.ndarray:
    """One image: upright, on white where it is see-through, its middle square, resized.

    Args:
        file: the path of any kind of file that Pillow opens, or what such a file holds as bytes,
            or an opened image; of an animation the first frame.
        size: pixels a side; smaller images are enlarged, larger ones shrunk without aliasing.
        crop: side of the middle square that is kept, in pixels of the upright file; the image's
            shorter side if that is less, or if None.

    Returns:
        uint8 RGB (3, size, size).

    Raises:
        ValueError: if the file cannot be read (``__cause__`` is Pillow's own error), or ``size`` or
            ``crop`` is below 1.
    """
    if size < 1 or (crop is not None and crop < 1):
        raise ValueError(f"size={size}, crop={crop}: expected 1 pixel or more")
    try:
        if isinstance(file, Image.Image):
            return _square(file, size, crop)
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            return _square(image, size, crop)
    # Pillow's readers of broken files raise any of these.
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        name = f"an image of {len(file)} bytes" if isinstance(file, bytes) else file
        raise ValueError(
            f"{name} cannot be read ({error}): expected a PNG, JPEG or other image file"
        ) from error


def _square(image: Image.Image, size: int, crop: int | None) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits: a plain conversion would clip all to white
        upright = Image.fromarray(np.clip(np.asarray(upright) / 257, 0, 255).astype(np.uint8))
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")  # what is see-through shows white, not hidden colours
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    upright = upright.convert("RGB")
    if crop is not None:
        width, height = upright.size
        side = min(crop, width, height)
        left, top = (width - side) // 2, (height - side) // 2
        upright = upright.crop((left, top, left + side, top + side))
    square = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).transpose(2, 0, 1).copy()

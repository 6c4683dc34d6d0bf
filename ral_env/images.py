"""Image files as a person expects to see them; files may be broken, or of anyone."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What Pillow calls the formats that are read, and the endings of their files. No others: some of
# those that Pillow knows start other programs (PostScript) or are no pictures.
ENDINGS = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
MAX_PIXELS = 2**26  # of a file: 8192 x 8192, which takes some 600 MB while it is read

# What Pillow's readers of broken files raise.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, OverflowError,
    RuntimeError, AttributeError, ZeroDivisionError, MemoryError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(
    file: str | os.PathLike[str] | bytes | Image.Image,
    size: int,
    crop: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """One image: upright, on white where it is see-through, its middle square, resized.

    Args:
        file: the path of a file in one of the formats of :data:`ENDINGS`, or what such a file holds
            as bytes, or an opened image; of an animation the first frame.
        size: pixels a side; smaller images are enlarged, larger ones shrunk without aliasing.
        crop: side of the middle square that is kept, in pixels of the upright file; the image's
            shorter side if that is less, or if None.
        name: what errors call it; the path if None, or how many bytes there are.

    Returns:
        uint8 RGB (3, size, size).

    Raises:
        ValueError: if the file cannot be read, or has more than :data:`MAX_PIXELS` pixels
            (``__cause__`` is the error that says so), or ``size`` or ``crop`` is below 1.
    """
    if size < 1 or (crop is not None and crop < 1):
        raise ValueError(f"size={size}, crop={crop}: expected 1 pixel or more")
    try:
        if isinstance(file, Image.Image):
            return _square(file, size, crop)
        with _opened(file) as image:
            return _square(image, size, crop)
    except _UNREADABLE as error:
        if name is None:
            name = f"an image of {len(file)} bytes" if isinstance(file, bytes) else str(file)
        raise ValueError(
            f"{name} cannot be read ({error}): expected a PNG, JPEG or other image file"
        ) from error


def _opened(file: str | os.PathLike[str] | bytes) -> Image.Image:
    """The image in a file of one of our formats; none of its pixels has been read."""
    if not isinstance(file, bytes) and not Path(file).is_file():
        raise ValueError("there is no such file")  # or a pipe, which would never end
    Image.init()
    formats = [name for name in ENDINGS if name in Image.OPEN]  # older Pillows lack AVIF
    with warnings.catch_warnings():
        # Pillow warns of what is refused below, and of odd metadata, which nothing here depends on.
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats)


def _square(image: Image.Image, size: int, crop: int | None) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels, expected {MAX_PIXELS} at most: shrink it"
        )
    upright = _upright(image)
    if upright.mode == "F" or upright.mode.startswith("I"):
        upright = _in_8_bits(upright, image.format)
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


def _upright(image: Image.Image) -> Image.Image:
    """The image as the camera was held, which its metadata may say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            orientation = image.getexif().get(0x0112)
        except _UNREADABLE:  # metadata that is broken says nothing of the picture
            orientation = None
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _in_8_bits(image: Image.Image, format: str | None) -> Image.Image:
    """Greys of 16 or 32 bits, or floats, in 8 bits: a plain conversion would clip them.

    Their brightest value may be 1 (floats), 255 or 65535: the first that holds all of them. PNG and
    PGM files of so many bits always have 65535, as have TIFF files of 16 bits.
    """
    values = np.asarray(image, np.float64)
    low, high = float(values.min()), float(values.max())
    whites: tuple[float, ...] = (65535.0,)
    if image.mode == "F":
        whites = (1.0, 255.0, 65535.0)
    elif image.mode == "I" and format == "TIFF":
        whites = (255.0, 65535.0)
    white = next((white for white in whites if low >= 0 and high <= white), None)  # NaN: none
    if white is None:
        raise ValueError(f"greys from {low:g} to {high:g}, expected 0 to 1, 255 or 65535")
    return Image.fromarray((values * (255 / white)).astype(np.uint8))

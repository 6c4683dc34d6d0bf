"""An image file is read as a viewer shows it: upright, on white, its middle."""

import io
import os
import random
import warnings

import numpy as np
import pytest
from PIL import Image

from ral_env.images import ENDINGS, MAX_PIXELS, read


def test_every_kind_of_image_becomes_rgb(tmp_path):
    grey = Image.fromarray(np.full((30, 30), 90, np.uint8))
    grey.save(tmp_path / "grey.png")
    grey.convert("P").save(tmp_path / "palette.png")
    Image.new("RGBA", (30, 30), (90, 90, 90, 255)).save(tmp_path / "alpha.png")
    for name in ("grey", "palette", "alpha"):
        image = read(tmp_path / f"{name}.png", 16)
        assert image.shape == (3, 16, 16) and image.dtype == np.uint8
        assert (abs(image.astype(int) - 90) < 2).all()


def test_the_middle_is_kept(tmp_path):
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 255  # the middle third is white
    Image.fromarray(picture).save(tmp_path / "wide.png")
    assert read(tmp_path / "wide.png", 8).min() > 200


def test_the_camera_is_held_upright(tmp_path):
    side = Image.fromarray(
        np.concatenate([np.zeros((8, 16, 3)), np.full((8, 16, 3), 255)]).astype(np.uint8)
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side: turn it clockwise
    side.save(tmp_path / "side.png", exif=exif)
    image = read(tmp_path / "side.png", 16)[0].astype(int)
    assert image[:, :6].mean() > 200 and image[:, -6:].mean() < 50  # bottom goes left


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("I;16", 128 * 257, (128, 128, 128)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),  # nothing is seen of its red
        ("RGBA", (10, 200, 30, 255), (10, 200, 30)),
        ("LA", (90, 255), (90, 90, 90)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_an_image_shows_the_colour_that_a_viewer_shows(tmp_path, mode, colour, expected):
    Image.new(mode, (20, 20), colour).save(tmp_path / "plain.tif")
    assert (read(tmp_path / "plain.tif", 16) == np.array(expected).reshape(3, 1, 1)).all()


def test_a_palette_with_soft_transparency_is_read_without_a_warning(tmp_path):
    image = Image.new("P", (20, 20))
    image.putpalette([10, 200, 30, *(0,) * 765])
    image.save(tmp_path / "soft.png", transparency=b"\x80")
    shown = read(tmp_path / "soft.png", 16)[:, 0, 0]
    assert np.abs(shown - np.array([132, 227, 142])).max() <= 1  # half way to white


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    inside = read(tmp_path / "stripes.png", 16)[:, :, 1:-1].astype(int)
    assert np.abs(inside - 127).max() <= 3  # one grey, neither black nor white


def test_a_small_image_is_enlarged(tmp_path):
    Image.new("RGB", (3, 5), (10, 200, 30)).save(tmp_path / "small.png")
    image = read(str(tmp_path / "small.png"), 64)
    assert (image == np.array([10, 200, 30]).reshape(3, 1, 1)).all()
    assert image.shape == (3, 64, 64) and image.flags.writeable and image.flags.c_contiguous


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "nowhere.png", "."):
        with pytest.raises(ValueError, match=r"cannot be read .*: expected a PNG") as caught:
            read(tmp_path / name, 16)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(ValueError, match="size=0"):
        read(tmp_path / "text.png", 0)


def test_a_crop_keeps_the_middle_pixels_of_the_upright_image(tmp_path):
    picture = np.full((218, 178, 3), 255, np.uint8)
    picture[39:179, 19:159] = np.random.default_rng(0).integers(0, 255, (140, 140, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "framed.png")
    expected = picture[39:179, 19:159].transpose(2, 0, 1)
    assert (read(tmp_path / "framed.png", 140, crop=140) == expected).all()
    whole = read(tmp_path / "framed.png", 178)
    assert (read(tmp_path / "framed.png", 178, crop=1000) == whole).all(), "no more than there is"
    with pytest.raises(ValueError, match="crop=0"):
        read(tmp_path / "framed.png", 32, crop=0)


def test_bytes_and_opened_images_are_read_like_files(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    expected = read(tmp_path / "noise.png", 16)
    assert (read((tmp_path / "noise.png").read_bytes(), 16) == expected).all()
    assert (read(Image.fromarray(noise), 16) == expected).all()
    with pytest.raises(ValueError, match="an image of 4 bytes cannot be read"):
        read(b"text", 16)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("type", [np.float32, np.int32])
def test_greys_of_32_bits_are_as_bright_as_they_are_meant(tmp_path, type, white):
    ramp = np.linspace(0, white, 256).reshape(16, 16).astype(type)
    if type is np.int32 and white == 1:
        pytest.skip("integers from 0 to 1 are two levels of black")
    Image.fromarray(ramp).save(tmp_path / "ramp.tif")
    image = read(tmp_path / "ramp.tif", 16)[0].astype(int)
    assert abs(image - np.arange(256).reshape(16, 16)).max() <= 1


@pytest.mark.parametrize("value", [-1.0, 1e6, np.nan, np.inf])
def test_greys_of_an_unknown_scale_are_refused(tmp_path, value):
    greys = np.full((16, 16), 0.5, np.float32)
    greys[3, 4] = value
    Image.fromarray(greys).save(tmp_path / "greys.tif")
    with pytest.raises(ValueError, match="greys from .*expected 0 to 1, 255 or 65535"):
        read(tmp_path / "greys.tif", 16)


def jpeg_with_exif(entry: bytes) -> bytes:
    """A JPEG whose metadata are one entry of 12 bytes, and 64 bytes that it may point to."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 90, 90)).save(stream, "JPEG")
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01" + entry + bytes(4) + b"\xff" * 64
    block = b"Exif\x00\x00" + tiff
    marker = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    return stream.getvalue()[:2] + marker + stream.getvalue()[2:]


@pytest.mark.parametrize(
    "entry",
    [
        b"\x01\x12\x00\x02\x00\x00\x00\x04six\x00",  # a word where a number is due
        b"\x01\x12\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x1a",  # a signed fraction
        b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x63\x00\x00",  # 99
        b"\x92\x01\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x1a",  # shutter speed, signed
        b"\x01\x12\x00\x63\x7f\xff\xff\xff\x7f\xff\xff\xff",  # no type, beyond the end
    ],
)
def test_odd_metadata_leave_the_picture_as_it_is(entry):
    assert (abs(read(jpeg_with_exif(entry), 16).astype(int) - 90) < 3).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png cannot be read"):
        read(tmp_path / "pipe.png", 16)


def test_postscript_is_never_interpreted(tmp_path):
    (tmp_path / "page.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage"
    )
    with pytest.raises(ValueError, match="page.png cannot be read .*cannot identify"):
        read(tmp_path / "page.png", 16)


def test_a_file_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (8193, 8192)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=f"8193 x 8192 pixels, expected {MAX_PIXELS} at most"):
        read(tmp_path / "large.png", 16)


@pytest.mark.parametrize("format", ENDINGS)
def test_a_format_is_read_and_its_broken_files_are_value_errors(format):
    """Bits flipped, or cut, anywhere in a file."""
    Image.init()
    if format not in Image.SAVE:
        pytest.skip("this Pillow cannot write it")
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(noise).save(stream, format)
    whole = stream.getvalue()
    assert read(whole, 24).shape == (3, 24, 24)
    rng = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(150):
            data = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
            for _ in range(rng.choice((1, 4))):
                if data:
                    data[rng.randrange(min(len(data), rng.choice((60, 10_000))))] ^= (
                        1 << rng.randrange(8)
                    )
            try:
                assert read(bytes(data), 24).dtype == np.uint8
            except ValueError as error:
                assert "cannot be read" in str(error)

"""An image file is read as a viewer shows it: upright, on white, its middle."""

import numpy as np
import pytest
from PIL import Image

from ral_env.images import read


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

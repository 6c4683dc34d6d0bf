"""Pictures pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from benchmarks import plots


def pictures(count: int, size: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def test_image_grid_shows_every_pixel_at_its_place(tmp_path):
    images = pictures(5)
    plots.image_grid(images, tmp_path / "new" / "grid.png", columns=3, scale=2, pad=1)
    sheet = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    assert sheet.shape == (1 + 2 * 11, 1 + 3 * 11, 3)
    for i, (top, left) in enumerate([(1, 1), (1, 12), (1, 23), (12, 1), (12, 12)]):
        shown = sheet[top : top + 10 : 2, left : left + 10 : 2]
        np.testing.assert_array_equal(shown, images[i].transpose(1, 2, 0))
    assert (sheet[12:, 23:] == 255).all()


def test_labelled_grids_and_completions_hold_every_grid_under_a_title(tmp_path):
    images = pictures(2, size=40)
    plots.completions(images, images // 2, [255 - images], tmp_path / "c.png", scale=1)
    sheet = np.asarray(Image.open(tmp_path / "c.png")).astype(int)
    assert (sheet[: plots.TITLE] < 128).any()
    for part in (images, images // 2, 255 - images):
        for image in part:
            line = image[:, 0]  # (3, W): its first line of pixels
            windows = np.lib.stride_tricks.sliding_window_view(sheet, (40,), axis=1)  # type: ignore
            assert (windows == line).all((-1, -2)).any()
    with pytest.raises(ValueError, match="shapes differ"):
        plots.completions(images, images[:1], [images], tmp_path / "d.png")


def test_learning_curves_draws_a_panel_per_column_and_skips_gaps(tmp_path):
    rows = [
        {"label": label, "seconds": s, "reward": s * scale, "auc": None if s % 2 else math.nan}
        for label, scale in (("a", 1.0), ("b", 2.0))
        for s in range(4)
    ]
    rows[0]["auc"], rows[2]["auc"] = 0.5, 0.75
    figure = plots.curves_figure(rows, ["reward", "auc"])
    reward, auc = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in reward.lines] == [
        [0, 1, 2, 3],
        [0, 2, 4, 6],
    ]
    assert [np.asarray(line.get_xdata()).tolist() for line in auc.lines] == [[0, 2], []]
    assert reward.get_xlabel() == "seconds"
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b"]
    plots.learning_curves(rows, ["reward"], tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert min(picture.size) > 100
    with pytest.raises(ValueError, match="0 rows"):
        plots.learning_curves([], ["loss"], tmp_path / "curves.png")


def test_images_of_another_dtype_are_refused():
    with pytest.raises(ValueError, match="images are float64"):
        plots.image_grid(np.zeros((2, 3, 4, 4)), "unused.png")

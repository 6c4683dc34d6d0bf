"""Codes lie flat in raster order, top level first, and starts cut them by coarsest rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ral_env import starts
from ral_env.layout import CodeLayout

TWO = CodeLayout(((2, 3), (4, 6)), 10)


@st.composite
def layouts(draw: st.DrawFn) -> CodeLayout:
    top = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    factors = draw(st.lists(st.integers(1, 3), max_size=2))
    levels = (top, *((top[0] * factor, top[1] * factor) for factor in factors))
    return CodeLayout(levels, draw(st.integers(1, 600)))


@given(layouts(), st.lists(st.integers(1, 3), max_size=2), st.booleans())
def test_flatten_and_unflatten_are_inverse(layout, batch, as_tensor):
    flat = np.arange(np.prod(batch, dtype=int) * layout.length).reshape(*batch, layout.length)
    flat = torch.from_numpy(flat) if as_tensor else flat
    grids = layout.unflatten(flat)
    assert [tuple(grid.shape) for grid in grids] == [(*batch, *level) for level in layout.levels]
    again = layout.flatten(grids)
    assert type(again) is type(flat) and (again == flat).all()


def test_cells_run_in_raster_order_top_level_first():
    top, bottom = TWO.unflatten(np.arange(TWO.length))
    assert top.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert bottom[0].tolist() == [6, 7, 8, 9, 10, 11] and bottom[3, 5] == TWO.length - 1


@given(layouts(), st.data())
def test_head_is_the_same_share_of_every_level(layout, data):
    rows = data.draw(st.integers(0, layout.rows))
    mask = layout.head(rows)
    for grid, (h, _) in zip(layout.unflatten(mask), layout.levels, strict=True):
        assert grid.any(1).sum() * layout.rows == rows * h
        assert (grid == (np.arange(h) < rows * h // layout.rows)[:, None]).all()


@pytest.mark.parametrize("levels", [(), ((0, 4),), ((4, 4), (6, 8)), ((4, 4), (8, 6))], ids=str)
def test_levels_that_do_not_fit_are_refused(levels):
    with pytest.raises(ValueError, match="levels"):
        CodeLayout(levels, 10)


def test_codes_that_do_not_fit_int16_are_refused():
    with pytest.raises(ValueError, match="num_codes=32767"):
        CodeLayout(((2, 2),), 32767)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="expected"):
        TWO.unflatten(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="expected"):
        TWO.flatten([np.zeros((2, 3))])


def test_a_full_start_is_all_empty():
    assert (starts.canvas(TWO, "full", 2, np.zeros((3, 30), np.uint8)) == TWO.empty).all()


def test_a_continue_start_keeps_real_rows_on_every_level():
    real = np.arange(30)[None] % 10
    top, bottom = TWO.unflatten(starts.canvas(TWO, "continue", 1, real)[0])
    assert top.tolist() == [[0, 1, 2], [10, 10, 10]]
    assert (bottom[:2].ravel() == real[0, 6:18]).all() and (bottom[2:] == TWO.empty).all()


def test_a_scratch_start_has_nothing_below_its_rows():
    canvas = starts.canvas(TWO, "scratch", 1, np.zeros((2, 30), np.int64))
    top, bottom = TWO.unflatten(canvas[1])
    assert canvas.dtype == np.int16
    assert top.tolist() == [[10, 10, 10], [11, 11, 11]]
    assert (bottom[:2] == TWO.empty).all() and (bottom[2:] == TWO.outside).all()


def test_codes_of_256_do_not_wrap_beside_the_sentinels():
    layout = CodeLayout(((2, 2),), 256)
    canvas = starts.canvas(layout, "continue", 1, np.array([[255, 0, 1, 2]], np.uint8))
    assert canvas.tolist() == [[255, 0, 256, 256]]


def test_partial_draws_both_modes_evenly_and_every_valid_row():
    layout, rng = CodeLayout(((8, 8),), 4), np.random.default_rng(0)
    drawn = [starts.draw(rng, layout, "partial", None, 4) for _ in range(2000)]
    rows = {mode: {k for m, k in drawn if m == mode} for mode in ("continue", "scratch")}
    assert rows == {"continue": set(range(1, 8)), "scratch": set(range(4, 9))}
    assert abs(sum(mode == "continue" for mode, _ in drawn) - 1000) < 100


@pytest.mark.parametrize(
    ("start", "rows"),
    [("scratch", 3), ("scratch", 9), ("continue", 0), ("continue", 8), ("full", 3), ("partial", 3)],
)
def test_rows_that_cannot_be_are_refused(start, rows):
    with pytest.raises(ValueError, match=rf"rows={rows}: expected rows from .* 4 or more"):
        starts.draw(np.random.default_rng(0), CodeLayout(((8, 8),), 4), start, rows, 4)


@pytest.mark.parametrize("rows", [2.0, True, "4"])
def test_rows_that_are_no_number_are_refused(rows):
    with pytest.raises(ValueError, match="whole number"):
        starts.draw(np.random.default_rng(0), CodeLayout(((8, 8),), 4), "continue", rows, 4)


def test_fewest_rows_follow_from_the_discriminator():
    assert starts.min_rows(stride=32, cell=8) == 4  # the paper's 5 strided layers on factor-8 codes
    assert starts.min_rows(stride=8, cell=32) == 1
    assert starts.min_rows(stride=9, cell=8) == 2

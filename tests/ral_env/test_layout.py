"""Codes lie flat in raster order, top level first."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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


def test_coarser_levels_are_whole_when_the_finest_one_has_its_first_rows():
    top, bottom = TWO.unflatten(TWO.written(1))
    assert top.all() and bottom.tolist() == [[True] * 6] * 2 + [[False] * 6] * 2
    assert CodeLayout(((2, 3),), 10).written(1).tolist() == [True] * 3 + [False] * 3


@given(layouts(), st.integers(1, 3))
def test_empty_grids_are_canvases_on_which_every_cell_is_empty(layout, count):
    flat = layout.flatten(layout.empty_grids(count))
    assert flat.shape == (count, layout.length) and flat.dtype == torch.int64
    assert (flat == layout.empty).all()

"""A start says which cells are real, EMPTY or OUTSIDE, by rows of the coarsest grid."""

import numpy as np
import pytest

from ral_env import starts
from ral_env.layout import CodeLayout

TWO = CodeLayout(((2, 3), (4, 6)), 10)


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


@pytest.mark.parametrize("seed", range(4))
def test_the_mode_is_drawn_before_the_rows(seed):
    """And what is given is not drawn: a seed's episodes depend on that."""
    layout = CodeLayout(((8, 8),), 4)
    ranges = {"full": (8, 9), "continue": (1, 8), "scratch": (4, 9)}
    for start in starts.START_MODES:
        for rows in (None, 8 if start == "full" else 5):
            rng, by_hand = (np.random.default_rng(seed) for _ in range(2))
            mode = ("continue", "scratch")[by_hand.integers(2)] if start == "partial" else start
            expected = int(by_hand.integers(*ranges[mode])) if rows is None else rows
            assert starts.draw(rng, layout, start, rows, 4) == (mode, expected)
            assert rng.bit_generator.state == by_hand.bit_generator.state

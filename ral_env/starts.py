"""Start states: which cells of the canvas are real, which empty, which absent (paper section 4.3).

Rows are counted on the coarsest grid; finer levels have proportionally more.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from ral_env.layout import CodeLayout

STARTS = ("full", "continue", "scratch")  # of an episode; its last info holds the number of its own
START_MODES = (*STARTS, "partial")  # what can be asked for: "partial" is drawn


def min_rows(stride: int, cell: int) -> int:
    """Fewest coarsest rows that a discriminator can score: one cell of its score map.

    Args:
        stride: cells of the discriminator's input (pixels or codes) to one cell of its score map.
        cell: cells of that input to one coarsest row.
    """
    return math.ceil(stride / cell)


def row_range(layout: CodeLayout, mode: str, min_rows: int) -> range:
    """The ``rows`` that a start may have: real rows of "continue", all rows of the others.

    Raises:
        ValueError: if ``mode`` is none of ``START_MODES``.
    """
    ranges = {
        "full": range(layout.rows, layout.rows + 1),
        "continue": range(1, layout.rows),
        "scratch": range(min_rows, layout.rows + 1),
        # rows that are asked for must do in either mode
        "partial": range(min_rows, layout.rows),
    }
    if mode not in ranges:
        raise ValueError(f"start={mode!r}, expected one of {START_MODES}")
    return ranges[mode]


def draw(
    rng: np.random.Generator, layout: CodeLayout, start: str, rows: int | None, min_rows: int
) -> tuple[str, int]:
    """Settle the mode and the rows of an episode; what is left open is drawn uniformly.

    Args:
        rng: draws the mode if the start is "partial", then the rows if they are None.
        start: one of ``START_MODES``. "partial" is "continue" or "scratch" with equal chance.
        rows: rows to start with, or None to draw them.
        min_rows: see :func:`min_rows`.

    Returns:
        The mode ("full", "continue" or "scratch") and its rows.

    Raises:
        ValueError: if the start is unknown or cannot have so many rows.
    """
    given = rows
    if start == "partial" and rows is None:
        start = ("continue", "scratch")[rng.integers(2)]
    allowed = row_range(layout, start, min_rows)
    if rows is not None:
        try:  # a 0-d integer array counts: there are wrappers that make those of integers
            rows = None if isinstance(rows, bool) else operator.index(rows)
        except TypeError:
            rows = None
        if rows is None:
            raise ValueError(f"rows={given!r}, expected a whole number")
    if not allowed or (rows is not None and rows not in allowed):
        expected = f"rows from {allowed[0]} to {allowed[-1]}" if allowed else "another start"
        raise ValueError(
            f"start={start!r} with rows={rows}: expected {expected}. The grid has {layout.rows} "
            f"rows and the discriminator can score an image of {min_rows} or more; one with fewer "
            "strided layers can score fewer."
        )
    if start == "partial":
        start = ("continue", "scratch")[rng.integers(2)]
    return start, int(rng.integers(allowed.start, allowed.stop) if rows is None else rows)


def canvas(layout: CodeLayout, mode: str, rows: int, codes: np.ndarray) -> np.ndarray:
    """The canvas of a start.

    Args:
        mode: "full": every cell is EMPTY. "continue": the first ``rows`` rows are those of
            ``codes``, the rest is EMPTY. "scratch": the first ``rows`` rows are EMPTY, the rest is
            OUTSIDE.
        codes: real codes (B, length); only "continue" reads their values.

    Returns:
        int16 (B, length).
    """
    head = layout.head(rows)
    if mode == "continue":
        cells = np.where(head, codes.astype(np.int16), layout.empty)
    else:
        cells = np.broadcast_to(np.where(head, layout.empty, layout.outside), codes.shape)
    return cells.astype(np.int16)

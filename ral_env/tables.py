"""Tables as markdown, fit for plain printing too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def markdown_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    headings: Mapping[str, str] | None = None,
) -> str:
    """Aligned markdown: the first column to the left, the others to the right.

    Args:
        rows: cells by column. Floats get three decimals (give strings for others); a missing value
            or None is blank.
        columns: which to show, in this order.
        headings: what stands above a column, where that is not its name.
    """
    first = [(headings or {}).get(column, column) for column in columns]
    lines = [first, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(sides)} |"

    rule = [("-" * (width - 1) + ":") if i else "-" * width for i, width in enumerate(widths)]
    return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float | np.floating) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")

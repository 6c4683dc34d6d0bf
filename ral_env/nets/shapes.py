"""Shapes and dtypes of what the networks take and give, in jaxtyping's notation.

A name stands for the same number everywhere in one call: all its ``batch`` are equal. ``_`` is any
number. The suite checks all of them on every call (see ``pyproject.toml``); outside it they are
words that nobody evaluates.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int64, Integer
from torch import Tensor

# A level's codes, 0 to num_codes - 1 (num_codes is EMPTY), and those of the level above.
Codes = Int64[Tensor, "batch rows columns"]
Condition = Int64[Tensor, "batch rows_above columns_above"]
LogProbs = Float[Tensor, "batch rows columns"]
Logits = Float[Tensor, "batch rows columns num_codes"]
Hidden = Float[Tensor, "batch rows columns hidden"]
Context = Float[Tensor, "batch hidden rows columns"]

# One of several levels: its grid is of any size.
Grid = Integer[Tensor, "batch _ _"]
Grids = Sequence[Grid]  # the coarsest first
GridLogProbs = Float[Tensor, "batch _ _"]
GridVectors = Float[Tensor, "batch code_dim _ _"]
TotalLogProbs = Float[Tensor, " batch"]

# The experts of a mixture.
ExpertLogProbs = Float[Tensor, "styles batch rows columns"]
StyleProbs = Float[Tensor, "batch styles"]

Images = Float[Tensor, "batch 3 height width"]
Inputs = Float[Tensor, "batch channels height width"]  # of a discriminator or a feature net
ScoreMap = Float[Tensor, "batch 1 patch_rows patch_columns"]
Features = Float[Tensor, "batch features"]
Outputs = Float[Tensor, "batch outputs"]

"""Shapes and dtypes of what environments take and give, in jaxtyping's notation.

As in :mod:`ral_env.nets.shapes`, a name stands for the same number everywhere in one call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int64, UInt8

Canvas = Int16[np.ndarray, "canvases length"]  # codes, EMPTY and OUTSIDE of all levels
Rows = Int64[np.ndarray, " canvases"]  # numbers of rows of the coarsest grid
Rewards = Float64[np.ndarray, " canvases"]
Flags = Bool[np.ndarray, " canvases"]
# Observations, rewards, terminated, truncated, info.
StepResult = tuple[Canvas, Rewards, Flags, Flags, dict[str, Any]]

Pictures = UInt8[np.ndarray, "batch 3 height width"]  # for programs
Frame = UInt8[np.ndarray, "height width 3"]  # for people
Frames = UInt8[np.ndarray, "canvases height width 3"]
Nats = Float32[np.ndarray, " batch"]

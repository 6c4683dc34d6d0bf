"""Rewards of your own: a function of finished canvases that pays in place of the discriminator.

It is given images, a tensor float32 (B, 3, H, W) in [-1, 1], RGB, of one height; of a canvas that
has fewer rows (scratch and partial starts, the reward "rowwise") H is below W. A function that is
marked by :func:`takes_codes` is given codes instead: a list of int64 tensors (B, h, w), a grid a
level, the coarsest first. It is called without gradients, on the environment's device.

It returns a tensor of floats on that device, more is better:

- (B,): a number for each canvas; or
- (B, h', w'): a map for each canvas, of square patches. w' is at least 1 and at most the width of
  the finest grid of codes, and h' is as many patches as the height holds: w' for a whole canvas.

Numbers are paid as they are, neither scaled nor clamped. "single" pays the map's mean, and each
code of "intermediate" and "rowwise" earns the patch at its location; a number is a map of one
patch. What a canvas is given must not depend on the others of its batch, and one canvas must be
given the same each time: then one environment and a batch pay alike.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import torch
from torch import Tensor

from ral_env.nets import Codec
from ral_env.nets.shapes import Grids, ScoreMap

Function = Callable[[Any], Tensor]
EXPECTED = "'package.module:function' or a callable"


def takes_codes(function: Function) -> Function:
    """Mark a reward function, as a decorator, as one that is given codes and no images."""
    function.takes_codes = True  # type: ignore[attr-defined]
    return function


class RewardFunction:
    """A reward function, found by its name and checked whenever it is called.

    Args:
        function: the function, or its name as ``"package.module:function"``.

    Attributes:
        name: its name in that form, for messages.

    Raises:
        ValueError: if there is none of that name, or it cannot be called.
    """

    def __init__(self, function: str | Function):
        self.function = _find(function) if isinstance(function, str) else function
        if not callable(self.function):
            raise ValueError(
                f"reward_fn={function!r} is a {type(self.function).__name__}, expected {EXPECTED}"
            )
        name = function if isinstance(function, str) else storable_name(function)
        self.name = name if isinstance(name, str) else repr(function)

    def __call__(self, codec: Codec, grids: Grids) -> ScoreMap:
        """What it gives to canvases, as a score map (B, 1, h', w').

        Args:
            codec: decodes them.
            grids: int64 (B, h, w), a grid a level, of one height.

        Raises:
            ValueError: if it gives anything else than the top of this file asks for.
        """
        shown: Any = list(grids)
        if not getattr(self.function, "takes_codes", False):
            shown = codec.decode(grids).clamp(-1, 1)
        return self._checked(self.function(shown), grids)

    def _checked(self, found: Any, grids: Sequence[Tensor]) -> ScoreMap:
        count, rows, columns = grids[-1].shape
        if not isinstance(found, Tensor):
            self._refuse(f"a {type(found).__name__}", "a torch.Tensor")
        if not found.is_floating_point():
            self._refuse(f"{found.dtype}", "floats: add .float()")
        if found.device != grids[0].device:
            self._refuse(f"a tensor on {found.device}", f"one on {grids[0].device}, as it is given")
        width = found.shape[-1] if found.dim() == 3 else 1
        shapes = [(count,), (count, max(1, rows * width // columns), width)]
        if tuple(found.shape) not in shapes or not 1 <= width <= columns:
            self._refuse(
                f"shape {tuple(found.shape)} for {count} canvases with a finest grid of "
                f"{rows}x{columns} codes",
                f"({count},), or ({count}, h', w') with w' from 1 to {columns} and "
                f"h' = {rows} * w' // {columns}: pool a finer map with avg_pool2d",
            )
        paid = found.float().detach()
        if wrong := int((~torch.isfinite(paid)).sum()):
            self._refuse(f"{wrong} of {paid.numel()} values that are not finite", "finite floats")
        return paid.view(count, 1, -1, width)

    def _refuse(self, got: str, expected: str) -> NoReturn:
        raise ValueError(f"reward_fn {self.name} gave {got}, expected {expected}")


def storable_name(function: Any) -> Any:
    """``"package.module:function"`` of a function that is found by it, else what was given."""
    module, name = (getattr(function, key, None) for key in ("__module__", "__qualname__"))
    if module in (None, "__main__") or name is None or "<" in name:
        return function
    found = functools.reduce(
        lambda part, word: getattr(part, word, None), name.split("."), sys.modules.get(module)
    )
    return f"{module}:{name}" if found is function else function


def _find(name: str) -> Any:
    """What a string names.

    Raises:
        ValueError: if its module cannot be imported, or holds nothing of that name.
    """
    module, colon, attributes = name.partition(":")
    if not (module and colon and attributes):
        raise ValueError(f"reward_fn={name!r}, expected {EXPECTED}")
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise ValueError(
            f"reward_fn={name!r}: {module} cannot be imported ({error}): install its package, or "
            "put the folder that holds it on Python's path, as in `PYTHONPATH=FOLDER ral train ...`"
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ValueError(
                f"reward_fn={name!r}: {module} has no {attributes}: check its spelling, and that "
                f"{getattr(sys.modules[module], '__file__', module)} is the file that you mean"
            )
        found = getattr(found, attribute)
    return found

"""Nets without numbers: what a config is in names, shapes and types, at hardly any cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _NothingDrawn(TorchFunctionMode):
    """Tensors are not filled with random numbers.

    On the meta device drawing them would load sympy and torch's compiler: a second and 150 MB.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return options["tensor"] if "tensor" in options else args[0]
        return func(*args, **options)


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules that are made within have parameters on the meta device: no memory, no numbers."""
    with torch.device("meta"), _NothingDrawn():
        yield

"""The weights of a PixelCNN as matrices: the one layout that all samplers start from.

:meth:`PixelCNN.weights` fills it in. The samplers (``cache.py``, ``graph.py``, ``native``) know
these matrices and not the modules that learn them. What is particular to a sampler, such as its
scaling, its order of a filter's cells and its precision, it does itself.

A matrix is (in, out), so features are multiplied from the left: ``x @ matrix``. A filter is as a
convolution has it, (out, in, height, width), the last row and column being the cell that is
computed. All tensors are detached from autograd and, but for ``position``, are views: they change
with the net.

C = hidden channels, R = inner channels of a block, U = 2 * R units in front of a gate, which is
tanh of the first half times sigmoid of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class AttentionWeights:
    """Causal self-attention behind a block: h + merge(attention(split(norm(h))))."""

    heads: int
    eps: float  # of the layer norm
    norm: Tensor  # (C,)
    norm_bias: Tensor  # (C,)
    split: Tensor  # (C, 3 * C): queries of all heads, then keys, then values
    split_bias: Tensor  # (3 * C,)
    merge: Tensor  # (C, C)
    merge_bias: Tensor  # (C,)


@dataclass(frozen=True)
class BlockWeights:
    """A gated block of both stacks, and the attention that follows it."""

    vertical: Tensor  # (U, C, reach + 1, 2 * reach + 1)
    vertical_bias: Tensor  # (U,)
    horizontal: Tensor  # (U, C, 1, reach + 1)
    horizontal_bias: Tensor  # (U,)
    across: Tensor  # (U, U), from the vertical to the horizontal stack
    condition: Tensor | None  # (C, U), of a conditional net
    vertical_out: Tensor | None  # (R, C), of all blocks but the last
    horizontal_out: Tensor  # (R, C)
    attention: AttentionWeights | None


@dataclass(frozen=True)
class OutputWeights:
    """A position-wise residual block: h + leave(relu(enter(relu(h))))."""

    enter: Tensor  # (C, R)
    enter_bias: Tensor  # (R,)
    leave: Tensor  # (R, C)
    leave_bias: Tensor  # (C,)


@dataclass(frozen=True)
class PixelCNNWeights:
    """All weights of a PixelCNN over a grid (h, w), but for those of its condition stack."""

    embedding: Tensor  # (num_codes, C)
    position: Tensor  # (h, w, C), added to the embedding
    blocks: tuple[BlockWeights, ...]
    output: tuple[OutputWeights, ...]
    head: Tensor  # (C, num_codes)
    head_bias: Tensor  # (num_codes,)

    def map(self, function: Callable[[Tensor], Tensor]) -> PixelCNNWeights:
        """The same weights with ``function`` of every tensor in its place."""
        return _map(self, function)

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, in an order that depends on the net's architecture only."""
        return _tensors(self)


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_map(item, function) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        mapped = {field.name: _map(getattr(value, field.name), function) for field in fields(value)}
        return replace(value, **mapped)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))

"""Exact incremental evaluation of a PixelCNN: one cell's work for each code.

The vertical stack depends on finished rows only, so it runs once a row, for the whole row, and so
does its connection into the horizontal stack. What remains for a cell is one matrix product a
layer: the horizontal filter over a window of a channels-last row buffer, which is a strided view,
not a copy. Attention keeps the keys and values of all cells so far.

All of it is equal to :meth:`PixelCNN.logits`, from every prefix of real rows
(tests/test_cache_equals_forward.py). Log-probs for learning never come from here: they take one
teacher-forced pass, which has a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from ral_env.nets.pixelcnn import CausalAttention, GatedBlock, PixelCNN


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.tanh(a).mul_(torch.sigmoid(b))


class _Layer:
    """One gated block's weights as matrices, and its buffers. C = hidden, R = residual."""

    def __init__(self, block: GatedBlock, batch: int, columns: int):
        reach, weight = block.reach, block.vertical.weight
        self.reach = reach
        self.vertical = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (rows * filter * C, 2R)
        self.vertical_bias: Any = block.vertical.bias
        self.across = block.across.weight[:, :, 0, 0].t()  # (2R, 2R)
        self.horizontal = block.horizontal.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1)
        self.horizontal_bias: Any = block.horizontal.bias
        self.condition = block.condition and block.condition.weight[:, :, 0, 0].t()
        self.vertical_out = block.vertical_out and block.vertical_out.weight[:, :, 0, 0].t()
        self.horizontal_out = block.horizontal_out.weight[:, :, 0, 0].t()
        hidden = weight.shape[1]
        self.rows = weight.new_zeros(batch, reach + 1, columns + 2 * reach, hidden)
        self.row = weight.new_zeros(batch, reach + columns, hidden)
        self.from_above = weight.new_zeros(0)  # (B, w, 2R), set once a row

    def next_row(self, v: Tensor, context: Tensor | None) -> Tensor | None:
        """Vertical stack of one row: v (B, w, C) of this layer to that of the next."""
        batch, columns, hidden = v.shape
        reach, rows = self.reach, self.rows
        rows[:, :-1] = rows[:, 1:].clone()
        rows[:, -1, reach : reach + columns] = v
        stride = rows.stride()
        windows = rows.as_strided(  # (B, w, rows, filter, C)
            (batch, columns, reach + 1, 2 * reach + 1, hidden),
            (stride[0], stride[2], stride[1], stride[2], stride[3]),
        )
        v_in = torch.addmm(self.vertical_bias, windows.reshape(batch * columns, -1), self.vertical)
        self.from_above = torch.addmm(self.horizontal_bias, v_in, self.across)
        if self.condition is not None and context is not None:
            self.from_above.addmm_(context.flatten(0, 1), self.condition)
        self.from_above = self.from_above.view(batch, columns, -1)
        if self.vertical_out is None:
            return None
        return torch.addmm(v.flatten(0, 1), _gate(v_in), self.vertical_out).view_as(v)

    def next_cells(self, h: Tensor, first: int) -> Tensor:
        """Horizontal stack of cells ``first`` .. of the row: h (B, n, C) to that of the next."""
        batch, count, hidden = h.shape
        row = self.row
        row[:, self.reach + first : self.reach + first + count] = h
        windows = row.as_strided(  # (B, n, filter half * C), overlapping: no copy for one cell
            (batch, count, (self.reach + 1) * hidden),
            (row.stride(0), hidden, 1),
            row.storage_offset() + first * hidden,
        ).reshape(batch * count, -1)
        above = self.from_above[:, first : first + count].reshape(batch * count, -1)
        h_in = torch.addmm(above, windows, self.horizontal)
        return torch.addmm(h.reshape(batch * count, -1), _gate(h_in), self.horizontal_out).view_as(
            h
        )


class Cache:
    """The state of an evaluation that walks down the rows and along each of them.

    Args:
        net: a PixelCNN; its weights must not change while the cache lives.
        batch: canvases, in lockstep.
        context: what :meth:`PixelCNN.context` returned, for a conditional net.

    Call :meth:`next_row` at the start of each row, then :meth:`logits` for its cells from left to
    right: one at a time, or several when their codes are known.
    """

    def __init__(self, net: PixelCNN, batch: int, context: Tensor | None = None):
        rows, columns = net.config.grid
        self.embedding = net.embedding.weight
        self.position = (net.row + net.column).permute(1, 2, 0)  # (h, w, C)
        self.context = None if context is None else context.permute(0, 2, 3, 1)  # (B, h, w, C)
        blocks: Any = net.blocks
        self.layers = [_Layer(block, batch, columns) for block in blocks]
        attention: Any = dict(net.attention.items())
        self.attention: list[CausalAttention | None] = [
            attention.get(str(i)) for i in range(len(self.layers))
        ]
        self.keys_values = [
            None
            if a is None
            else self.embedding.new_zeros(
                2, batch, a.heads, rows * columns, net.config.hidden // a.heads
            )
            for a in self.attention
        ]
        output: Any = net.output
        self.output = [
            (b[1].weight[:, :, 0, 0].t(), b[1].bias, b[4].weight[:, :, 0, 0].t(), b[4].bias)
            for b in output
        ]
        head: Any = net.head
        self.head = (head.weight[:, :, 0, 0].t(), head.bias)
        self.columns = columns
        self.at = -1

    def next_row(self, above: Tensor | None) -> None:
        """Go to the next row; ``above`` is the row just finished, int64 (B, w), None at first."""
        self.at += 1
        v: Any = self.position[self.at].expand(self.layers[0].row.shape[0], -1, -1)
        if above is not None:
            v = v + F.embedding(above, self.embedding)
        context = None if self.context is None else self.context[:, self.at]
        for layer in self.layers:
            v = layer.next_row(v, context)

    def logits(self, left: Tensor | None, first: int, count: int = 1) -> Tensor:
        """Logits (B, count, num_codes) of cells ``first`` .. ``first + count - 1`` of this row.

        ``left`` holds the code to the left of each of these cells: int64 (B, count), or
        (B, count - 1) from the row's start on, where nothing stands to the left (None if count
        is 1).
        """
        return self.readout(self.hidden(left, first, count))

    def feed(self, codes: Tensor) -> None:
        """Pass over this row, whose codes (B, w) are known.

        Only attention needs it: the horizontal stack remembers nothing from row to row.
        """
        if any(a is not None for a in self.attention):
            self.hidden(codes[:, :-1], 0, self.columns)

    def hidden(self, left: Tensor | None, first: int, count: int = 1) -> Tensor:
        """Features (B, count, C) of these cells, as :meth:`PixelCNN.hidden` gives them."""
        batch = self.layers[0].row.shape[0]
        h = self.position[self.at, first : first + count].repeat(batch, 1, 1)  # (B, n, C)
        if left is not None and left.shape[1]:
            h[:, count - left.shape[1] :] += F.embedding(left, self.embedding)
        for layer, attention, memory in zip(
            self.layers, self.attention, self.keys_values, strict=True
        ):
            h = layer.next_cells(h, first)
            if attention is not None and memory is not None:
                start = self.at * self.columns + first
                q, k, v = attention.split(h)
                memory[:, :, :, start : start + count] = torch.stack([k, v])
                keys, values = memory[:, :, :, : start + count]
                mask = None
                if count > 1:
                    mask = torch.ones(count, start + count, dtype=torch.bool, device=h.device)
                    mask = mask.tril(start)
                h = h + attention.merge(
                    F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
                )
        return h

    def readout(self, h: Tensor) -> Tensor:
        """Features (B, n, C) to logits (B, n, num_codes)."""
        shape = h.shape[:2]
        h = h.flatten(0, 1)
        for weight_in, bias_in, weight_out, bias_out in self.output:
            inner = torch.addmm(bias_in, F.relu(h), weight_in).relu_()
            h = h + torch.addmm(bias_out, inner, weight_out)
        weight, bias = self.head
        return torch.addmm(bias, F.relu(h), weight).unflatten(0, shape)


@dataclass(frozen=True)
class Part:
    """A generator that ``count`` processes share, each of which samples as many canvases: every
    one draws the noise of them all and takes the part with its ``index``. Together they write
    what one process would."""

    generator: torch.Generator
    index: int
    count: int


def gumbel(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | Part | None = None
) -> Tensor:
    """Standard Gumbel noise: ``argmax(logits + noise)`` is a draw from ``softmax(logits)``.

    Of a shared generator, the shape is (columns, B, num_codes).
    """
    if isinstance(generator, Part):
        columns, batch, *codes = shape
        whole = gumbel((columns, batch * generator.count, *codes), like, generator.generator)
        return whole[:, generator.index * batch : (generator.index + 1) * batch]
    return like.new_empty(shape).exponential_(generator=generator).log_().neg_()


@torch.inference_mode()
def fill(
    net: PixelCNN,
    codes: Tensor,
    condition: Tensor | None,
    temperature: float,
    generator: torch.Generator | Part | None,
) -> None:
    """Write the EMPTY cells of ``codes`` (B, h, w) in place. See :meth:`PixelCNN.sample`."""
    batch, rows, columns = codes.shape
    empty = codes == net.config.num_codes
    has_empty = empty.any(2).any(0).tolist()
    if not any(has_empty):
        return
    cache = Cache(net, batch, net.context(condition, rows))
    last = max(row for row in range(rows) if has_empty[row])
    for row in range(last + 1):
        cache.next_row(codes[:, row - 1] if row else None)
        if not has_empty[row]:
            cache.feed(codes[:, row])
            continue
        noise = None
        if temperature > 0:
            noise = gumbel((columns, batch, net.config.num_codes), cache.embedding, generator)
        for column in range(columns):
            left = codes[:, row, column - 1 : column] if column else None
            scores = cache.logits(left, column)[:, 0]
            if noise is not None:
                scores = scores.div_(temperature).add_(noise[column])
            here = codes[:, row, column]
            torch.where(empty[:, row, column], scores.argmax(1), here, out=here)

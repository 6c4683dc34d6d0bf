"""Exact incremental evaluation of a PixelCNN: one cell's work for each code.

The vertical stack depends on finished rows only, so it runs once a row, for the whole row, and so
does its connection into the horizontal stack. A row is multiplied with all rows of the filter at
once; what it adds to the rows below is kept until they come. What remains for a cell is one matrix
product a layer: the horizontal filter over a window of a channels-last row buffer, which is a
strided view, not a copy. Attention keeps the keys and values of all cells so far. Weights are laid
out once, and views and buffers of cells made once, as making them costs as much as using them.

The first layer's input is codes. Where there are many more cells than codes, the products of each
code with that layer's filters are computed once and then looked up.

All of it is equal to :meth:`PixelCNN.logits`, from every prefix of real rows
(tests/ral_env/nets/test_cache_equals_forward.py). Log-probs for learning never come from here: they
take one teacher-forced pass, which has a gradient.

B canvases; h rows and w columns of the grid; C hidden channels; U = 2 * residual; n cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ral_env.migrations import old_names
from ral_env.nets.weights import AttentionWeights, BlockWeights, PixelCNNWeights

__getattr__ = old_names(__name__)

# Looking products up pays from this many cells for each code of the codebook.
CELLS_PER_CODE = 4


class _Gate:
    """The gates of n cells, whose first half of units comes as -2 x: tanh(x) = 1 - 2 sigmoid(-2 x).

    One sigmoid over both halves takes half the time of a tanh and a sigmoid.
    """

    def __init__(self, like: Tensor, cells: int, units: int):
        self.x = like.new_empty(cells, units)
        self.a, self.b = self.x.chunk(2, 1)
        self.gated = like.new_empty(cells, units // 2)

    def __call__(self, x: Tensor) -> Tensor:
        torch.sigmoid(x, out=self.x)
        return torch.addcmul(self.b, self.a, self.b, value=-2, out=self.gated)

    @staticmethod
    def scale(units: Tensor) -> Tensor:
        """What the units (U,) in front of a gate are multiplied by."""
        scale = torch.ones_like(units)
        scale[: len(units) // 2] = -2
        return scale


def _windows(row: Tensor, size: int) -> Tensor:
    """Every ``size`` neighbours of a row (B, w, C), as a view: (B, w - size + 1, size * C)."""
    batch, columns, channels = row.shape
    shape = (batch, columns - size + 1, size * channels)
    return row.as_strided(shape, (row.stride(0), channels, 1))


def _filter(weight: Tensor, scale: Tensor) -> Tensor:
    """A filter (out, in, height, width), its outputs scaled, as (width * in, height * out).

    The last row comes first: a row of input adds to its own row by the last row of the filter.
    """
    out, channels, height, width = weight.shape
    # Transposed as a matrix first, which is a fast copy; then outputs stay together.
    taps = weight.flatten(1).t().contiguous().view(channels, height, width, out)
    found = weight.new_empty(width, channels, height, out)
    for row in range(height):
        torch.mul(taps[:, row].transpose(0, 1), scale, out=found[:, :, height - 1 - row])
    return found.view(width * channels, height * out)


class _Scratch:
    """Where the work of a row is written, once for all layers: allocating it would cost more."""

    def __init__(self, weights: PixelCNNWeights, batch: int):
        like, (_, columns, hidden) = weights.embedding, weights.position.shape
        units, _, _, filter_size = weights.blocks[0].vertical.shape
        self.windows = like.new_empty(batch * columns, filter_size * hidden)
        self.mixed = like.new_empty(batch * columns, hidden)
        self.row_gates = {n: _Gate(like, n * columns, units) for n in (1, batch)}
        self.cell_gate = _Gate(like, batch, units)


class _Layer:
    """One gated block and the buffers of the row that it is in."""

    def __init__(self, block: BlockWeights, batch: int, rows: int, columns: int, scratch: _Scratch):
        self.units, hidden, height, _ = block.vertical.shape  # U, C, reach + 1
        self.rows, self.reach, self.scratch = rows, height - 1, scratch
        scale = _Gate.scale(block.vertical_bias)
        self.vertical = _filter(block.vertical, scale)
        self.vertical_bias = block.vertical_bias * scale
        self.horizontal = _filter(block.horizontal, scale)
        self.horizontal_bias = block.horizontal_bias * scale
        self.across = block.across.contiguous() * (scale / scale[:, None])
        condition, vertical_out = block.condition, block.vertical_out
        self.condition = None if condition is None else condition.contiguous() * scale
        self.vertical_out = None if vertical_out is None else vertical_out.contiguous()
        self.horizontal_out = block.horizontal_out.contiguous()

        zeros, reach = scale.new_zeros, self.reach
        self.row = -1
        self.distinct = 1  # canvases that differed in the row before
        # What the rows so far add to this one, to the next, ..., and the same of the row before.
        self.sums = scale.new_empty(2, batch, columns, height * self.units)
        self.sums[:, :1] = self.vertical_bias.repeat(height)
        self.v_padded = zeros(batch, columns + 2 * reach, hidden)  # the row above
        self.v = self.v_padded[:, reach : reach + columns]
        self.above = zeros(batch, columns, self.units)  # what it is to the horizontal stack
        self.h_padded = zeros(batch, reach + columns, hidden)  # the row
        self.h = self.h_padded[:, reach:]
        # Views of single cells, (B, ...)
        self.h_cells = self.h.unbind(1)
        self.window_cells = _windows(self.h_padded, height).unbind(1)
        self.above_cells = self.above.unbind(1)

    def next_row(
        self, context: Tensor | None, following: _Layer | None, distinct: int, needed: bool
    ) -> None:
        """Run the vertical stack for the next row, from ``v`` to that of the ``following`` layer.

        Args:
            context: What the level above says of the row's cells, (B, w, C).
            following: None where nothing needs its row.
            distinct: Number of canvases that differ, 1 or all: nothing is above the first row.
            needed: Whether the row's cells will be asked for, so that :attr:`above` is needed.
        """
        self.row += 1
        scratch, units = self.scratch, self.units
        before = self.sums[self.row % 2 - 1, : self.distinct]
        sums = self.sums[self.row % 2, :distinct]
        self.distinct = distinct
        sums[..., :-units] = before[..., units:]
        sums[..., -units:] = self.vertical_bias
        self._add_products(sums)
        v_in = sums[..., :units].flatten(0, 1)
        if needed:
            above = self.above[:distinct].flatten(0, 1)
            torch.addmm(self.horizontal_bias, v_in, self.across, out=above)
            self.above[distinct:] = self.above[:1]
            if self.condition is not None and context is not None:
                self.above.flatten(0, 1).addmm_(context.flatten(0, 1), self.condition)
        if self.vertical_out is not None and following is not None:
            mixed = scratch.mixed[: len(v_in)]
            torch.mm(scratch.row_gates[distinct](v_in), self.vertical_out, out=mixed)
            v = self.v[:distinct]
            torch.add(v, mixed.view_as(v), out=following.v[:distinct])

    def _add_products(self, sums: Tensor) -> None:
        """Add the products of ``v`` and the vertical filter to the sums (B, w, height * U)."""
        windows = _windows(self.v_padded[: len(sums)], 2 * self.reach + 1)
        flat = self.scratch.windows[: windows.shape[0] * windows.shape[1]]
        flat.view_as(windows).copy_(windows)
        inside = min(self.reach + 1, self.rows - self.row) * self.units  # by rows of this grid
        sums[..., :inside].flatten(0, 1).addmm_(flat, self.vertical[:, :inside])

    def next_cell(self, column: int, out: Tensor | None) -> Tensor:
        """Run the horizontal stack for one cell, from ``h`` to that of the next layer: (B, C)."""
        gate = self.scratch.cell_gate
        self._add_windows(column, gate.x)
        return torch.addmm(self.h_cells[column], gate(gate.x), self.horizontal_out, out=out)

    def _add_windows(self, column: int, out: Tensor) -> None:
        torch.addmm(self.above_cells[column], self.window_cells[column], self.horizontal, out=out)

    def next_cells(self, cells: slice) -> Tensor:
        """:meth:`next_cell` of several cells at once: (B, n, C)."""
        h, x = self.h[:, cells], self._add_all_windows(cells).flatten(0, 1)
        return h + (_Gate(x, *x.shape)(x) @ self.horizontal_out).view_as(h)

    def _add_all_windows(self, cells: slice) -> Tensor:
        windows, above = _windows(self.h_padded, self.reach + 1)[:, cells], self.above[:, cells]
        x = torch.addmm(above.flatten(0, 1), windows.flatten(0, 1), self.horizontal)
        return x.view_as(above)


class _FirstLayer(_Layer):
    """The first block, whose products of codes and filters are looked up, not computed.

    So are those of the positions, which are added to the codes: they are the same in all canvases.
    """

    def __init__(self, weights: PixelCNNWeights, batch: int, position: Tensor, scratch: _Scratch):
        rows, columns, hidden = position.shape
        super().__init__(weights.blocks[0], batch, rows, columns, scratch)
        reach = self.reach
        padded = F.pad(position, (0, 0, reach, reach))
        windows = _windows(padded, 2 * reach + 1).flatten(0, 1)
        self.vertical_position = (windows @ self.vertical).view(rows, columns, -1)
        windows = _windows(padded[:, : columns + reach], reach + 1).flatten(0, 1)
        self.horizontal_position = (windows @ self.horizontal).view(rows, columns, -1)

        # (codes * filter, height * U) and (codes, filter half * U); the last code stands for none.
        embedding = F.pad(weights.embedding, (0, 0, 0, 1))
        self.no_code, self.taps = len(embedding) - 1, 2 * reach + 1
        taps = self.vertical.view(self.taps, hidden, -1).transpose(0, 1).flatten(1)
        self.vertical_table = (embedding @ taps).view(len(embedding) * self.taps, -1)
        taps = self.horizontal.view(reach + 1, hidden, -1).transpose(0, 1).flatten(1)
        self.table = embedding @ taps
        self.tap = torch.arange(self.taps, device=embedding.device)
        products = self.table.new_zeros(batch, reach + columns, reach + 1, self.units)
        canvas, cell, tap, _ = products.stride()
        self.products = products[:, reach:].flatten(2)  # of a cell's left code and each tap
        # What a cell adds up: its left code times the last tap, the one before times the one before
        self.terms = products.as_strided(
            (batch, columns, reach + 1, self.units), (canvas, cell, cell + tap, 1)
        )
        self.term_cells = self.terms.unbind(1)
        self.product_cells = self.products.unbind(1)
        self.codes_above: Tensor | None = None

    def next_row(
        self, context: Tensor | None, following: _Layer | None, distinct: int, needed: bool
    ) -> None:
        super().next_row(context, following, distinct, needed)
        self.above += self.horizontal_position[self.row]

    def _add_products(self, sums: Tensor) -> None:
        sums += self.vertical_position[self.row]
        if self.codes_above is not None:
            codes = F.pad(self.codes_above, (self.reach, self.reach), value=self.no_code)
            index = _windows(codes.mul_(self.taps).unsqueeze(2), self.taps) + self.tap
            found = F.embedding_bag(index.flatten(0, 1), self.vertical_table, mode="sum")
            sums += found.view_as(sums)

    def _add_windows(self, column: int, out: Tensor) -> None:
        torch.sum(self.term_cells[column], 1, out=out).add_(self.above_cells[column])

    def _add_all_windows(self, cells: slice) -> Tensor:
        return self.terms[:, cells].sum(2).add_(self.above[:, cells])


class _Attention:
    """Self-attention with the keys and values of all cells so far. D = C / heads."""

    def __init__(self, weights: AttentionWeights, batch: int, cells: int):
        heads, width = weights.heads, len(weights.split) // weights.heads
        self.norm = weights.norm.shape, weights.norm, weights.norm_bias, weights.eps
        # A head's query, key and value side by side, so that one copy keeps key and value.
        order = torch.arange(len(weights.split_bias), device=weights.split.device)
        order = order.view(3, heads, -1).transpose(0, 1).flatten()
        self.split = weights.split[:, order].contiguous()
        self.split_bias = weights.split_bias[order]
        self.merge, self.merge_bias = weights.merge.contiguous(), weights.merge_bias
        self.memory = weights.split.new_zeros(batch, heads, 2, cells, width)
        self.memory_cells = self.memory.unbind(3)  # (B, heads, 2, D)

    def next_cell(self, h: Tensor, cell: int, out: Tensor | None) -> Tensor:
        """:meth:`next_cells` of one cell, (B, C), in as few steps as can be."""
        batch, heads, _, _, width = self.memory.shape
        split = torch.addmm(self.split_bias, F.layer_norm(h, *self.norm), self.split)
        split = split.view(batch, heads, 3, width)
        self.memory_cells[cell].copy_(split[:, :, 1:])
        keys, values = self.memory[:, :, :, : cell + 1].unbind(2)
        mixed = F.scaled_dot_product_attention(split[:, :, :1], keys, values)
        return torch.addmm(self.merge_bias, mixed.view(h.shape), self.merge, out=out).add_(h)

    def next_cells(self, h: Tensor, first: int) -> Tensor:
        """h (B, n, C) of cells ``first`` .. in raster order to that behind the attention."""
        batch, heads, _, _, width = self.memory.shape
        count, last = h.shape[1], first + h.shape[1]
        flat = h.flatten(0, 1)
        split = torch.addmm(self.split_bias, F.layer_norm(flat, *self.norm), self.split)
        split = split.view(batch, count, heads, 3, width).permute(0, 2, 3, 1, 4)
        self.memory[:, :, :, first:last] = split[:, :, 1:]  # (B, heads, 2, n, D)
        keys, values = self.memory[:, :, :, :last].unbind(2)
        mask = None
        if count > 1:
            mask = torch.ones(count, last, dtype=torch.bool, device=h.device).tril(first)
        mixed = F.scaled_dot_product_attention(split[:, :, 0], keys, values, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(flat.shape)
        return torch.addmm(self.merge_bias, mixed, self.merge).add_(flat).view_as(h)


class Cache:
    """The state of an evaluation that walks down the rows and along each of them.

    Call :meth:`next_row` at the start of each row, then :meth:`logits` for its cells from left to
    right: one at a time, or several when their codes are known.

    Args:
        weights: What :meth:`PixelCNN.weights` returned; the net must not change while the cache
            lives.
        batch: Number of canvases, which are evaluated in lockstep.
        context: What :meth:`PixelCNN.context` returned, for a conditional net.
        first_row: The first row whose cells will be asked for. Rows that none of them depends on
            are left out, so that the walk may begin further down, at row ``cache.row + 1``; upper
            layers begin later still.
    """

    @torch.no_grad()
    def __init__(
        self,
        weights: PixelCNNWeights,
        batch: int,
        context: Tensor | None = None,
        first_row: int = 0,
    ):
        self.embedding, self.position = weights.embedding, weights.position.contiguous()
        rows, columns, _ = self.position.shape
        self.batch, self.columns = batch, columns
        self.context = None  # (h, B, w, C)
        if context is not None:
            self.context = context.detach().permute(2, 0, 3, 1).contiguous()
        scratch, blocks = _Scratch(weights, batch), weights.blocks
        self.layers = [_Layer(block, batch, rows, columns, scratch) for block in blocks[1:]]
        self.looks_up = batch * rows * columns >= CELLS_PER_CODE * len(self.embedding)
        if self.looks_up:
            first = _FirstLayer(weights, batch, self.position, scratch)
        else:
            first = _Layer(blocks[0], batch, rows, columns, scratch)
        self.layers.insert(0, first)
        self.attention = {
            layer: _Attention(block.attention, batch, rows * columns)
            for layer, block in enumerate(blocks)
            if block.attention is not None
        }
        # The biases of blocks' second products are not added to h, which stays below by their sum:
        # relu(h + sum) @ weight is max(h, -sum) @ weight + sum @ weight, whose end is constant.
        self.output = []
        below = torch.zeros_like(self.embedding[0])
        for block in weights.output:
            enter, leave = block.enter.contiguous(), block.leave.contiguous()
            self.output.append((-below, block.enter_bias + below @ enter, enter, leave))
            below = below + block.leave_bias
        self.head = weights.head.contiguous()
        self.head_below, self.head_bias = -below, weights.head_bias + below @ self.head
        self.first_row = 0 if self.attention else first_row  # attention sees all cells
        reached = self.first_row
        for layer in reversed(self.layers):
            reached = max(0, reached - layer.reach)
            layer.row = reached - 1
        self.row = reached - 1  # the row that the walk is in

    def next_row(self, above: Tensor | None) -> None:
        """Go to the next row; ``above`` is the row just finished, int64 (B, w), None at first."""
        self.row += 1
        self.position_cells = self.position[self.row].unbind(0)
        first = self.layers[0]
        first.v.copy_(self.position[self.row])
        if above is not None:
            first.v.add_(F.embedding(above, self.embedding))
        if isinstance(first, _FirstLayer):
            first.codes_above = above
        context = None if self.context is None else self.context[self.row]
        distinct, needed = 1 if above is None else self.batch, self.row >= self.first_row
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=True):
            begun = following is not None and following.row < self.row
            layer.next_row(context, following if begun else None, distinct, needed)
            if not begun:
                break

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
        if self.attention:
            self.hidden(codes[:, :-1], 0, self.columns)

    def hidden(self, left: Tensor | None, first: int, count: int = 1) -> Tensor:
        """Features (B, count, C) of these cells, as :meth:`PixelCNN.hidden` gives them."""
        if left is not None and not left.shape[1]:
            left = None
        if count == 1:
            return self.next_cell(None if left is None else left[:, 0], first).unsqueeze(1)
        cells, layers = slice(first, first + count), self.layers
        h = layers[0].h[:, cells]
        h.copy_(self.position[self.row, cells])
        if left is not None:
            begin = count - left.shape[1]
            h[:, begin:] += F.embedding(left, self.embedding)
            if isinstance(layers[0], _FirstLayer):
                layers[0].products[:, cells][:, begin:] = F.embedding(left, layers[0].table)
        for i, layer in enumerate(layers):
            h = layer.next_cells(cells)
            if i in self.attention:
                h = self.attention[i].next_cells(h, self.row * self.columns + first)
            if i + 1 < len(layers):
                layers[i + 1].h[:, cells] = h
        return h

    def next_cell(self, left: Tensor | None, column: int) -> Tensor:
        """:meth:`hidden` of one cell: (B, C), of codes (B,). The same, in fewer steps."""
        first = self.layers[0]
        if left is None:
            first.h_cells[column].copy_(self.position_cells[column])
        else:
            code = self.embedding.index_select(0, left)
            torch.add(code, self.position_cells[column], out=first.h_cells[column])
            if isinstance(first, _FirstLayer):
                first.product_cells[column].copy_(first.table.index_select(0, left))
        h = first.h_cells[column]
        for i, layer in enumerate(self.layers):
            # Straight to where the next layer looks; the last one's outlives the next cell.
            out = self.layers[i + 1].h_cells[column] if i + 1 < len(self.layers) else None
            if i in self.attention:
                h = layer.next_cell(column, None)
                h = self.attention[i].next_cell(h, self.row * self.columns + column, out)
            else:
                h = layer.next_cell(column, out)
        return h

    def readout(self, h: Tensor) -> Tensor:
        """Features (B, n, C) to logits (B, n, num_codes)."""
        return self.readout_cells(h.flatten(0, 1), self.head_bias).unflatten(0, h.shape[:2])

    def readout_cells(self, h: Tensor, bias: Tensor) -> Tensor:
        """Features (n, C) to logits (n, num_codes); ``bias`` is in place of :attr:`head_bias`."""
        for i, (below, bias_in, weight_in, weight_out) in enumerate(self.output):
            inner = torch.addmm(bias_in, torch.maximum(h, below), weight_in).relu_()
            h = h.addmm_(inner, weight_out) if i else torch.addmm(h, inner, weight_out)
        return torch.addmm(bias, torch.maximum(h, self.head_below), self.head)

    def held_bytes(self) -> int:
        """Memory that the cache holds, in bytes: its layouts of weights, its tables and buffers."""
        storages = (tensor.untyped_storage() for tensor in _tensors(self))
        return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, Cache | _Layer | _Attention | _Scratch | _Gate):
        yield from _tensors(vars(value))

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
(tests/test_cache_equals_forward.py). Log-probs for learning never come from here: they take one
teacher-forced pass, which has a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from ral_env.nets.pixelcnn import CausalAttention, GatedBlock, PixelCNN

# Looking products up pays from this many cells for each code of the codebook.
CELLS_PER_CODE = 4


def _matrix(layer: nn.Module) -> tuple[Tensor, Any]:
    """Weight (in, out) and bias of a 1x1 convolution or linear layer, laid out for products."""
    weight: Any = layer.weight
    bias: Any = layer.bias
    return weight.flatten(1).t().contiguous(), None if bias is None else bias.detach()


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
    """What a row's work is written to, once for all layers: allocating it would cost more."""

    def __init__(self, net: PixelCNN, batch: int):
        config, like = net.config, net.embedding.weight
        cells, hidden, units = batch * config.grid[1], config.hidden, 2 * config.residual
        self.windows = like.new_empty(cells, config.filter_size * hidden)
        self.mixed = like.new_empty(cells, hidden)
        self.row_gates = {n: _Gate(like, n * config.grid[1], units) for n in (1, batch)}
        self.cell_gate = _Gate(like, batch, units)


class _Layer:
    """One gated block's weights as matrices, and its buffers.

    B = canvases, w = columns, C = hidden, U = 2 * residual, F = rows of the vertical filter.
    """

    def __init__(self, block: GatedBlock, batch: int, grid: tuple[int, int], scratch: _Scratch):
        self.rows, columns = grid
        self.scratch, self.reach = scratch, block.reach
        reach, bias, h_bias = block.reach, block.vertical.bias, block.horizontal.bias
        assert bias is not None and h_bias is not None
        self.units, hidden = block.vertical.weight.shape[:2]  # U, C
        scale = torch.ones_like(bias)
        scale[: self.units // 2] = -2  # see _Gate
        self.vertical = _filter(block.vertical.weight, scale)
        self.vertical_bias = bias * scale
        self.horizontal = _filter(block.horizontal.weight, scale)
        self.horizontal_bias = h_bias * scale
        self.across = _matrix(block.across)[0] * (scale / scale[:, None])
        self.condition = block.condition and _matrix(block.condition)[0] * scale
        self.vertical_out = block.vertical_out and _matrix(block.vertical_out)[0]
        self.horizontal_out = _matrix(block.horizontal_out)[0]

        zeros = bias.new_zeros
        # What the rows so far add to this one, to the next, ..., and the same of the row before.
        self.sums = bias.new_empty(2, batch, columns, (reach + 1) * self.units)
        self.sums[:, :1] = self.vertical_bias.repeat(reach + 1)
        self.at, self.canvases = -1, 1
        self.row_above = zeros(batch, columns + 2 * reach, hidden)
        self.v = self.row_above[:, reach : reach + columns]
        self.above = zeros(batch, columns, self.units)
        self.row = zeros(batch, reach + columns, hidden)
        self.h = self.row[:, reach:]
        # Views of single cells, (B, ...)
        self.cells = self.h.unbind(1)
        self.windows = _windows(self.row, reach + 1).unbind(1)
        self.above_cells = self.above.unbind(1)

    def next_row(
        self, context: Tensor | None, then: _Layer | None, canvases: int, wanted: bool
    ) -> None:
        """Vertical stack of one row: from this layer's ``v`` to the next layer's.

        Of some ``canvases``, the rest being alike: the first row's see nothing above them. What it
        is to the horizontal stack is computed where the row's cells are ``wanted``.
        """
        self.at += 1
        scratch, units = self.scratch, self.units
        before = self.sums[self.at % 2 - 1, : self.canvases]
        sums = self.sums[self.at % 2, :canvases]
        self.canvases = canvases
        sums[..., :-units] = before[..., units:]
        sums[..., -units:] = self.vertical_bias
        self._add_products(sums)
        v_in = sums[..., :units].flatten(0, 1)
        if wanted:
            above = self.above[:canvases].flatten(0, 1)
            torch.addmm(self.horizontal_bias, v_in, self.across, out=above)
            self.above[canvases:] = self.above[:1]
            if self.condition is not None and context is not None:
                self.above.flatten(0, 1).addmm_(context.flatten(0, 1), self.condition)
        if self.vertical_out is not None and then is not None:
            mixed = scratch.mixed[: len(v_in)]
            torch.mm(scratch.row_gates[canvases](v_in), self.vertical_out, out=mixed)
            v = self.v[:canvases]
            torch.add(v, mixed.view_as(v), out=then.v[:canvases])

    def _add_products(self, sums: Tensor) -> None:
        """Add what ``v`` times the vertical filter is to the sums (B, w, F * U)."""
        windows = _windows(self.row_above[: len(sums)], 2 * self.reach + 1)
        flat = self.scratch.windows[: windows.shape[0] * windows.shape[1]]
        flat.view_as(windows).copy_(windows)
        wanted = min(self.reach + 1, self.rows - self.at) * self.units  # by rows of this grid
        sums[..., :wanted].flatten(0, 1).addmm_(flat, self.vertical[:, :wanted])

    def next_cell(self, column: int, out: Tensor | None) -> Tensor:
        """Horizontal stack of one cell, from ``h`` to what it is in the next layer: (B, C)."""
        gate = self.scratch.cell_gate
        self._add_windows(column, gate.x)
        return torch.addmm(self.cells[column], gate(gate.x), self.horizontal_out, out=out)

    def _add_windows(self, column: int, out: Tensor) -> None:
        torch.addmm(self.above_cells[column], self.windows[column], self.horizontal, out=out)

    def next_cells(self, cells: slice) -> Tensor:
        """:meth:`next_cell` of several cells at once: (B, n, C)."""
        h, x = self.h[:, cells], self._add_all_windows(cells).flatten(0, 1)
        return h + (_Gate(x, *x.shape)(x) @ self.horizontal_out).view_as(h)

    def _add_all_windows(self, cells: slice) -> Tensor:
        windows, above = _windows(self.row, self.reach + 1)[:, cells], self.above[:, cells]
        x = torch.addmm(above.flatten(0, 1), windows.flatten(0, 1), self.horizontal)
        return x.view_as(above)


class _FirstLayer(_Layer):
    """The first block, whose products of codes and filters are looked up, not computed.

    So are those of the positions, which are added to the codes: they are the same in all canvases.
    """

    def __init__(
        self,
        block: GatedBlock,
        batch: int,
        position: Tensor,  # (h, w, C)
        scratch: _Scratch,
        embedding: Tensor,
    ):
        rows, columns, hidden = position.shape
        super().__init__(block, batch, (rows, columns), scratch)
        reach = self.reach
        padded = F.pad(position, (0, 0, reach, reach))
        windows = _windows(padded, 2 * reach + 1).flatten(0, 1)
        self.vertical_position = (windows @ self.vertical).view(rows, columns, -1)
        windows = _windows(padded[:, : columns + reach], reach + 1).flatten(0, 1)
        self.horizontal_position = (windows @ self.horizontal).view(rows, columns, -1)

        # (codes * filter, F * U) and (codes, filter half * U); the last code stands for none.
        embedding = F.pad(embedding, (0, 0, 0, 1))
        self.none, self.taps = len(embedding) - 1, 2 * reach + 1
        taps = self.vertical.view(self.taps, hidden, -1).transpose(0, 1).flatten(1)
        self.vertical_table = (embedding @ taps).view(len(embedding) * self.taps, -1)
        taps = self.horizontal.view(reach + 1, hidden, -1).transpose(0, 1).flatten(1)
        self.table = embedding @ taps
        self.tap = torch.arange(self.taps, device=embedding.device)
        seen = self.table.new_zeros(batch, reach + columns, reach + 1, self.units)
        canvas, cell, tap, _ = seen.stride()
        self.seen = seen[:, reach:].flatten(2)  # a cell's left code times each tap
        self.terms = seen.as_strided(  # what a cell adds up: its left code, the one before, ...
            (batch, columns, reach + 1, self.units), (canvas, cell, cell + tap, 1)
        )
        self.terms_of = self.terms.unbind(1)
        self.seen_cells = self.seen.unbind(1)
        self.codes_above: Tensor | None = None

    def next_row(
        self, context: Tensor | None, then: _Layer | None, canvases: int, wanted: bool
    ) -> None:
        super().next_row(context, then, canvases, wanted)
        self.above += self.horizontal_position[self.at]

    def _add_products(self, sums: Tensor) -> None:
        sums += self.vertical_position[self.at]
        if self.codes_above is not None:
            codes = F.pad(self.codes_above, (self.reach, self.reach), value=self.none)
            index = _windows(codes.mul_(self.taps).unsqueeze(2), self.taps) + self.tap
            found = F.embedding_bag(index.flatten(0, 1), self.vertical_table, mode="sum")
            sums += found.view_as(sums)

    def _add_windows(self, column: int, out: Tensor) -> None:
        torch.sum(self.terms_of[column], 1, out=out).add_(self.above_cells[column])

    def _add_all_windows(self, cells: slice) -> Tensor:
        return self.terms[:, cells].sum(2).add_(self.above[:, cells])


class _Attention:
    """Self-attention's weights, and the keys and values of all cells so far. D = C / heads."""

    def __init__(self, attention: CausalAttention, batch: int, cells: int):
        norm = attention.norm
        self.norm = norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps
        weight, bias = _matrix(attention.query_key_value)
        # A head's query, key and value side by side, so that one copy keeps key and value.
        order = torch.arange(len(bias), device=bias.device).view(3, attention.heads, -1)
        order = order.transpose(0, 1).flatten()
        self.split, self.split_bias = weight[:, order].contiguous(), bias[order]
        self.merge, self.merge_bias = _matrix(attention.out)
        width = len(weight) // attention.heads
        self.memory = weight.new_zeros(batch, attention.heads, 2, cells, width)
        self.cells = self.memory.unbind(3)  # (B, heads, 2, D)

    def next_cell(self, h: Tensor, cell: int, out: Tensor | None) -> Tensor:
        """:meth:`next_cells` of one cell, (B, C), in as few steps as can be."""
        batch, heads, _, _, width = self.memory.shape
        split = torch.addmm(self.split_bias, F.layer_norm(h, *self.norm), self.split)
        split = split.view(batch, heads, 3, width)
        self.cells[cell].copy_(split[:, :, 1:])
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

    Args:
        net: a PixelCNN; its weights must not change while the cache lives.
        batch: canvases, in lockstep.
        context: what :meth:`PixelCNN.context` returned, for a conditional net.
        wanted: the first row that cells are wanted of. What no such cell sees is left out, so that
            the first row to go to may be further down, see :attr:`at`; upper layers begin later
            still.

    Call :meth:`next_row` at the start of each row, then :meth:`logits` for its cells from left to
    right: one at a time, or several when their codes are known.
    """

    @torch.no_grad()
    def __init__(self, net: PixelCNN, batch: int, context: Tensor | None = None, wanted: int = 0):
        rows, columns = net.config.grid
        self.batch, self.columns = batch, columns
        self.embedding = net.embedding.weight.detach()
        self.position = (net.row + net.column).permute(1, 2, 0).contiguous()  # (h, w, C)
        self.context = None  # (h, B, w, C)
        if context is not None:
            self.context = context.detach().permute(2, 0, 3, 1).contiguous()
        blocks: Any = net.blocks
        scratch = _Scratch(net, batch)
        self.layers = [_Layer(block, batch, (rows, columns), scratch) for block in blocks[1:]]
        self.looks_up = batch * rows * columns >= CELLS_PER_CODE * len(self.embedding)
        if self.looks_up:
            first = _FirstLayer(blocks[0], batch, self.position, scratch, self.embedding)
        else:
            first = _Layer(blocks[0], batch, (rows, columns), scratch)
        self.layers.insert(0, first)
        attention: Any = dict(net.attention.items())
        self.attention = {
            int(layer): _Attention(module, batch, rows * columns)
            for layer, module in attention.items()
        }
        # The biases of blocks' second products are not added to h, which stays below by their sum:
        # relu(h + sum) @ weight is max(h, -sum) @ weight + sum @ weight, whose end is constant.
        self.output = []
        below = torch.zeros_like(self.embedding[0])
        output: Any = net.output
        for block in output:
            (enter, bias), (leave, more) = _matrix(block[1]), _matrix(block[4])
            self.output.append((-below, bias + below @ enter, enter, leave))
            below = below + more
        self.head, bias = _matrix(net.head)
        self.head_below, self.head_bias = -below, bias + below @ self.head
        self.wanted = 0 if self.attention else wanted  # which sees all cells
        seen = self.wanted
        for layer in reversed(self.layers):
            seen = max(0, seen - layer.reach)
            layer.at = seen - 1
        self.at = seen - 1  # the row that the walk is in

    def next_row(self, above: Tensor | None) -> None:
        """Go to the next row; ``above`` is the row just finished, int64 (B, w), None at first."""
        self.at += 1
        self.positions = self.position[self.at].unbind(0)
        first = self.layers[0]
        first.v.copy_(self.position[self.at])
        if above is not None:
            first.v.add_(F.embedding(above, self.embedding))
        if isinstance(first, _FirstLayer):
            first.codes_above = above
        context = None if self.context is None else self.context[self.at]
        canvases, wanted = 1 if above is None else self.batch, self.at >= self.wanted
        for layer, then in zip(self.layers, [*self.layers[1:], None], strict=True):
            begun = then is not None and then.at < self.at
            layer.next_row(context, then if begun else None, canvases, wanted)
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
        h.copy_(self.position[self.at, cells])
        if left is not None:
            begin = count - left.shape[1]
            h[:, begin:] += F.embedding(left, self.embedding)
            if isinstance(layers[0], _FirstLayer):
                layers[0].seen[:, cells][:, begin:] = F.embedding(left, layers[0].table)
        for i, layer in enumerate(layers):
            h = layer.next_cells(cells)
            if i in self.attention:
                h = self.attention[i].next_cells(h, self.at * self.columns + first)
            if i + 1 < len(layers):
                layers[i + 1].h[:, cells] = h
        return h

    def next_cell(self, left: Tensor | None, column: int) -> Tensor:
        """:meth:`hidden` of one cell: (B, C), of codes (B,). The same, in fewer steps."""
        first = self.layers[0]
        if left is None:
            first.cells[column].copy_(self.positions[column])
        else:
            code = self.embedding.index_select(0, left)
            torch.add(code, self.positions[column], out=first.cells[column])
            if isinstance(first, _FirstLayer):
                first.seen_cells[column].copy_(first.table.index_select(0, left))
        for i, layer in enumerate(self.layers):
            # Straight to where the next layer looks; the last one's outlives the next cell.
            out = self.layers[i + 1].cells[column] if i + 1 < len(self.layers) else None
            if i in self.attention:
                h = layer.next_cell(column, None)
                h = self.attention[i].next_cell(h, self.at * self.columns + column, out)
            else:
                h = layer.next_cell(column, out)
        return h

    def readout(self, h: Tensor, bias: Tensor | None = None) -> Tensor:
        """Features (B, n, C) to logits (B, n, num_codes); ``bias`` is in place of the head's."""
        out = self.head_bias if bias is None else bias
        return self._readout(h.flatten(0, 1), out).unflatten(0, h.shape[:2])

    def _readout(self, h: Tensor, bias: Tensor) -> Tensor:
        """:meth:`readout` of features (n, C) to (n, num_codes)."""
        for i, (below, bias_in, weight_in, weight_out) in enumerate(self.output):
            inner = torch.addmm(bias_in, torch.maximum(h, below), weight_in).relu_()
            h = h.addmm_(inner, weight_out) if i else torch.addmm(h, inner, weight_out)
        return torch.addmm(bias, torch.maximum(h, self.head_below), self.head)

    def held_bytes(self) -> int:
        """What the cache keeps in memory: its layouts of the weights, tables and buffers."""
        sizes: dict[int, int] = {}
        seen: set[int] = set()

        def walk(value: Any) -> None:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                sizes[storage._cdata] = storage.nbytes()
            elif isinstance(value, dict):
                walk(list(value.values()))
            elif isinstance(value, list | tuple):
                for item in value:
                    walk(item)
            elif hasattr(value, "__dict__") and id(value) not in seen:
                seen.add(id(value))
                walk(vars(value))

        walk(self)
        return sum(sizes.values())


@dataclass(frozen=True)
class SharedGenerator:
    """A generator that ``count`` processes share, each of which samples as many canvases: every
    one draws the noise of them all and takes the part with its ``index``. Together they write
    what one process would."""

    generator: torch.Generator
    index: int
    count: int


def gumbel(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | SharedGenerator | None = None
) -> Tensor:
    """Standard Gumbel noise: ``argmax(logits + noise)`` is a draw from ``softmax(logits)``.

    Of a shared generator, the shape is (columns, B, num_codes).
    """
    if isinstance(generator, SharedGenerator):
        columns, batch, *codes = shape
        whole = gumbel((columns, batch * generator.count, *codes), like, generator.generator)
        return whole[:, generator.index * batch : (generator.index + 1) * batch]
    if like.device.type != "cpu":
        return like.new_empty(shape).exponential_(generator=generator).log_().neg_()
    # An exponential is -log(1 - u). Codes win by the smallest, so u is 31 bits and never 0: rare
    # codes come as often as they should. From the bits themselves, as exponential_ and rand take
    # three and two times as long in all, and exponential_ differs from processor to processor.
    count = math.prod(shape)
    bits = torch.empty((count + 1) // 2, dtype=torch.int64)
    bits = bits.random_(-(2**63), None, generator=generator).view(torch.int32)[:count]
    u = bits.to(torch.promote_types(like.dtype, torch.float32)).abs_().add_(0.5)
    u = u.mul_((1 - 2**-24) / 2**31)  # 1 would be infinite
    return u.neg_().log1p_().neg_().log_().neg_().to(like.dtype).view(shape)


@torch.inference_mode()
def sample_empty_(
    net: PixelCNN,
    codes: Tensor,
    condition: Tensor | None,
    temperature: float,
    generator: torch.Generator | SharedGenerator | None,
) -> None:
    """Write the EMPTY cells of ``codes`` (B, h, w) in place. See :meth:`PixelCNN.sample`."""
    batch, rows, columns = codes.shape
    empty = codes == net.config.num_codes
    has_empty = empty.any(2).any(0).tolist()
    if not any(has_empty):
        return
    cache = Cache(net, batch, net.context(condition, rows), wanted=has_empty.index(True))
    last = max(row for row in range(rows) if has_empty[row])
    for row in range(cache.at + 1, last + 1):
        cache.next_row(codes[:, row - 1] if row else None)
        if not has_empty[row]:
            cache.feed(codes[:, row])
            continue
        # What a row adds to its logits times the temperature: (w, B, num_codes).
        offset = cache.head_bias.expand(columns, batch, -1)
        noise = gumbel(tuple(offset.shape), offset, generator) if temperature > 0 else offset
        offset = torch.add(offset, noise, alpha=temperature)
        known = ~empty[:, row].t().unsqueeze(2)  # what is known wins
        index = torch.where(known, codes[:, row].t().unsqueeze(2), 0)
        offset.scatter_add_(2, index, torch.where(known, torch.inf, 0.0).to(offset.dtype))
        cells, left = codes[:, row].unbind(1), None
        for column, bias in enumerate(offset.unbind(0)):
            scores = cache._readout(cache.next_cell(left, column), bias)
            left = torch.argmax(scores, 1, out=cells[column])

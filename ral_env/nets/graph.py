"""Sampling where launching work costs more than the work: a row's and a cell's step as CUDA graphs.

A cell of a large net is a few hundred small kernels, and launching each takes a GPU longer than
running it. Here the two steps are written so that they can be captured once and replayed: all
buffers stay where they are, and the position is a tensor on the device, which the steps move on
themselves. The host waits for nothing until the canvas is finished.

``compile=True`` lets Inductor write the steps anew first: what stands between two products becomes
one kernel, which halves their number. It takes a minute or more, and pays for many batches.

Where there is no CUDA the same steps are called instead of replayed: they write what
:meth:`PixelCNN.sample` writes (tests/ral_env/nets/test_graph.py), at a speed that is of no
interest.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ral_env.nets.noise import NoiseSource, gumbel
from ral_env.nets.pixelcnn import PixelCNN, gate
from ral_env.nets.shapes import Codes, Condition
from ral_env.nets.weights import AttentionWeights, PixelCNNWeights

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class GraphSampler:
    """Samples one net for batches of one size.

    Args:
        net: A PixelCNN; each call of :meth:`sample` takes its weights as they are then.
        batch: Number of canvases.
        precision: ``float32`` is exact; with ``bfloat16`` all but the logits, the noise and the
            choice is in 16 bits, for half the bytes of weights.
        compile: Whether ``torch.compile`` writes the steps anew; it needs a C++ compiler.

    Raises:
        ValueError: If there is no such precision.
    """

    def __init__(
        self,
        net: PixelCNN,
        batch: int,
        precision: Literal["float32", "bfloat16"] = "float32",
        compile: bool = False,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r}, expected one of {tuple(PRECISIONS)}")
        self.net, self.batch, self.dtype = net, batch, PRECISIONS[precision]
        self.compile = compile
        config, device = net.config, net.embedding.weight.device
        (rows, columns), hidden = config.grid, config.hidden
        reach, units = config.filter_size // 2, 2 * config.residual
        self.reach = reach

        def zeros(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
            return torch.zeros(shape, dtype=dtype or self.dtype, device=device)

        self.row, self.column = zeros(1, dtype=torch.int64), zeros(1, dtype=torch.int64)
        self.codes = zeros(batch, rows * columns, dtype=torch.int64)
        self.empty = zeros(batch, rows * columns, dtype=torch.bool)
        self.noise = zeros(columns, batch, config.num_codes, dtype=torch.float32)
        self.inverse_temperature = zeros(1, dtype=torch.float32)  # 1 / temperature
        self.context = zeros(batch, rows, columns, hidden) if config.condition_layers else None
        self.rows_above = [zeros(batch, reach + 1, columns + 2 * reach, hidden) for _ in net.blocks]
        self.above = [zeros(batch, columns, units) for _ in net.blocks]
        self.cells = [zeros(batch, reach + columns, hidden) for _ in net.blocks]
        attention: Any = net.attention
        self.memory = {
            int(layer): zeros(2, batch, module.heads, rows * columns, hidden // module.heads)
            for layer, module in attention.items()
        }
        self.window = torch.arange(reach + 1, device=device)
        self.order = torch.arange(rows * columns, device=device)
        self.weights = self._laid_out()
        self.steps: list[Any] = []

    def _laid_out(self) -> PixelCNNWeights:
        """The net's weights now, in this precision; filters as matrices (height * width * C, U)."""

        def laid_out(weight: Tensor) -> Tensor:
            if weight.dim() == 4:
                weight = weight.permute(2, 3, 1, 0).flatten(0, 2)
            return weight.to(self.dtype, copy=True).contiguous()

        return self.net.weights().map(laid_out)

    def _row_step(self) -> None:
        """Go to the next row and run its vertical stack."""
        w, reach = self.weights, self.reach
        rows, columns = self.net.config.grid
        self.row.add_(1)
        self.column.zero_()
        before = self.codes.view(-1, rows, columns).index_select(1, (self.row - 1).clamp(min=0))
        v = F.embedding(before[:, 0], w.embedding) * (self.row > 0)  # (B, w, C)
        v = v + w.position.index_select(0, self.row)
        for block, rows_above, to_cells in zip(w.blocks, self.rows_above, self.above, strict=True):
            rows_above[:, :-1] = rows_above[:, 1:].clone()
            rows_above[:, -1, reach : reach + columns] = v
            windows = rows_above.unfold(2, 2 * reach + 1, 1)  # (B, height, w, C, width)
            windows = windows.permute(0, 2, 1, 4, 3).reshape(len(v) * columns, -1)
            v_in = torch.addmm(block.vertical_bias, windows, block.vertical)
            above = torch.addmm(block.horizontal_bias, v_in, block.across)
            if self.context is not None and block.condition is not None:
                context = self.context.index_select(1, self.row).flatten(0, 2)
                above = above + context @ block.condition
            to_cells.copy_(above.view_as(to_cells))
            if block.vertical_out is not None:
                v = v + (gate(v_in, -1) @ block.vertical_out).view_as(v)

    def _cell_step(self) -> None:
        """Write the cell at the present column, where it is EMPTY, and go to the next."""
        w, reach, column = self.weights, self.reach, self.column
        _, columns = self.net.config.grid
        cell = self.row * columns + column
        left = self.codes.index_select(1, (cell - 1).clamp(min=0))[:, 0]
        h = F.embedding(left, w.embedding) * (column > 0)  # (B, C)
        h = h + w.position.flatten(0, 1).index_select(0, cell)
        for i, (block, cells) in enumerate(zip(w.blocks, self.cells, strict=True)):
            cells.index_copy_(1, column + reach, h[:, None])
            window = cells.index_select(1, column + self.window).flatten(1)
            x = self.above[i].index_select(1, column)[:, 0] + window @ block.horizontal
            h = h + gate(x, -1) @ block.horizontal_out
            if block.attention is not None:
                h = self._attend(block.attention, self.memory[i], h[:, None], cell)[:, 0]
        for block in w.output:
            inner = torch.addmm(block.enter_bias, F.relu(h), block.enter)
            h = h + torch.addmm(block.leave_bias, F.relu(inner), block.leave)
        logits = torch.addmm(w.head_bias, F.relu(h), w.head).float()
        scores = logits * self.inverse_temperature + self.noise.index_select(0, column)[0]
        known = self.codes.index_select(1, cell)
        chosen = scores.argmax(1, keepdim=True)
        written = torch.where(self.empty.index_select(1, cell), chosen, known)
        self.codes.index_copy_(1, cell, written)
        column.add_(1)

    def _known_step(self) -> None:
        """Pass over a row whose codes are known: attention is to see its cells."""
        w, reach = self.weights, self.reach
        rows, columns = self.net.config.grid
        codes = self.codes.view(-1, rows, columns).index_select(1, self.row)[:, 0]
        h = F.pad(F.embedding(codes[:, :-1], w.embedding), (0, 0, 1, 0))  # (B, w, C)
        h = h + w.position.index_select(0, self.row)
        for i in range(max(self.memory) + 1):
            block, cells = w.blocks[i], self.cells[i]
            cells[:, reach:] = h
            windows = cells.unfold(1, reach + 1, 1).permute(0, 1, 3, 2).flatten(2)
            x = self.above[i] + windows @ block.horizontal
            h = h + gate(x, -1) @ block.horizontal_out
            if block.attention is not None:
                these = self.row * columns + self.order[:columns]
                h = self._attend(block.attention, self.memory[i], h, these)

    def _attend(
        self, weights: AttentionWeights, memory: Tensor, h: Tensor, cells: Tensor
    ) -> Tensor:
        """h (B, n, C) of these cells, int64 (n,) in raster order, to that behind the attention.

        ``memory`` (2, B, heads, h * w, C / heads) holds the keys and values of all cells so far.
        """
        _, batch, heads, _, width = memory.shape
        normal = F.layer_norm(h, h.shape[2:], weights.norm, weights.norm_bias, weights.eps)
        split = F.linear(normal, weights.split.t(), weights.split_bias)
        split = split.view(batch, -1, 3, heads, width).permute(2, 0, 3, 1, 4)
        memory.index_copy_(3, cells, split[1:])
        past = (self.order <= cells[:, None]).view(1, 1, -1, len(self.order))
        mixed = F.scaled_dot_product_attention(split[0], memory[0], memory[1], attn_mask=past)
        mixed = mixed.transpose(1, 2).flatten(2)
        return h + F.linear(mixed, weights.merge.t(), weights.merge_bias)

    def _captured(self) -> list[Any]:
        """All steps, as something to call: CUDA graphs where there is CUDA."""
        steps: list[Any] = [self._row_step, self._cell_step]
        if self.memory:
            steps.append(self._known_step)
        if self.compile:
            steps = [torch.compile(step) for step in steps]
        if self.codes.device.type != "cuda":
            return steps
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up outside the capture
            for _ in range(3):
                self._begin()
                for step in steps:
                    step()
        torch.cuda.current_stream().wait_stream(side)
        self._begin()
        graphs = []
        for step in steps:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            graphs.append(graph.replay)
        return graphs

    def _begin(self, row: int = 0) -> None:
        """Stand before a row, as if there were nothing above it."""
        self.row.fill_(row - 1)
        self.column.zero_()
        for rows_above in self.rows_above:
            rows_above.zero_()

    @torch.no_grad()
    def sample(
        self,
        prefix: Codes,
        condition: Condition | None = None,
        temperature: float = 1.0,
        generator: NoiseSource = None,
    ) -> Codes:
        """Do what :meth:`PixelCNN.sample` does, with its arguments and errors.

        Raises:
            ValueError: Also if the prefix is of another batch.
        """
        net, columns = self.net, self.net.config.grid[1]
        net.check_sample(prefix, temperature)
        if len(prefix) != self.batch:
            raise ValueError(
                f"prefix holds {len(prefix)} canvases, expected {self.batch}: make a sampler for "
                "each size of batch"
            )
        for weight, now in zip(self.weights.tensors(), self._laid_out().tensors(), strict=True):
            weight.copy_(now)
        self.steps = self.steps or self._captured()
        row_step, cell_step, *known_step = self.steps
        rows = prefix.shape[1]
        cells = rows * columns
        self.codes[:, :cells] = prefix.flatten(1)
        self.empty[:, :cells] = self.codes[:, :cells] == net.config.num_codes
        # EMPTY is no code: nothing reads it, but looking it up must not fail.
        self.codes[:, :cells].masked_fill_(self.empty[:, :cells], 0)
        if self.context is not None:
            context = net.context(condition, rows)
            assert context is not None
            self.context[:, :rows] = context.permute(0, 2, 3, 1)
        else:
            net.context(condition, rows)  # refuses a condition
        self.inverse_temperature.fill_(1 / temperature if temperature else 1.0)
        has_empty = (prefix == net.config.num_codes).any(2).any(0).tolist()
        first = has_empty.index(True) if any(has_empty) else rows
        last = max((row for row in range(rows) if has_empty[row]), default=-1)
        # Without attention, a cell sees no row that is further up than all layers reach together.
        start = 0 if self.memory else max(0, first - self.reach * len(self.cells))
        self._begin(start)
        for row in range(start, last + 1):
            row_step()
            if not has_empty[row]:
                for step in known_step:
                    step()
                continue
            if temperature:
                self.noise.copy_(gumbel(tuple(self.noise.shape), self.noise, generator))
            else:
                self.noise.zero_()
            for _ in range(columns):
                cell_step()
        return self.codes[:, :cells].view_as(prefix).clone()

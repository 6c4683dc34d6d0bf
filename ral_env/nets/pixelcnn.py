"""Gated PixelCNN: an autoregressive prior over a grid of codes, and the policy of the RL problem.

Vertical and horizontal stacks as in van den Oord et al. 2016, "Conditional Image Generation with
PixelCNN Decoders" (arXiv 1606.05328); causal self-attention as in Chen et al. 2018, "PixelSNAIL"
(arXiv 1712.09763). Sizes: supplement Tables 4-10.

The input is shifted by one cell *once*, in front of the stacks, so that no layer needs a mask:
every convolution may look at the row (vertical stack) or the cell (horizontal stack) it computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ral_env.nets import backends
from ral_env.nets.noise import NoiseSource
from ral_env.nets.shapes import Codes, Condition, Context, Hidden, Logits, LogProbs
from ral_env.nets.vqvae import ResidualBlock
from ral_env.nets.weights import AttentionWeights, BlockWeights, OutputWeights, PixelCNNWeights
from ral_env.ranges import check_ranges


@dataclass(frozen=True)
class PixelCNNConfig:
    """Sizes of a PixelCNN, in the words of the paper's tables.

    Args:
        grid: Rows and columns of the code grid.
        num_codes: Number of entries of the codebook. ``num_codes`` itself means EMPTY in a prefix.
        hidden: Number of channels of both stacks.
        residual: Number of inner channels of a gated block.
        layers: Number of gated blocks.
        attention_layers: Number of gated blocks that are followed by causal self-attention, spread
            evenly.
        filter_size: Side of the (masked) filter in cells, odd; 5 sees two cells to each side.
        dropout: Share of a gated block's inner units that is dropped in training.
        output_layers: Number of position-wise residual blocks behind the horizontal stack.
        condition_layers: Number of residual blocks over the grid of the level above; 0 makes an
            unconditional net.
        condition_grid: Rows and columns of the level above, for a conditional net.

    Raises:
        ValueError: If a size is out of its range, or sizes do not go together.
    """

    grid: tuple[int, int]
    num_codes: int
    hidden: int = 128
    residual: int = 128
    layers: int = 5
    attention_layers: int = 0
    filter_size: int = 5
    dropout: float = 0.1
    output_layers: int = 5
    condition_layers: int = 0
    condition_grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_ranges(
            self,
            grid="[1, inf)",
            num_codes="[1, inf)",
            hidden="[1, inf)",
            residual="[1, inf)",
            layers="[1, inf)",
            dropout="[0, 1)",
            output_layers="[0, inf)",
            condition_layers="[0, inf)",
            condition_grid="[1, inf)",
        )
        if self.filter_size % 2 == 0 or self.filter_size < 3:
            raise ValueError(f"filter_size={self.filter_size}, expected an odd number from 3 on")
        if not 0 <= self.attention_layers <= self.layers:
            raise ValueError(
                f"attention_layers={self.attention_layers}, expected 0 to layers={self.layers}"
            )
        if bool(self.condition_layers) != bool(self.condition_grid):
            raise ValueError(
                "condition_layers and condition_grid go together, got "
                f"{self.condition_layers} and {self.condition_grid}"
            )
        if self.condition_grid and any(
            side % above for side, above in zip(self.grid, self.condition_grid, strict=True)
        ):
            raise ValueError(f"grid {self.grid} is no multiple of {self.condition_grid}")

    @property
    def condition_scale(self) -> tuple[float, float]:
        """Rows and columns of the grid for each of the level above; (1, 1) without one."""
        rows, columns = self.condition_grid or self.grid
        return float(self.grid[0] // rows), float(self.grid[1] // columns)

    def attention_follows(self, layer: int) -> bool:
        """Whether self-attention follows gated block ``layer``."""
        share = self.attention_layers / self.layers
        return int((layer + 1) * share) > int(layer * share)


def gate(x: Tensor, dim: int = 1) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second: half as many.

    tanh(a) is 2 sigmoid(2 a) - 1: on the CPU a sigmoid takes a tenth of torch's tanh.
    """
    a, b = x.chunk(2, dim)
    return (2 * torch.sigmoid(2 * a) - 1) * torch.sigmoid(b)


def _matrix(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Weight of a 1x1 convolution or linear layer as a matrix (in, out)."""
    return layer.weight.detach().flatten(1).t()


class GatedBlock(nn.Module):
    """One layer of both stacks; the last layer's vertical stack feeds the horizontal one only.

    Args:
        config: Sizes of the net.
        last: Whether it is the last layer.
    """

    def __init__(self, config: PixelCNNConfig, last: bool):
        super().__init__()
        hidden, residual = config.hidden, config.residual
        self.reach = config.filter_size // 2
        self.scale = config.condition_scale
        self.vertical = nn.Conv2d(hidden, 2 * residual, (self.reach + 1, config.filter_size))
        self.horizontal = nn.Conv2d(hidden, 2 * residual, (1, self.reach + 1))
        self.across = nn.Conv2d(2 * residual, 2 * residual, 1, bias=False)
        self.condition = (
            nn.Conv2d(hidden, 2 * residual, 1, bias=False) if config.condition_layers else None
        )
        self.dropout = nn.Dropout(config.dropout)
        self.vertical_out = None if last else nn.Conv2d(residual, hidden, 1, bias=False)
        self.horizontal_out = nn.Conv2d(residual, hidden, 1, bias=False)

    def forward(self, v: Tensor, h: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks (B, hidden, h, w), and what the level above says, to both stacks.

        Args:
            above: (B, hidden, h', w'), on that level's own grid.
        """
        reach = self.reach
        v_in = self.vertical(F.pad(v, (reach, reach, reach, 0)))  # rows r-reach .. r
        h_in = self.horizontal(F.pad(h, (reach, 0, 0, 0)))
        h_in += self.across(v_in)
        if self.condition is not None and above is not None:
            # A 1x1 convolution: on the coarser grid it is as good and has a quarter of the cells.
            h_in += F.interpolate(self.condition(above), scale_factor=self.scale)[
                :, :, : h.shape[2]
            ]
        if self.vertical_out is not None:
            v = v + self.vertical_out(self.dropout(gate(v_in)))
        return v, h + self.horizontal_out(self.dropout(gate(h_in)))

    def weights(self, attention: AttentionWeights | None) -> BlockWeights:
        """This block's and those of the ``attention`` that follows it, see ``weights.py``."""
        assert self.vertical.bias is not None and self.horizontal.bias is not None
        return BlockWeights(
            vertical=self.vertical.weight.detach(),
            vertical_bias=self.vertical.bias.detach(),
            horizontal=self.horizontal.weight.detach(),
            horizontal_bias=self.horizontal.bias.detach(),
            across=_matrix(self.across),
            condition=None if self.condition is None else _matrix(self.condition),
            vertical_out=None if self.vertical_out is None else _matrix(self.vertical_out),
            horizontal_out=_matrix(self.horizontal_out),
            attention=attention,
        )


class CausalAttention(nn.Module):
    """Self-attention of each cell to itself and to all cells before it in raster order.

    Args:
        hidden: Number of channels; each head has about 64 of them.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.heads = max(1, hidden // 64)
        self.norm = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) to query, key and value, each (B, heads, T, C / heads)."""
        q, k, v = self.query_key_value(self.norm(x)).unflatten(2, (3, self.heads, -1)).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """(B, heads, T, C / heads) to (B, T, C)."""
        return self.out(x.transpose(1, 2).flatten(2))

    def forward(self, h: Tensor) -> Tensor:
        """Features (B, hidden, h, w) to features of the same shape."""
        q, k, v = self.split(h.flatten(2).transpose(1, 2))  # (B, C, h, w) -> (B, h*w, C)
        mixed = self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return h + mixed.transpose(1, 2).view_as(h)

    def weights(self) -> AttentionWeights:
        """See ``weights.py``."""
        norm, split, merge = self.norm, self.query_key_value, self.out
        return AttentionWeights(
            heads=self.heads,
            eps=norm.eps,
            norm=norm.weight.detach(),
            norm_bias=norm.bias.detach(),
            split=_matrix(split),
            split_bias=split.bias.detach(),
            merge=_matrix(merge),
            merge_bias=merge.bias.detach(),
        )


class PixelCNN(nn.Module):
    """G(c_t | c_0 .. c_t-1) over the cells of one grid in raster order.

    As a policy: the state is the codes so far, the action the next code (paper section 4.1).

    Attributes:
        backend: What :meth:`sample` runs, ``auto``, ``native`` or ``eager``; see ``backends.py``.
    """

    backend: backends.Backend = "auto"

    def __init__(self, config: PixelCNNConfig):
        super().__init__()
        self.config = config
        # Whether the backward pass computes activations again instead of finding them in memory:
        # about a third more time for a fraction of the memory.
        self.recompute = False
        hidden = config.hidden
        self.embedding = nn.Embedding(config.num_codes, hidden)
        self.row = nn.Parameter(torch.empty(hidden, config.grid[0], 1))
        self.column = nn.Parameter(torch.empty(hidden, 1, config.grid[1]))
        for place in (self.row, self.column):
            nn.init.normal_(place, std=0.1)
        self.blocks = nn.ModuleList(
            GatedBlock(config, last=layer == config.layers - 1) for layer in range(config.layers)
        )
        self.attention = nn.ModuleDict(
            {
                str(layer): CausalAttention(hidden)
                for layer in range(config.layers)
                if config.attention_follows(layer)
            }
        )
        self.output = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ReLU(),
                    nn.Conv2d(hidden, config.residual, 1),
                    nn.ReLU(),
                    nn.Dropout(config.dropout),
                    nn.Conv2d(config.residual, hidden, 1),
                )
                for _ in range(config.output_layers)
            )
        )
        self.head = nn.Conv2d(hidden, config.num_codes, 1)
        if config.condition_layers:
            self.condition_embedding = nn.Embedding(config.num_codes, hidden)
            self.condition_stack = nn.Sequential(
                *(ResidualBlock(hidden, config.residual) for _ in range(config.condition_layers))
            )

    def context(self, condition: Condition | None, rows: int) -> Context | None:
        """The level above, as features on this level's grid: (B, hidden, rows, w), or None.

        Raises:
            ValueError: If the net is unconditional and a condition is given, or it is conditional
                and gets none, or one of another shape.
        """
        above = self._above(condition)
        if above is None:
            return None
        return F.interpolate(above, scale_factor=self.config.condition_scale)[:, :, :rows]

    def _above(self, condition: Condition | None) -> Tensor | None:
        """The same on that level's own grid: (B, hidden, h', w'), or None."""
        if self.config.condition_grid is None:
            if condition is not None:
                raise ValueError("this prior is unconditional, but a condition was given")
            return None
        if condition is None or condition.dim() != 3:
            raise ValueError(
                "this prior needs the codes of the level above as its condition, (B, h, w) of "
                f"{self.config.condition_grid}, got "
                f"{None if condition is None else tuple(condition.shape)}"
            )
        return self.condition_stack(self.condition_embedding(condition).permute(0, 3, 1, 2))

    def logits(self, codes: Codes, condition: Condition | None = None) -> Logits:
        """Logits of every cell given all cells before it, in one pass (teacher forcing).

        Args:
            codes: int64 (B, h, w), 0 to num_codes - 1; h may be fewer rows than the grid has.
            condition: Codes of the level above, int64 (B, h', w'), for a conditional net.

        Returns:
            (B, h, w, num_codes).

        Raises:
            ValueError: If the shape or the condition does not fit.
        """
        return self.readout(self.hidden(codes, condition))

    forward = logits

    def hidden(self, codes: Codes, condition: Condition | None = None) -> Hidden:
        """Features of every cell given all cells before it: (B, h, w, hidden).

        :meth:`readout` maps them to :meth:`logits`; a critic can read the same state from them.
        Arguments and errors are those of :meth:`logits`.
        """
        self._check_grid(codes)
        above = self._above(condition)
        x = self.embedding(codes).permute(0, 3, 1, 2)  # (B, C, h, w)
        position = self.row[:, : codes.shape[1]] + self.column
        v = F.pad(x, (0, 0, 1, 0))[:, :, :-1] + position  # what stands one row up
        h = F.pad(x, (1, 0))[:, :, :, :-1] + position  # what stands one cell to the left
        for layer, block in enumerate(self.blocks):
            v, h = self._run(block, v, h, above)
            if str(layer) in self.attention:
                h = self._run(self.attention[str(layer)], h)
        return h.permute(0, 2, 3, 1)

    def readout(self, hidden: Hidden) -> Logits:
        """Features of cells (B, h, w, hidden) to their logits (B, h, w, num_codes)."""
        h = hidden.permute(0, 3, 1, 2)
        for block in self.output:
            h = h + self._run(block, h)
        return self.head(F.relu(h)).permute(0, 2, 3, 1)

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Any:
        """Call a block, so that only its inputs are kept for the backward pass if recomputing."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def log_prob(
        self, codes: Codes, condition: Condition | None = None, temperature: float = 1.0
    ) -> LogProbs:
        """log G of every code given those before it, in nats: (B, h, w). Differentiable.

        ``temperature`` divides the logits, as in :meth:`sample`. Other arguments and errors are
        those of :meth:`logits`.
        """
        logits = self.logits(codes, condition)
        if temperature != 1:
            logits = logits / temperature
        # The same as to gather from the log-softmax, whose gradient is slow to build.
        nats = F.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none")
        return -nats.view_as(codes)

    def compute_loss(self, codes: Codes, condition: Condition | None = None) -> dict[str, Tensor]:
        """Maximum likelihood: ``nats_per_code``, the mean of -log G over all cells."""
        return {"nats_per_code": -self.log_prob(codes, condition).mean()}

    def sample(
        self,
        prefix: Codes,
        condition: Condition | None = None,
        temperature: float = 1.0,
        generator: NoiseSource = None,
    ) -> Codes:
        """Write the EMPTY cells of ``prefix``, one code at a time, and keep all others.

        Exact: the same as evaluating :meth:`logits` anew for each cell, at one cell's work a cell
        (see ``cache.py``). Dropout is off in train mode, too. The attribute ``backend`` says what
        does it (see ``backends.py``); by itself, compiled code on the CPU where there is such.

        Args:
            prefix: int64 (B, h, w); cells that hold num_codes are EMPTY; h may be fewer rows.
            condition: Codes of the level above, int64 (B, h', w'), for a conditional net.
            temperature: Divides the logits; 0 takes the likeliest code.
            generator: Source of the noise, on the prefix's device. Noise is drawn for one row of
                the grid at a time, for each row that has an EMPTY cell.

        Returns:
            int64 (B, h, w).

        Raises:
            ValueError: If the prefix has another shape, dtype or codes, the condition does not fit,
                or temperature < 0.
        """
        self.check_sample(prefix, temperature)
        codes = prefix.clone(memory_format=torch.contiguous_format)
        if (codes == self.config.num_codes).any():
            with torch.inference_mode():
                context = self.context(condition, codes.shape[1])
                weights = self.weights()
                sample_empty_ = backends.sampler(self.backend, weights)
                sample_empty_(weights, codes, context, temperature, generator)
        return codes

    @torch.no_grad()
    def weights(self) -> PixelCNNWeights:
        """All weights but the condition stack's as matrices, for samplers; see ``weights.py``."""
        blocks: Any = self.blocks
        output: Any = self.output
        attention: Any = self.attention
        attended = {int(layer): module.weights() for layer, module in attention.items()}
        return PixelCNNWeights(
            embedding=self.embedding.weight.detach(),
            position=(self.row + self.column).permute(1, 2, 0),
            blocks=tuple(block.weights(attended.get(i)) for i, block in enumerate(blocks)),
            output=tuple(
                OutputWeights(
                    enter=_matrix(enter),
                    enter_bias=enter.bias.detach(),
                    leave=_matrix(leave),
                    leave_bias=leave.bias.detach(),
                )
                for _, enter, _, _, leave in output
            ),
            head=_matrix(self.head),
            head_bias=cast(Tensor, self.head.bias).detach(),
        )

    def check_sample(self, prefix: Tensor, temperature: float) -> None:
        """Raise a ValueError if :meth:`sample` takes no such prefix or temperature."""
        self._check_grid(prefix)
        if prefix.numel() and not 0 <= int(prefix.min()) <= int(prefix.max()) <= (
            self.config.num_codes
        ):
            raise ValueError(
                f"prefix holds codes from {int(prefix.min())} to {int(prefix.max())}, expected 0 "
                f"to {self.config.num_codes - 1}, or {self.config.num_codes} for EMPTY"
            )
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature}, expected 0 or more")

    def _check_grid(self, codes: Tensor) -> None:
        rows, columns = self.config.grid
        if codes.dim() != 3 or codes.shape[2] != columns or not 1 <= codes.shape[1] <= rows:
            raise ValueError(
                f"codes have shape {tuple(codes.shape)}, expected (B, h, {columns}) "
                f"with 1 <= h <= {rows}"
            )
        if codes.dtype != torch.int64:
            raise ValueError(f"codes are {codes.dtype}, expected torch.int64")

"""The least time that sampling can take on a machine: a yardstick, not a proof.

The larger of two times: the network's multiply-adds at the processor's peak rate, and reading what
does not fit its cache at the rate of a large sum: the vertical stack's weights once a row, the
others once a cell. Both rates are measured in the same run. On the CPU the peak is that of compiled
code whose numbers all stay in registers, times the threads; where nothing is compiled, and on a
GPU, it is the rate of a large matrix product, which is less.

All weights of filters, 1x1 convolutions and linear layers count once a cell, attention's products
with keys and values for the cells so far, and the condition stack once a cell of the level above.

- It leaves out all that is no product: noise, activations, choosing a code, reading attention's
  keys and values, laying weights out, calling operators.
- It counts what can be left out: the first layer's products can be looked up where there are few
  codes, and products with the zeros around a grid count as all others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ral_env.nets import PixelCNN, native


def fastest_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of ``repeats`` calls, all work on the device included."""
    best = float("inf")
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def wait() -> None:
    """Until all work on the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def weight_counts(net: PixelCNN) -> tuple[int, int]:
    """How many weights of a cell's products may be read once a row, and how many once a cell."""
    sizes = {name: p.numel() for name, p in net.named_parameters() if p.dim() > 1}
    inputs = ("embedding", "row", "column", "condition_")
    used = {name: size for name, size in sizes.items() if not name.startswith(inputs)}
    once_a_row = sum(
        size
        for name, size in used.items()
        if any(part in name for part in ("vertical", "across", "condition"))
    )
    return once_a_row, sum(used.values()) - once_a_row


def multiplications(net: PixelCNN, batch: int) -> float:
    """Multiply-adds of a canvas batch: every weight once a cell, and attention."""
    config = net.config
    cells = config.grid[0] * config.grid[1]
    total = sum(weight_counts(net)) * cells
    # Attention of each cell to all before it: keys once, values once.
    total += config.attention_layers * 2 * config.hidden * cells * (cells + 1) // 2
    if config.condition_grid:
        stack = sum(p.numel() for p in net.condition_stack.parameters() if p.dim() > 1)
        total += stack * config.condition_grid[0] * config.condition_grid[1]
    return float(total) * batch


def peak(instruction_set: str) -> float:
    """Multiply-adds a second of one core, of numbers that stay in its registers."""
    count = native.peak_multiply_adds(instruction_set)
    return count / fastest_seconds(lambda: native.peak_multiply_adds(instruction_set), 500)


def ceilings(device: str) -> tuple[float, float]:
    """Multiply-adds a second at the peak, and bytes a second that a large sum reads."""
    side = 4096 if device == "cuda" else 1024
    a, b = torch.randn(2, side, side, device=device)
    rate = side**3 / fastest_seconds(lambda: a @ b, 10)
    if device == "cpu" and native.instruction_sets():
        rate = max(rate, peak(native.instruction_sets()[0]) * torch.get_num_threads())
    large = torch.randn(2**28 if device == "cuda" else 2**26, device=device)
    bandwidth = large.numel() * 4 / fastest_seconds(lambda: large.sum(), 10)
    return rate, bandwidth


def floor_seconds(
    net: PixelCNN, batch: int, rate: float, bandwidth: float, cache_bytes: float = 32e6
) -> float:
    """Seconds of the products alone, see the top of this file.

    Args:
        rate: Multiply-adds a second.
        bandwidth: Bytes that are read a second.
        cache_bytes: Weights that fit the processor's cache need not be read from memory again.
    """
    operations = multiplications(net, batch) / rate
    rows, columns = net.config.grid
    once_a_row, once_a_cell = (size * 4 for size in weight_counts(net))
    reads = (1 if once_a_cell < cache_bytes else columns) * once_a_cell + once_a_row
    if once_a_row + once_a_cell < cache_bytes:
        reads /= rows
    return max(operations, reads * rows / bandwidth)

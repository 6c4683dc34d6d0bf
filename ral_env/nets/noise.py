"""The noise that codes are drawn with, and a generator of it that several processes share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SharedGenerator:
    """One generator for several processes, which together sample what one process would.

    Each process samples as many canvases as any other. It draws the noise of all of them and uses
    the part of its canvases, so every process's generator is in the same state afterwards.

    Args:
        generator: In the same state in every process.
        index: This process, 0 to ``count - 1``.
        count: Number of processes.
    """

    generator: torch.Generator
    index: int
    count: int

    def whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of all processes' noise, where a process's has this shape, (columns, B, ...)."""
        return (shape[0], shape[1] * self.count, *shape[2:])

    def part(self, noise: Tensor) -> Tensor:
        """This process's of all processes' noise (columns, B, ...)."""
        return noise.chunk(self.count, 1)[self.index]


# What all randomness of a sampler comes from; None is torch's global generator.
NoiseSource = torch.Generator | SharedGenerator | None


def gumbel(shape: tuple[int, ...], like: Tensor, generator: NoiseSource = None) -> Tensor:
    """Standard Gumbel noise: ``argmax(logits + noise)`` is a draw from ``softmax(logits)``.

    Args:
        shape: Of the noise; (columns, B, num_codes) if the generator is shared.
        like: A tensor of the device and dtype that the noise is to have.
        generator: On that device.
    """
    if like.device.type == "cpu":
        return gumbel_from_bits(random_bits(shape, generator), like.dtype)
    if isinstance(generator, SharedGenerator):
        return generator.part(gumbel(generator.whole(shape), like, generator.generator))
    return like.new_empty(shape).exponential_(generator=generator).log_().neg_()


def random_bits(shape: tuple[int, ...], generator: NoiseSource = None) -> Tensor:
    """Uniformly random int32 numbers on the CPU, one for each number of noise of this shape."""
    if isinstance(generator, SharedGenerator):
        return generator.part(random_bits(generator.whole(shape), generator.generator))
    # exponential_ and rand take three and two times as long in all, and exponential_ differs from
    # processor to processor.
    count = math.prod(shape)
    bits = torch.empty((count + 1) // 2, dtype=torch.int64)
    bits = bits.random_(-(2**63), None, generator=generator).view(torch.int32)[:count]
    return bits.view(shape)


def gumbel_from_bits(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Gumbel noise from uniformly random int32 numbers, one for each number of the noise.

    Gumbel noise is -log of an exponential, which is -log(1 - u). The largest noise wins, and it
    comes from the smallest u. So u has 31 bits and is never 0: rare codes come as often as they
    should. Nor is u ever 1, whose noise would be infinite.
    """
    u = bits.to(torch.promote_types(dtype, torch.float32)).abs_().add_(0.5)
    u = u.mul_((1 - 2**-24) / 2**31)
    return u.neg_().log1p_().neg_().log_().neg_().to(dtype)

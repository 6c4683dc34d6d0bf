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


# What all randomness of a sampler comes from; None is torch's global generator.
NoiseSource = torch.Generator | SharedGenerator | None


def gumbel(shape: tuple[int, ...], like: Tensor, generator: NoiseSource = None) -> Tensor:
    """Standard Gumbel noise: ``argmax(logits + noise)`` is a draw from ``softmax(logits)``.

    Args:
        shape: Of the noise; (columns, B, num_codes) if the generator is shared.
        like: A tensor of the device and dtype that the noise is to have.
        generator: On that device.
    """
    if isinstance(generator, SharedGenerator):
        columns, batch, *codes = shape
        whole = gumbel((columns, batch * generator.count, *codes), like, generator.generator)
        return whole[:, generator.index * batch : (generator.index + 1) * batch]
    if like.device.type != "cpu":
        return like.new_empty(shape).exponential_(generator=generator).log_().neg_()
    # From the bits themselves: exponential_ and rand take three and two times as long in all, and
    # exponential_ differs from processor to processor.
    count = math.prod(shape)
    bits = torch.empty((count + 1) // 2, dtype=torch.int64)
    bits = bits.random_(-(2**63), None, generator=generator).view(torch.int32)[:count]
    return gumbel_from_bits(bits, like.dtype).view(shape)


def gumbel_from_bits(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Gumbel noise from uniformly random int32 numbers, one for each number of the noise.

    Gumbel noise is -log of an exponential, which is -log(1 - u). The largest noise wins, and it
    comes from the smallest u. So u has 31 bits and is never 0: rare codes come as often as they
    should. Nor is u ever 1, whose noise would be infinite.
    """
    u = bits.to(torch.promote_types(dtype, torch.float32)).abs_().add_(0.5)
    u = u.mul_((1 - 2**-24) / 2**31)
    return u.neg_().log1p_().neg_().log_().neg_().to(dtype)

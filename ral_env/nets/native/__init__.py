"""Sampling by compiled code: the backend that PixelCNN.sample takes on the CPU where it can.

``sampler.c`` does what ``cache.py`` and ``eager.py`` do together, two to four times as fast. The
noise is made of the same random bits, so the codes are the same wherever the two best of them are
not within rounding of each other. Nobody needs it: where nothing was compiled when the package was
installed, or the processor is too old, ``eager.py`` samples.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor

from ral_env.nets.native.build import INSTRUCTION_SETS, library
from ral_env.nets.noise import NoiseSource, random_bits
from ral_env.nets.weights import PixelCNNWeights

# Hidden channels of the widest nets that were measured to be sampled at least as fast as by torch,
# which has the better products of many rows, in batches of up to 256.
WIDEST = {"AVX512": 256, "AVX2": 128}
# Below so many multiply-adds of a row for each thread, starting it would cost more.
THREAD_WORK = 2**25


class _Sizes(ctypes.Structure):
    """``Sizes`` in sampler.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns", "codes", "hidden", "residual")),
        *((name, ctypes.c_int64) for name in ("layers", "reach", "outputs", "heads", "batch")),
        ("norm_eps", ctypes.c_float),
    ]


@cache
def load(instruction_set: str) -> ctypes.CDLL | None:
    """The sampler that was compiled for this instruction set, or None if none was."""
    path = library(instruction_set)
    if not path.exists():
        return None
    found = ctypes.CDLL(str(path))
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    found.ral_net.argtypes = [pointer, pointer, pointer]
    found.ral_walk.argtypes = [pointer, pointer, word, pointer, pointer]
    found.ral_row.argtypes = [pointer, word, word, pointer, word, pointer, word, pointer]
    found.ral_row.argtypes += [ctypes.c_float]
    found.ral_enter.argtypes = [pointer, word, pointer, word, pointer]
    found.ral_pass.argtypes = [pointer, word, pointer, word]
    found.ral_cell.argtypes = [pointer, word, word, pointer, word, pointer, word]
    found.ral_logits.argtypes = [pointer, pointer, pointer]
    found.ral_peak.argtypes = [word, pointer]
    found.ral_net.restype = found.ral_walk.restype = found.ral_peak.restype = word
    found.ral_noise.argtypes = [word, pointer, pointer]
    found.ral_row.restype = found.ral_noise.restype = found.ral_enter.restype = None
    found.ral_pass.restype = found.ral_cell.restype = found.ral_logits.restype = None
    return found


@cache
def instruction_sets() -> tuple[str, ...]:
    """Those that this processor has and the sampler was compiled for, the fastest first.

    What torch is told to do without (``ATEN_CPU_CAPABILITY``) is not used here either.
    """
    names, capability = list(INSTRUCTION_SETS), torch.backends.cpu.get_cpu_capability()
    usable = names[names.index(capability) :] if capability in names else []
    return tuple(name for name in usable if load(name))


def peak_multiply_adds(instruction_set: str, steps: int = 2**17) -> int:
    """Multiply some millions of numbers that stay in registers: how many. To be timed."""
    library, kept = load(instruction_set), torch.ones(16)
    assert library is not None
    return library.ral_peak(steps, kept.data_ptr())


def can_sample(weights: PixelCNNWeights) -> bool:
    """Whether :func:`sample_empty_` takes these weights here: float32 on a CPU that it fits."""
    here = {(tensor.device.type, tensor.dtype) for tensor in weights.tensors()}
    return here == {("cpu", torch.float32)} and bool(instruction_sets())


def is_faster(weights: PixelCNNWeights) -> bool:
    """Whether that is no slower than torch's operations. It depends on the net alone."""
    hidden = weights.embedding.shape[1]
    return can_sample(weights) and hidden <= WIDEST[instruction_sets()[0]]


@torch.inference_mode()
def sample_empty_(
    weights: PixelCNNWeights,
    codes: Tensor,
    context: Tensor | None,
    temperature: float,
    generator: NoiseSource,
    instruction_set: str | None = None,
    threads: int | None = None,
) -> None:
    """Write the EMPTY cells of ``codes`` in place, in raster order.

    The weights are laid out anew in each call, so it is always today's that count.

    Args:
        weights: What :meth:`PixelCNN.weights` returned, float32 on the CPU.
        codes: int64 (B, h, w); cells that hold num_codes are EMPTY.
        context: What :meth:`PixelCNN.context` returned for these rows.
        temperature: As in :meth:`PixelCNN.sample`.
        generator: As in :meth:`PixelCNN.sample`.
        instruction_set: One of :func:`instruction_sets`; the first of them by default.
        threads: Number of threads that the canvases are divided among; by default as many as torch
            may use, but none that has little to do. It does not change the codes.
    """
    batch, rows, columns = codes.shape
    empty = (codes == len(weights.embedding)).any(2).any(0).tolist()
    if not any(empty):
        return
    assert codes.is_contiguous()
    if context is not None:
        context = context.permute(2, 0, 3, 1).contiguous()  # (h, B, w, C)
    net = Net(weights, instruction_set or instruction_sets()[0])
    threads = min(batch, threads or net.useful_threads(batch, torch.get_num_threads()))
    bounds = [batch * i // threads for i in range(threads + 1)]
    walks = [
        Walk(net, codes, context, temperature, first, end - first, empty.index(True))
        for first, end in pairwise(bounds)
    ]
    with ThreadPoolExecutor(threads) as pool:  # which starts no thread before it is used
        for row in range(walks[0].start, rows - empty[::-1].index(True)):
            bits = None
            if empty[row] and temperature > 0:
                bits = random_bits((columns, batch, len(weights.embedding)), generator)
            step = partial(Walk.next_row, row=row, write=empty[row], bits=bits)
            list((pool.map if threads > 1 else map)(step, walks))


def _in_order(weights: PixelCNNWeights) -> Iterator[Tensor | None]:
    """All weights as sampler.c takes them: matrices (out, in), and None for what is not there."""
    yield from (weights.embedding, weights.position)
    for block in weights.blocks:
        yield from (block.vertical, block.vertical_bias, block.horizontal, block.horizontal_bias)
        for matrix in (block.across, block.condition, block.vertical_out, block.horizontal_out):
            yield None if matrix is None else matrix.t()
        at = block.attention
        if at is None:
            yield from [None] * 6
        else:
            yield from (at.norm, at.norm_bias, at.split.t(), at.split_bias)
            yield from (at.merge.t(), at.merge_bias)
    for block in weights.output:
        yield from (block.enter.t(), block.enter_bias, block.leave.t(), block.leave_bias)
    yield from (weights.head.t(), weights.head_bias)


class Steps:
    """A walk whose cells someone else writes: what :class:`ral_env.nets.cache.Cache` is, in C.

    Its methods are those of that class: :meth:`next_row` at the start of each row, then
    :meth:`hidden` for its cells from left to right.

    Args:
        weights: What :meth:`PixelCNN.weights` returned, float32 on the CPU; they are laid out once.
        batch: Number of canvases, which are evaluated in lockstep.
        context: What :meth:`PixelCNN.context` returned, for a conditional net.
        instruction_set: One of :func:`instruction_sets`; the first of them by default.
    """

    def __init__(
        self,
        weights: PixelCNNWeights,
        batch: int,
        context: Tensor | None = None,
        instruction_set: str | None = None,
    ):
        rows, columns, _ = weights.position.shape
        self.codes = torch.zeros(batch, rows, columns, dtype=torch.int64)
        self.context = None if context is None else context.permute(2, 0, 3, 1).contiguous()
        net = Net(weights, instruction_set or instruction_sets()[0])
        self.walk = Walk(net, self.codes, self.context, 1.0, 0, batch, 0)
        self.memory, self.library = self.walk.memory.data_ptr(), net.library
        self.known = self.codes.data_ptr(), self.codes.stride(0)
        self.channels, self.num_codes = net.sizes.hidden, net.sizes.codes
        self.row = -1  # the row that the walk is in

    def next_row(self, above: Tensor | None) -> None:
        """Go to the next row; ``above`` is the row just finished, int64 (B, w), None at first."""
        self.row += 1
        if above is not None:
            self.codes[:, self.row - 1] = above
        context = None if self.context is None else self.context[self.row].data_ptr()
        self.library.ral_enter(self.memory, self.row, *self.known, context)

    def feed(self, codes: Tensor) -> None:
        """Pass over this row, whose codes (B, w) are known."""
        self.codes[:, self.row] = codes
        self.library.ral_pass(self.memory, self.row, *self.known)

    def hidden(self, left: Tensor | None, first: int, count: int = 1) -> Tensor:
        """Features (B, count, C) of cells ``first`` .. ``first + count - 1`` of this row.

        ``left`` is what :meth:`Cache.logits` takes: the codes to the left of these cells.
        """
        if left is not None:
            end = first + count - 1
            self.codes[:, self.row, end - left.shape[1] : end] = left
        found = torch.empty(len(self.codes), count, self.channels)
        for i in range(count):
            cell = found[:, i]
            to = cell.data_ptr(), found.stride(0)
            self.library.ral_cell(self.memory, self.row, first + i, *self.known, *to)
        return found

    def readout(self, h: Tensor) -> Tensor:
        """Features (B, n, C) to logits (B, n, num_codes)."""
        found = [torch.empty(len(h), self.num_codes) for _ in range(h.shape[1])]
        for i, logits in enumerate(found):
            features = h[:, i].contiguous()
            self.library.ral_logits(self.memory, features.data_ptr(), logits.data_ptr())
        return torch.stack(found, 1)


class Net:
    """A net's weights as they are now, packed for an instruction set."""

    def __init__(self, weights: PixelCNNWeights, instruction_set: str):
        library = load(instruction_set)
        assert library is not None
        self.library = library
        first, attention = weights.blocks[0], [block.attention for block in weights.blocks]
        attended = next(filter(None, attention), None)
        units, hidden, height, _ = first.vertical.shape
        self.sizes = _Sizes(*weights.position.shape[:2], len(weights.embedding), hidden, units // 2)
        self.sizes.layers, self.sizes.reach = len(weights.blocks), height - 1
        self.sizes.outputs = len(weights.output)
        if attended is not None:
            self.sizes.heads, self.sizes.norm_eps = attended.heads, attended.eps
        self.tensors = [None if t is None else t.contiguous() for t in _in_order(weights)]
        pointers = [None if t is None else t.data_ptr() for t in self.tensors]
        array = (ctypes.c_void_p * len(pointers))(*pointers)
        call = partial(library.ral_net, ctypes.byref(self.sizes), array)
        self.packed = torch.empty(call(None), dtype=torch.uint8)
        call(self.packed.data_ptr())

    def useful_threads(self, batch: int, most: int) -> int:
        """At most ``most``, but none that has little to do in a row of so many canvases."""
        work = sum(t.numel() for t in self.tensors if t is not None) * batch * self.sizes.columns
        return max(1, min(most, work // THREAD_WORK))


class Walk:
    """A walk over canvases ``first`` .. ``first + count - 1`` of a batch, down its rows.

    ``start`` is the row that it begins with, as no row above ``first_row`` is asked for.
    """

    def __init__(
        self,
        net: Net,
        codes: Tensor,
        context: Tensor | None,
        temperature: float,
        first: int,
        count: int,
        first_row: int,
    ):
        self.net, self.codes, self.context, self.temperature = net, codes, context, temperature
        self.first = first
        sizes = _Sizes.from_buffer_copy(net.sizes)
        sizes.batch = count
        start = ctypes.c_int64()
        packed = net.packed.data_ptr()
        arguments = ctypes.byref(sizes), packed, first_row
        size = net.library.ral_walk(*arguments, None, ctypes.byref(start))
        self.memory = torch.zeros(size, dtype=torch.uint8)
        net.library.ral_walk(*arguments, self.memory.data_ptr(), ctypes.byref(start))
        self.start = start.value

    def next_row(self, row: int, write: bool, bits: Tensor | None) -> None:
        """Walk over a row, and write its EMPTY cells if ``write``.

        ``bits`` (w, B, num_codes) are random and int32, of all canvases of the batch, or None.
        """

        def mine(tensor: Tensor | None, *index: int) -> int | None:
            if tensor is None:
                return None
            offset = sum(i * step for i, step in zip(index, tensor.stride(), strict=False))
            return tensor.data_ptr() + offset * tensor.element_size()

        self.net.library.ral_row(
            self.memory.data_ptr(),
            row,
            write,
            mine(self.codes, self.first),
            self.codes.stride(0),
            mine(bits, 0, self.first),
            0 if bits is None else bits.stride(0),
            mine(self.context, row, self.first),
            self.temperature,
        )

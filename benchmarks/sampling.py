"""How fast codes are sampled: against the naive method, and against what the machine can do.

    ral bench sampling                      # the small networks, one CPU thread
    ral bench sampling --networks paper     # the paper's (supplement Table 8), random weights
    ral bench sampling --batch '[1,16,64]'
    ral bench sampling --device cuda

Every method writes the same codes from the same noise, which is checked before it is timed:

- *naive*: a whole forward pass for each code, as most public code does;
- *row-wise*: the vertical stack once a row, the row's horizontal stack for each code;
- *fixed point*: guess the whole canvas, evaluate it at once, repeat until nothing changes (Jacobi
  iteration; Song et al. 2021, arXiv 2002.03629);
- *cached*: this package's, ``PixelCNN.sample``;
- *graph*, on a GPU: a row's and a cell's step as CUDA graphs (``ral_env/nets/graph.py``), written
  anew by Inductor (*compiled*) or not, and in bfloat16, with how far its log-probs are from
  float32's.

The *floor* is what the multiply-adds take at the processor's own rate (``floor.py``).

A second table has the CPU's backends by turns: ``eager`` is torch's operations, the others are one
source, compiled for each instruction set of this processor (``ral_env/nets/native``).
``PixelCNN.sample`` takes the first of them.

A third table tells the share of sampling in the cost of a picture, for shipped bundles: the codes
of all levels are sampled, decoded, and scored by the discriminator.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.floor import ceilings, fastest_seconds, floor_seconds, wait
from ral_env import bundle
from ral_env.envs.options import torch_device
from ral_env.nets import PixelCNN, PixelCNNConfig, eager, joint, native, represent
from ral_env.nets.cache import Cache
from ral_env.nets.graph import PRECISIONS, GraphSampler
from ral_env.nets.noise import gumbel
from ral_env.ranges import COUNT, THREADS, check_ranges, check_values
from ral_env.tables import markdown_table


def _net(grid: int, hidden: int, layers: int, **more: Any) -> PixelCNNConfig:
    above = (grid // 2, grid // 2) if more.get("condition_layers") else None
    return PixelCNNConfig((grid, grid), 512, hidden, hidden, layers, condition_grid=above, **more)


GRIDS = (8, 16, 32)
SMALL = {
    **{f"5x64, {g}x{g}": _net(g, 64, 5) for g in GRIDS},
    **{f"5x256, {g}x{g}": _net(g, 256, 5) for g in GRIDS},
    **{f"5x64 + 2 attention, {g}x{g}": _net(g, 64, 5, attention_layers=2) for g in GRIDS[:2]},
    **{f"5x64 given {g // 2}x{g // 2}, {g}x{g}": _net(g, 64, 5, condition_layers=5)
       for g in GRIDS[1:]},
}  # fmt: skip
PAPER = {
    "paper's top, 16x16": _net(16, 512, 20, attention_layers=8, output_layers=20),
    "paper's bottom, 32x32": _net(32, 512, 20, output_layers=0, condition_layers=20),
}


@dataclass
class Case:
    """A network that samples canvases, with all the noise for it, drawn beforehand."""

    net: PixelCNN
    batch: int
    condition: Tensor | None
    noise: Tensor  # (h, w, B, num_codes)

    @classmethod
    def make(cls, config: PixelCNNConfig, batch: int, device: str) -> Case:
        """A network with random weights."""
        torch.manual_seed(0)
        net = PixelCNN(config).to(device).eval()
        with torch.no_grad():
            net.head.weight.mul_(4)  # random weights say little: let codes depend on their past
        condition = None
        if config.condition_grid:
            condition = torch.randint(config.num_codes, (batch, *config.condition_grid))
            condition = condition.to(device)
        rows, columns = config.grid
        generator = torch.Generator(device).manual_seed(1)
        shape = (columns, batch, config.num_codes)
        noise = [gumbel(shape, net.embedding.weight, generator) for _ in range(rows)]
        return cls(net, batch, condition, torch.stack(noise))

    @property
    def empty(self) -> Tensor:
        """Canvases (B, h, w) of which every cell is still to be written."""
        config = self.net.config
        shape = (self.batch, *config.grid)
        return torch.full(shape, config.num_codes, device=self.noise.device)

    def choose(self, logits: Tensor) -> Tensor:
        """Codes (B, h, w) from logits (B, h, w, num_codes) of the whole canvas."""
        return (logits + self.noise.permute(2, 0, 1, 3)).argmax(-1)


@torch.inference_mode()
def cached(case: Case, prefix: Tensor | None = None) -> Tensor:
    """Codes (B, h, w) by ``PixelCNN.sample``, of whole canvases or of a prefix's empty cells."""
    generator = torch.Generator(case.noise.device).manual_seed(1)
    prefix = case.empty if prefix is None else prefix
    return case.net.sample(prefix, case.condition, generator=generator)


@torch.inference_mode()
def naive(case: Case, cells: int | None = None) -> Tensor:
    """Codes (B, h, w) by a forward pass for each; only the first ``cells``, where given."""
    codes = torch.zeros_like(case.empty)
    _, columns = case.net.config.grid
    for cell in range(cells or codes[0].numel()):
        row, column = divmod(cell, columns)
        logits = case.net.logits(codes, case.condition)[:, row, column]
        codes[:, row, column] = (logits + case.noise[row, column]).argmax(-1)
    return codes


def graphed(case: Case, precision: Any, compiled: bool) -> Callable[[], Tensor]:
    """A function that samples codes (B, h, w) by CUDA graphs, captured at its first call."""
    sampler = GraphSampler(case.net, case.batch, precision, compiled)

    def sample() -> Tensor:
        generator = torch.Generator(case.noise.device).manual_seed(1)
        return sampler.sample(case.empty, case.condition, generator=generator)

    return sample


@torch.inference_mode()
def log_prob_error(case: Case, codes: Tensor) -> float:
    """Mean absolute difference, nats a code, of bfloat16's log-probs from float32's."""
    rounded = copy.deepcopy(case.net).bfloat16()
    exact, found = (net.log_prob(codes, case.condition) for net in (case.net, rounded))
    return (exact - found.float()).abs().mean().item()


@torch.inference_mode()
def row_wise(case: Case) -> Tensor:
    """Codes (B, h, w) by the cached vertical stack and the whole row's horizontal stack."""
    codes = torch.zeros_like(case.empty)
    rows, columns = case.net.config.grid
    cache = Cache(case.net.weights(), case.batch, case.net.context(case.condition, rows))
    for row in range(rows):
        cache.next_row(codes[:, row - 1] if row else None)
        for column in range(columns):
            logits = cache.logits(codes[:, row, :-1], 0, columns)[:, column]
            codes[:, row, column] = (logits + case.noise[row, column]).argmax(-1)
    return codes


@torch.inference_mode()
def fixed_point(case: Case) -> tuple[Tensor, int]:
    """The codes, and how many passes over the whole canvas it took."""
    codes = torch.zeros_like(case.empty)
    for passes in range(1, codes[0].numel() + 2):
        better = case.choose(case.net.logits(codes, case.condition))
        if torch.equal(better, codes):
            return codes, passes
        codes = better
    raise AssertionError("a cell is settled in each pass at least")


def seconds_and_result(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = call()
    wait()
    return time.perf_counter() - start, result


@dataclass(frozen=True)
class Methods:
    """Which methods are timed, and how.

    Args:
        fixed_point: Whether to time the fixed-point iteration.
        graph: Whether to time the steps of CUDA graphs; on the CPU nothing is captured.
        compile: Whether to time those steps as written anew by Inductor, too.
        check: Number of codes that the naive method samples, to compare.
        repeats: Number of calls of which the fastest counts.
    """

    fixed_point: bool = True
    graph: bool = False
    compile: bool = False
    check: int = 24
    repeats: int = 3

    def __post_init__(self) -> None:
        check_ranges(self, check="[1, inf)", repeats="[1, inf)")


@torch.inference_mode()
def measure(
    name: str,
    config: PixelCNNConfig,
    batch: int,
    device: str,
    limits: tuple[float, float],
    methods: Methods,
) -> dict[str, str]:
    """One row: times of every method, after a check that all write the same codes."""
    case, repeats = Case.make(config, batch, device), methods.repeats
    expected = cached(case)
    cells = expected[0].numel()
    checked = min(cells, methods.check)
    head = naive(case, checked).flatten(1)[:, :checked]
    same = [torch.equal(head, expected.flatten(1)[:, :checked])]
    by_row, found = seconds_and_result(lambda: row_wise(case))
    same.append(torch.equal(found, expected))
    jacobi = ""
    if methods.fixed_point:
        seconds, (found, passes) = seconds_and_result(lambda: fixed_point(case))
        same.append(torch.equal(found, expected))
        jacobi = f"{seconds:.3f} ({passes} passes)"

    forward = fastest_seconds(lambda: case.net.logits(expected, case.condition), min(2, repeats))
    whole = fastest_seconds(lambda: cached(case), repeats)
    half = expected.clone()
    half[:, config.grid[0] // 2 :] = config.num_codes
    completed = fastest_seconds(lambda: cached(case, half), repeats)
    cache = Cache(case.net.weights(), batch, case.net.context(case.condition, config.grid[0]))
    least = floor_seconds(case.net, batch, *limits)
    graphs = measure_graphs(case, expected, methods, same) if methods.graph else {}
    return {
        "network, grid": name,
        "batch": str(batch),
        "same codes": "yes" if all(same) else f"NO: {same}",
        "naive s": f"{forward * cells:.2f}",
        "row-wise s": f"{by_row:.3f}",
        "fixed point s": jacobi,
        "cached s": f"{whole:.4f}",
        "half given s": f"{completed:.4f}",
        "ms a code": f"{whole / cells * 1e3:.3f}",
        "times naive": f"{forward * cells / whole:.0f}",
        "floor s": f"{least:.4f}",
        "times floor": f"{whole / least:.2f}",
        **graphs,
        "cache MB": f"{cache.held_bytes() / 1e6:.1f}",
    }


@torch.inference_mode()
def measure_backends(
    name: str, config: PixelCNNConfig, batch: int, limits: tuple[float, float], repeats: int
) -> list[dict[str, str]]:
    """A row for each of the CPU's backends, timed by turns."""
    case = Case.make(config, batch, "cpu")
    names = ["eager", *native.instruction_sets()]
    expected, seconds = sample_by(case, "eager"), dict.fromkeys(names, float("inf"))
    same = {name: bool((sample_by(case, name) == expected).all()) for name in names}
    for _ in range(repeats):
        for backend in names:
            once = fastest_seconds(lambda backend=backend: sample_by(case, backend), 1)
            seconds[backend] = min(seconds[backend], once)
    least = floor_seconds(case.net, batch, *limits)
    return [
        {
            "network, grid": name,
            "batch": str(batch),
            "backend": backend,
            "same codes": "yes" if same[backend] else "NO",
            "s": f"{seconds[backend]:.4f}",
            "times eager": f"{seconds['eager'] / seconds[backend]:.2f}",
            "times floor": f"{seconds[backend] / least:.2f}",
        }
        for backend in names
    ]


def sample_by(case: Case, backend: str) -> Tensor:
    """Codes (B, h, w) by ``eager``, or by compiled code for an instruction set."""
    codes, weights = case.empty, case.net.weights()
    context = case.net.context(case.condition, codes.shape[1])
    generator = torch.Generator().manual_seed(1)
    if backend == "eager":
        eager.sample_empty_(weights, codes, context, 1.0, generator)
    else:
        native.sample_empty_(weights, codes, context, 1.0, generator, backend)
    return codes


def measure_graphs(
    case: Case, expected: Tensor, methods: Methods, same: list[bool]
) -> dict[str, str]:
    """Times of CUDA graphs in every precision; ``same`` is told whether float32's codes agree."""
    row: dict[str, str] = {}
    for precision, compiled in product(PRECISIONS, (False, True)[: 1 + methods.compile]):
        sample = graphed(case, precision, compiled)
        found = sample()  # captured before it is timed
        if precision == "float32":
            same.append(torch.equal(found, expected))
        seconds = fastest_seconds(sample, methods.repeats)
        row[f"graph{', compiled' * compiled}, {precision} s"] = f"{seconds:.4f}"
    row["bfloat16's error, nats a code"] = f"{log_prob_error(case, expected):.4f}"
    return row


@torch.inference_mode()
def measure_bundle(name: str, batch: int, device: str) -> dict[str, str]:
    """One row: what a batch of pictures costs, and the shares of sampling, decoding, scoring."""
    loaded = bundle.load(name)
    codec, priors = loaded.vqvae.to(device), [prior.to(device) for prior in loaded.priors]
    discriminator = loaded.discriminator.to(device)
    codes = joint.draw(priors, batch, batch=batch)
    discriminator_inputs = represent(codec, codes, loaded.discriminator_input)
    times = {
        "sampling": fastest_seconds(lambda: joint.draw(priors, batch, batch=batch), 3),
        "decoding": fastest_seconds(lambda: codec.decode(codes), 3),
        "scoring": fastest_seconds(lambda: discriminator(discriminator_inputs), 3),
    }
    total = sum(times.values())
    cells = sum(level[0].numel() for level in codes)
    row = {"bundle": name, "batch": str(batch), "codes": str(cells), "ms": f"{total * 1e3:.1f}"}
    return row | {part: f"{seconds / total:.0%}" for part, seconds in times.items()}


def command(
    networks: Literal["small", "paper", "all"] = "small",
    batch: int | list[int] = 16,
    device: str = "cpu",
    threads: int = 1,
    bundles: list[str] = ["faces32", "faces128"],  # noqa: B006
    graph: bool = False,
    compile: bool = False,
    nets: list[str] = [],  # noqa: B006
    fixed_point: bool = True,
    all_methods: bool = True,
    check: int = 24,
    repeats: int = 3,
) -> None:
    """Time methods of sampling a PixelCNN that write the same codes.

    Args:
        networks: Which networks: the small ones, the paper's at full size, or all.
        batch: Number of canvases that are written together; one number or several.
        device: Where the networks run, cpu or cuda.
        threads: Number of torch's threads on the CPU.
        bundles: Names or paths of the bundles whose pictures are timed.
        graph: Time the steps of CUDA graphs on the CPU too, where nothing is captured.
        compile: Time those steps as written anew by Inductor, too.
        nets: Names of networks among those; all of them if not given.
        fixed_point: Time the fixed-point iteration; it is slow where it takes many passes.
        all_methods: Time all methods; if not, only the backends of ``PixelCNN.sample``.
        check: Number of codes that the naive method samples, to compare; the time shown for it is
            computed from one forward pass.
        repeats: Number of calls of which the fastest counts.
    """
    batches = batch if isinstance(batch, list) else [batch]
    check_values(locals(), batch=COUNT, threads=THREADS, check=COUNT, repeats=COUNT)
    torch_device(device)
    methods = Methods(fixed_point, graph or compile or device == "cuda", compile, check, repeats)
    chosen = {"small": SMALL, "paper": PAPER, "all": SMALL | PAPER}[networks]
    if unknown := set(nets) - set(chosen):
        raise ValueError(f"nets {sorted(unknown)}, expected some of {list(chosen)}")
    torch.set_num_threads(threads)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} thread(s)"
    limits = ceilings(device)
    print(
        f"float32, {where}: {limits[0] / 1e9:.1f} G multiply-adds/s, {limits[1] / 1e9:.1f} GB/s. "
        "naive: one forward pass times the number of codes.\n"
    )
    cases = [(name, chosen[name], size) for size in batches for name in nets or chosen]
    tables: list[list[dict[str, str]]] = [[], [], []]
    for case in cases if all_methods else ():
        tables[0].append(measure(*case, device, limits, methods))
        print(", ".join(f"{key} {value}" for key, value in tables[0][-1].items()))
    for case in cases if device == "cpu" else ():
        tables[1] += measure_backends(*case, limits, repeats)
    tables[2] = [measure_bundle(name, size, device) for name in bundles for size in batches]
    for rows in filter(None, tables):
        print("\n" + markdown_table(rows, list(rows[0])))


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral bench sampling`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral bench sampling", as_positional=False)


if __name__ == "__main__":
    main()

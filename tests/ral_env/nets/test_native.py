"""Compiled code writes the codes that torch's operations write, and is what samples on the CPU."""

import copy
import os
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import FLOAT32
from test_cache_equals_forward import CODES, VARIANTS, batch, build, prefixes

from ral_env import bundle
from ral_env.nets import PixelCNN, PixelCNNConfig, backends, native
from ral_env.nets.native import build as native_build
from ral_env.nets.noise import SharedGenerator, gumbel, random_bits

SETS = native.instruction_sets()
MARGIN = 1e-5  # below which rounding may decide between the two best codes
BUNDLES = ["digits", "faces32", "faces64", "faces64wide", "faces64fine", "faces128", "faces256"]
BUNDLES += ["oracle", "oracle16", "oracle-two-level"]
needs_native = pytest.mark.skipif(not SETS, reason="nothing compiled that this processor runs")


def test_it_is_there_wherever_it_could_be_compiled():
    """So that no test below is left out unnoticed: `make` compiles it anew when it changes."""
    capability = torch.backends.cpu.get_cpu_capability()
    if native_build.can_compile() and capability in native_build.INSTRUCTION_SETS:
        assert SETS[0] == capability


def agreed_codes(net, prefix, condition=None, temperature=1.0, seed=5, **native_options) -> int:
    """How many codes both backends wrote alike, up to the first in each canvas that is a draw.

    Any other difference fails: at a draw, the two codes are the best two, within MARGIN.
    """
    expected, found = prefix.clone(), prefix.clone()
    with torch.inference_mode():
        weights, context = net.weights(), net.context(condition, prefix.shape[1])
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        options = (weights, expected, context, temperature)
        backends.eager.sample_empty_(*options, generators[0])
        options = (weights, found, context, temperature)
        native.sample_empty_(*options, generators[1], **native_options)
    assert torch.equal(*(generator.get_state() for generator in generators))
    written = (prefix == net.config.num_codes).flatten(1)
    agreed = int(written.sum())
    for canvas in (expected != found).flatten(1).any(1).nonzero().flatten().tolist():
        cell = int((expected != found)[canvas].flatten().nonzero()[0])
        agreed -= int(written[canvas, cell:].sum())
        scores = scores_at(net, prefix, expected, condition, temperature, seed, canvas, cell)
        two = {int(codes[canvas].flatten()[cell]) for codes in (expected, found)}
        best = scores.topk(2)
        assert set(best.indices.tolist()) == two and best.values.diff().abs() < MARGIN
    return agreed


@torch.no_grad()
def scores_at(net, prefix, codes, condition, temperature, seed, canvas, cell):
    """What a cell's code is the largest of, in double precision, but for the noise: (num_codes,)"""
    rows, columns = divmod(cell, net.config.grid[1])
    empty, generator = net.config.num_codes, torch.Generator().manual_seed(seed)
    noise = torch.zeros(net.config.grid[1], len(prefix), empty)
    for row in range(rows + 1 if temperature else 0):
        if (prefix[:, row] == empty).any():
            noise = gumbel(tuple(noise.shape), noise, generator)
    above = None if condition is None else condition[canvas : canvas + 1]
    logits = copy.deepcopy(net).double().logits(codes[canvas : canvas + 1], above)
    return logits[0, rows, columns] + temperature * noise[columns, canvas].double()


@needs_native
@pytest.mark.parametrize("variant", [*VARIANTS, "wide", "eight rows and more"])
@pytest.mark.parametrize("kind", prefixes())
def test_both_write_the_same_codes_from_every_prefix(variant, kind):
    """And at any temperature, for nets whose channels fill vectors and for those that do not."""
    sizes = {"wide": {"hidden": 48, "residual": 40}, "eight rows and more": {}} | VARIANTS
    net = build(**sizes[variant]).eval()
    empty, repeats = prefixes()[kind], 7 if variant == "eight rows and more" else 1
    codes, condition = batch(net, rows=empty.shape[1])
    prefix = torch.where(empty, CODES, codes).repeat(repeats, 1, 1)
    for instruction_set in SETS:
        for temperature in (1.0, 0.7, 0.0):
            agreed = agreed_codes(
                net, prefix, condition, temperature, instruction_set=instruction_set
            )
            assert agreed >= 0.9 * empty.sum() * repeats


def shipped(name, cells, count=0):
    """A bundle's priors, each with empty canvases of so many cells in all, and their conditions."""
    above = None
    for prior in bundle.load(name).priors:
        rows, columns = prior.config.grid
        count = count or max(1, cells // (rows * columns))
        prefix = torch.full((count, rows, columns), prior.config.num_codes)
        yield prior, prefix, above
        above = prior.sample(prefix, above, generator=torch.Generator().manual_seed(7))


@needs_native
@pytest.mark.parametrize("name", BUNDLES)
def test_both_write_the_same_codes_of_shipped_bundles(name):
    """More than 100,000 codes in all; the expensive test below takes 10,000,000."""
    for prior, prefix, condition in shipped(name, cells=2**13):
        assert agreed_codes(prior, prefix, condition) > 0.99 * 2**13


@needs_native
@pytest.mark.expensive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BUNDLES)
def test_both_write_the_same_ten_million_codes_of_shipped_bundles(name):
    agreed = 0
    for seed in range(10):
        for prior, prefix, condition in shipped(name, cells=2**17):
            agreed += agreed_codes(prior, prefix, condition, seed=seed)
    assert agreed > 1_000_000


@needs_native
@pytest.mark.parametrize("variant", ["plain", "conditional with attention", "wide"])
def test_every_instruction_set_computes_the_same_bits(variant):
    """All that a walk holds, not only the codes."""
    net = build(**({"hidden": 48, "residual": 40} if variant == "wide" else VARIANTS[variant]))
    _, condition = batch(net, 7)
    found = []
    with torch.inference_mode():
        context = net.context(condition, 6)
        context = None if context is None else context.permute(2, 0, 3, 1).contiguous()
        bits = random_bits((6, 4, 7, CODES), torch.Generator().manual_seed(1))
        for instruction_set in SETS:
            codes = torch.full((7, 6, 4), CODES)
            packed = native.Net(net.weights(), instruction_set)
            walk = native.Walk(packed, codes, context, 1.0, 0, 7, 0)
            for row in range(6):
                walk.next_row(row, True, bits[row])
            found.append((codes, walk.memory.view(torch.float32)[64:]))  # behind its addresses
    for (codes, numbers), (other_codes, other_numbers) in combinations(found, 2):
        assert torch.equal(codes, other_codes)
        assert torch.equal(numbers.view(torch.int32), other_numbers.view(torch.int32))
        assert numbers.isfinite().all() and numbers.count_nonzero() > 1000


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_the_plain_forward(variant):
    """Cell by cell and several at once, behind rows that were passed over; all sets to the bit."""
    net = build(**VARIANTS[variant]).eval()
    codes, condition = batch(net)
    found = []
    with torch.inference_mode():
        context = net.context(condition, 6)
        plain = net.hidden(codes, condition), net.logits(codes, condition)
        for instruction_set in SETS:
            steps = native.Steps(net.weights(), len(codes), context, instruction_set)
            hidden, logits = torch.zeros_like(plain[0]), torch.zeros_like(plain[1])
            for row in range(6):
                steps.next_row(codes[:, row - 1] if row else None)
                if row < 2:
                    steps.feed(codes[:, row])
                    continue
                hidden[:, row, :2] = steps.hidden(codes[:, row, :1], 0, 2)
                for column in (2, 3):
                    hidden[:, row, column] = steps.hidden(
                        codes[:, row, column - 1 : column], column
                    )[:, 0]
                logits[:, row] = steps.readout(hidden[:, row])
            found.append((hidden[:, 2:], logits[:, 2:]))
    for mine in found:
        for numbers, expected, first in zip(mine, plain, found[0], strict=True):
            torch.testing.assert_close(numbers, expected[:, 2:], **FLOAT32)
            assert torch.equal(numbers.view(torch.int32), first.view(torch.int32))


@needs_native
@pytest.mark.parametrize("name", ["faces64fine", "faces128"])
def test_a_canvas_has_the_same_codes_in_any_batch_and_by_any_number_of_threads(name):
    """Tens of thousands of codes of 19 canvases, one of which is also written alone."""
    for prior, prefix, condition in shipped(name, cells=0, count=19):
        with torch.inference_mode():
            weights, context = prior.weights(), prior.context(condition, prefix.shape[1])
            expected = prefix.clone()
            generator = torch.Generator().manual_seed(3)
            native.sample_empty_(weights, expected, context, 1.0, generator, threads=1)
            for threads in (2, 3, 19, 40):
                codes, generator = prefix.clone(), torch.Generator().manual_seed(3)
                native.sample_empty_(weights, codes, context, 1.0, generator, threads=threads)
                assert torch.equal(codes, expected)
            alone = prefix[11:12].clone()
            part = SharedGenerator(torch.Generator().manual_seed(3), 11, 19)
            context = None if context is None else context[11:12]
            native.sample_empty_(weights, alone, context, 1.0, part)
            assert torch.equal(alone[0], expected[11])


@needs_native
def test_threads_are_used_only_where_there_is_work_for_them():
    small, large = build(), PixelCNN(PixelCNNConfig((8, 8), 64))
    assert native.Net(small.weights(), SETS[0]).useful_threads(256, 8) == 1
    assert native.Net(large.weights(), SETS[0]).useful_threads(256, 8) == 8


@needs_native
def test_weights_that_are_written_between_calls_are_sampled_from():
    """However they are written: nothing of a call is left for the next."""
    net, prefix = build().eval(), torch.full((3, 6, 4), CODES)
    assert backends.chosen(net) == "native"
    for write in (
        lambda weight: weight.data.mul_(-3),
        lambda weight: weight.detach().numpy().__imul__(-0.5),
        lambda weight: setattr(weight, "data", weight.data.clone().neg()),
    ):
        write(net.head.weight)
        assert agreed_codes(net, prefix) == 72
        expected = prefix.clone()
        with torch.inference_mode():
            generator = torch.Generator().manual_seed(5)
            backends.eager.sample_empty_(net.weights(), expected, None, 1.0, generator)
        assert torch.equal(net.sample(prefix, generator=generator.manual_seed(5)), expected)


@needs_native
@pytest.mark.parametrize("instruction_set", SETS)
def test_noise_is_that_of_torch(instruction_set):
    """To its ends: from the smallest and the largest bits, and a million between."""
    ends = torch.tensor([0, -1, 1, -(2**31), 2**31 - 1, 2**31 - 2, 2**30, -(2**30)])
    bits = torch.cat([ends.int(), random_bits((10**6,), torch.Generator().manual_seed(0))])
    found = torch.zeros(len(bits))
    library = native.load(instruction_set)
    assert library is not None
    library.ral_noise(len(bits), bits.data_ptr(), found.data_ptr())
    u = (bits.float().abs() + 0.5) * ((1 - 2**-24) / 2**31)  # as gumbel_from_bits rounds it
    exact = -(-torch.log1p(-u.double())).log()
    torch.testing.assert_close(found.double(), exact, rtol=3e-7, atol=3e-7)


@needs_native
def test_it_samples_by_itself_where_it_can():
    net = build()
    assert native.can_sample(net.weights()) and backends.chosen(net) == "native"
    assert not native.can_sample(build().double().weights())
    assert backends.chosen(build().double()) == "eager"
    backends.choose(net, "eager")
    assert backends.chosen(net) == "eager"


@needs_native
def test_very_wide_nets_are_left_to_torch_unless_asked_otherwise():
    """Whose products of many rows are better; none slower than torch is taken by itself."""
    width = native.WIDEST[SETS[0]]
    sizes: Any = {"residual": 4, "layers": 1, "output_layers": 0}
    for hidden, expected in ((width, "native"), (width + 1, "eager")):
        net = PixelCNN(PixelCNNConfig((2, 2), 5, hidden=hidden, **sizes))
        assert backends.chosen(net) == expected
    backends.choose(net, "native")
    assert backends.chosen(net) == "native"


def test_a_backend_that_cannot_be_had_is_refused():
    net, prefix = build().double(), torch.full((1, 6, 4), CODES)
    backends.choose(net, "native")
    with pytest.raises(ValueError, match="float32 nets on a CPU with AVX2"):
        net.sample(prefix)
    backends.choose(net, cast(Any, "fast"))
    with pytest.raises(ValueError, match="backend='fast', expected 'auto', 'native' or 'eager'"):
        net.sample(prefix)
    backends.choose(net, "auto")
    assert net.sample(prefix).max() < CODES


@needs_native
def test_nets_without_numbers_end_in_a_code_nonetheless():
    """As torch's do: a run that has diverged is told by its figures, not by a crash."""
    net = build()
    net.head.weight.data.fill_(torch.nan)
    found = net.sample(torch.full((2, 6, 4), CODES))
    assert found.min() >= 0 and found.max() < CODES


@needs_native
@pytest.mark.parametrize("instruction_set", SETS)
def test_sanitizers_find_nothing(instruction_set, tmp_path):
    """No address outside what was given, no undefined behaviour, no leak; any compiler's."""
    driver = Path(__file__).with_name("sampler_driver.c")
    flags = f"{native_build.FLAGS} {native_build.INSTRUCTION_SETS[instruction_set]}"
    watched = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    command = ["cc", *f"{flags} {watched} -I{native_build.FOLDER}".split(), str(driver)]
    compiled = subprocess.run([*command, "-o", str(tmp_path / "driver")], capture_output=True)
    if compiled.returncode:
        pytest.skip("this compiler has no sanitizers")
    ran = subprocess.run([tmp_path / "driver"], capture_output=True, text=True)
    assert ran.returncode == 0 and int(ran.stdout) > 0, ran.stderr


def test_an_old_processor_takes_torch():
    """Told so by torch's own variable, in a process of its own."""
    script = """
import torch
from ral_env.nets import PixelCNN, PixelCNNConfig, backends, native
net = PixelCNN(PixelCNNConfig((2, 2), 5, hidden=4, residual=4, layers=1))
assert net.sample(torch.full((1, 2, 2), 5)).max() < 5
print(native.instruction_sets(), backends.chosen(net))
"""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert ran.stdout == "() eager\n", ran.stderr


def test_nothing_is_compiled_without_a_compiler(tmp_path):
    """And what an earlier source was compiled to goes away."""
    folder = shutil.copytree(native_build.FOLDER, tmp_path / "native")
    (folder / "sampler-avx2-0123456789ab.so").touch()
    environment = os.environ | {"PATH": "", "CC": ""}
    ran = subprocess.run(
        [sys.executable, folder / "build.py"], env=environment, capture_output=True, text=True
    )
    assert ran.stdout == "nothing was compiled: sampling takes torch\n", ran.stderr
    assert not list(folder.glob("*.so"))

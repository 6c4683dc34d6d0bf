"""Codes on disk: a row per image, whatever was cut, shared out, or too large for the memory."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_parts

from pretrain import codes, vqvae
from pretrain.codes import StoredGrid, extract
from pretrain.data import ImageSet
from pretrain.pixels import to_float
from ral_env import bundle
from ral_env.layout import CodeLayout
from ral_env.nets import VQVAE, VQVAEConfig

CONFIG = VQVAEConfig(16, 8, 4, layers=1, num_codes=8, code_dim=3, levels=2)
LAYOUT = CodeLayout(CONFIG.grids, CONFIG.num_codes)


class Noise(ImageSet):
    """Images that are made when they are asked for: image i from i alone.

    ``asked`` counts them; ``fail_at``: the one at which it raises; ``pause``: seconds each takes.
    """

    def __init__(self, count: int, size: int = 16, fail_at: int = -1, pause: float = 0):
        self.count, self.size, self.fail_at, self.pause = count, size, fail_at, pause
        self.asked = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: slice | torch.Tensor) -> torch.Tensor:
        wanted = torch.tensor(range(self.count)[indices]) if isinstance(indices, slice) else indices
        self.asked += len(wanted)
        if self.fail_at in wanted.tolist():
            raise KeyboardInterrupt
        time.sleep(self.pause * len(wanted))
        cells = self.size // 4
        mixed = torch.arange(3 * cells**2).reshape(3, cells, cells) * 7919 + 13
        mixed = (wanted[:, None, None, None] + 1) * mixed % 65_521
        return (mixed % 256).to(torch.uint8).repeat_interleave(4, 2).repeat_interleave(4, 3)


def net(seed: int = 0, config: VQVAEConfig = CONFIG) -> VQVAE:
    """Untrained, but its codebooks are vectors that it says, so that codes tell images apart."""
    torch.manual_seed(seed)
    vq = VQVAE(config)
    said = []

    def nearest(level: int, vectors: torch.Tensor) -> torch.Tensor:
        flat = vectors.movedim(1, -1).flatten(0, 2)
        said.append(flat[torch.linspace(0, len(flat) - 1, config.num_codes).long()])
        return vectors

    with torch.no_grad():
        vq.quantise(to_float(Noise(40, config.image_size)[1:]), nearest)
        vq.codebooks.copy_(torch.stack(said))
    return vq


def one_of(rank: int, count: int) -> Any:
    """A process among several that do not wait for each other."""
    return SimpleNamespace(rank=rank, count=count, device=torch.device("cpu"), barrier=lambda: None)


def left(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(("num_codes", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_the_file_holds_each_images_codes(num_codes, dtype, tmp_path):
    config = VQVAEConfig(16, 8, 4, layers=1, num_codes=num_codes, code_dim=3, levels=2)
    vq, images = net(0, config), Noise(23)
    found = extract(vq, images, tmp_path / "codes.npy", batch=5)
    assert isinstance(found, np.memmap) and not found.flags.writeable
    assert found.shape == (23, 16 + 64) and found.dtype == dtype
    for size, least in ((5, 1.0), (1, 0.98)):  # a near tie may fall otherwise in another batch
        batches = [vq.encode(to_float(part)) for part in images[:].split(size)]
        expected = torch.cat([torch.cat([g.flatten(1) for g in grids], 1) for grids in batches])
        assert (found == expected.numpy()).mean() >= least
    assert len(np.unique(found, axis=0)) == 23 and len(np.unique(found)) > num_codes // 4
    assert np.array_equal(np.load(tmp_path / "codes.npy"), found)
    assert (vqvae.extract(vq, images) == found).mean() > 0.98, "what is extracted in memory"
    assert left(tmp_path) == {"codes.npy", "codes.npy.json"}
    told = json.loads((tmp_path / "codes.npy.json").read_text())
    assert told["images"] == 23 and told["done"] == [[0, 23]]


def test_plain_tensors_and_workers_give_the_same_file(tmp_path):
    images = Noise(23)
    lazy = extract(net(), images, tmp_path / "lazy.npy", batch=5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    ahead = extract(net(), images, tmp_path / "ahead.npy", batch=5, workers=2)
    held = extract(net(), images[:], tmp_path / "held.npy", batch=5)
    assert np.array_equal(lazy, ahead) and np.array_equal(lazy, held)
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())


def test_a_cut_run_goes_on_and_reads_no_image_twice(tmp_path):
    whole = extract(net(), Noise(23), tmp_path / "whole.npy", batch=4)
    with pytest.raises(KeyboardInterrupt):
        extract(net(), Noise(23, fail_at=14), tmp_path / "cut.npy", batch=4)
    told = json.loads((tmp_path / "cut.npy.json").read_text())
    assert told["done"] == [[0, 12]]
    rest = Noise(23)
    extract(net(), rest, tmp_path / "cut.npy", batch=4)
    assert rest.asked == (23 - 12) + 2, "the rest, and the two that say which images these are"
    assert (tmp_path / "cut.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    again = Noise(23)
    assert np.array_equal(extract(net(), again, tmp_path / "cut.npy", batch=4), whole)
    assert again.asked == 2
    with pytest.raises(KeyboardInterrupt):
        extract(net(), Noise(23, fail_at=14), tmp_path / "other.npy", batch=4)
    other = extract(net(), Noise(23), tmp_path / "other.npy", batch=9)  # goes on as well
    assert (other == whole).mean() > 0.98, "but for near ties"


@pytest.mark.faults
def test_a_run_killed_without_warning_goes_on_to_the_same_bytes(tmp_path):
    """kill -9, at a time that nobody chose."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from test_codes import Noise, extract, net\n"
        f"extract(net(), Noise(400, pause=0.005), {str(tmp_path / 'cut.npy')!r}, batch=4)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    side, done = tmp_path / "cut.npy.json", []
    while child.poll() is None and (not done or done[0][1] < 40):
        time.sleep(0.01)
        done = json.loads(side.read_text())["done"] if side.exists() else []
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert json.loads(side.read_text())["done"][0][1] < 400
    rest = Noise(400)
    extract(net(), rest, tmp_path / "cut.npy", batch=4)
    assert rest.asked < 400
    extract(net(), Noise(400), tmp_path / "whole.npy", batch=4)
    assert (tmp_path / "cut.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not any("part" in name or name.startswith(".") for name in left(tmp_path))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_processes_share_the_rows_out(count, tmp_path):
    """Each one its contiguous share; together the file of one."""
    whole = extract(net(), Noise(23), tmp_path / "whole.npy", batch=4)
    asked = []
    for rank in range(count):
        images = Noise(23)
        extract(net(), images, tmp_path / "shared.npy", batch=4, processes=one_of(rank, count))
        asked.append(images.asked - 2)
    assert sum(asked) == 23 and max(asked) <= -(-6 // count) * 4
    assert np.array_equal(np.load(tmp_path / "shared.npy"), whole)


@pytest.mark.faults
def test_a_cut_run_goes_on_with_another_number_of_processes(tmp_path):
    whole = extract(net(), Noise(40), tmp_path / "whole.npy", batch=4)
    for rank, fail_at in ((0, 10), (1, 30)):  # of shares 0-20 and 20-40
        with pytest.raises(KeyboardInterrupt):
            extract(net(), Noise(40, fail_at=fail_at), tmp_path / "cut.npy", batch=4,
                    processes=one_of(rank, 2))  # fmt: skip
    asked = []
    for rank in range(3):
        images = Noise(40)
        extract(net(), images, tmp_path / "cut.npy", batch=4, processes=one_of(rank, 3))
        asked.append(images.asked - 2)
    assert sum(asked) == 40 - 8 - 8
    assert np.array_equal(np.load(tmp_path / "cut.npy"), whole)
    extract(net(), Noise(40), tmp_path / "cut.npy", batch=4)  # one process finds all done
    assert left(tmp_path) >= {"cut.npy", "cut.npy.json"}
    assert json.loads((tmp_path / "cut.npy.json").read_text())["done"] == [[0, 40]]
    assert not (tmp_path / "cut.npy.1.json").exists()


def test_processes_started_by_torchrun_write_the_file_of_one(tmp_path):
    pytest.importorskip("accelerate")
    script = tmp_path / "worker.py"
    script.write_text(
        "import sys, torch; torch.set_num_threads(1)\n"
        "from test_codes import Noise, extract, net\n"
        "found = extract(net(), Noise(101), sys.argv[1], batch=4)\n"
        "assert found.any(1).all()\n"  # whole, in both
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(script), str(tmp_path / "two" / "codes.npy")],
        capture_output=True, text=True, timeout=200, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    extract(net(), Noise(101), tmp_path / "one.npy", batch=4)
    assert (tmp_path / "two" / "codes.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
    assert left(tmp_path / "two") == {"codes.npy", "codes.npy.json"}


def test_codes_of_another_net_or_of_other_images_are_refused(tmp_path):
    file = tmp_path / "codes.npy"
    extract(net(), Noise(23), file)
    before = file.read_bytes()
    others: list[tuple[VQVAE, Any, str]] = [
        (net(1), Noise(23), "another VQ-VAE"),
        (net(), Noise(24), "23 images and other images"),
        (net(), Noise(23)[:].flip(0), "of other images"),
    ]
    for vq, images, message in others:
        with pytest.raises(ValueError, match=rf"codes\.npy has codes .*{message}.*remove it"):
            extract(vq, images, file)
    (tmp_path / "codes.npy.json").write_text("{")
    with pytest.raises(ValueError, match=r"codes\.npy\.json cannot be read.*begin anew"):
        extract(net(), Noise(23), file)
    (tmp_path / "codes.npy.json").unlink()
    with pytest.raises(ValueError, match="codes.npy exists, and no codes.npy.json says"):
        extract(net(), Noise(23), file)
    assert file.read_bytes() == before, "nothing was written over"
    with pytest.raises(ValueError, match="0 images"):
        extract(net(), Noise(23)[:0], tmp_path / "none.npy")


@pytest.mark.faults
def test_codes_that_were_altered_or_cut_are_refused(tmp_path):
    file = tmp_path / "codes.npy"
    extract(net(), Noise(23), file, batch=4)
    whole = file.read_bytes()
    extract(net(), Noise(23), file, batch=4)  # as they are, they are taken
    for byte in (len(whole) - 1, len(whole) // 2, 130):
        file.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1]) + whole[byte + 1 :])
        with pytest.raises(ValueError, match=r"codes\.npy is altered in rows 0 to 22.*anew"):
            extract(net(), Noise(23), file, batch=4)
    file.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"codes\.npy is cut .*begin anew"):
        extract(net(), Noise(23), file, batch=4)


def test_codes_that_an_earlier_version_wrote_are_taken_without_checksums(tmp_path):
    file, side = tmp_path / "codes.npy", tmp_path / "codes.npy.json"
    extract(net(), Noise(23), file, batch=4)
    before = json.loads(side.read_text())
    assert len(before.pop("sums")) == 1, "one run of rows"
    side.write_text(json.dumps(before))
    extract(net(), Noise(23), file, batch=4)
    assert json.loads(side.read_text())["done"] == [[0, 23]]


def test_a_side_file_without_its_codes_is_of_no_account(tmp_path):
    """As where the codes were removed, or the run was killed before they were there."""
    whole = extract(net(), Noise(23), tmp_path / "codes.npy")
    expected = np.array(whole)
    (tmp_path / "codes.npy").unlink()
    assert np.array_equal(extract(net(), Noise(23), tmp_path / "codes.npy"), expected)


def test_the_weights_hash_is_of_the_values():
    assert codes.weights_hash(net()) == codes.weights_hash(net())
    other = net()
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    assert codes.weights_hash(other) != codes.weights_hash(net())


def test_progress_is_logged(tmp_path):
    rows = []
    extract(net(), Noise(200), tmp_path / "codes.npy", batch=4, log=rows.append)
    assert [row["step"] for row in rows] == list(range(20, 201, 20))
    assert all(row["images_per_second"] > 0 for row in rows)


@pytest.mark.parametrize("level", [0, 1])
def test_grids_are_read_as_a_tensor_is_indexed(level, tmp_path):
    file = tmp_path / "codes.npy"
    flat = extract(net(), Noise(23), file)
    grids = StoredGrid(file, LAYOUT, level, (3, 20))
    expected = LAYOUT.unflatten(torch.from_numpy(flat[3:20].astype(np.int64)))[level]
    assert len(grids) == 17 and np.shares_memory(grids.stored, grids.stored.base)
    for index in (slice(0, 17), slice(4, 9), torch.tensor([5, 0, 5]), 0):
        assert torch.equal(grids[index], expected[index]) and grids[index].dtype == torch.int64
    pickled = pickle.dumps(grids)
    assert len(pickled) < 1000, "no data, but the way to them"
    assert torch.equal(pickle.loads(pickled)[:], expected)


def test_a_bundle_takes_codes_from_disk(tmp_path):
    """Rows enough for several blocks, and the very bytes that an array in memory would give."""
    parts = tiny_parts()
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 16, (40_000, 64)).astype(np.uint8)
    np.save(tmp_path / "flat.npy", flat)
    mapped = np.load(tmp_path / "flat.npy", mmap_mode="r")
    made = [
        bundle.save(tmp_path / name, **{**parts, "codes": given})
        for name, given in (("array", flat.astype(np.int64)), ("map", mapped))
    ]
    assert (made[0] / "codes.npy").read_bytes() == (made[1] / "codes.npy").read_bytes()
    assert np.array_equal(bundle.load(made[1]).flat_codes, flat)
    for row in (0, 39_999):
        broken = flat.copy()
        broken[row, 5] = 16
        with pytest.raises(ValueError, match="holds code 16, expected 0 to 15"):
            bundle.save(tmp_path / "broken", **{**parts, "codes": broken})


MEASURE = """
import resource, sys, time, torch
torch.set_num_threads(1)
from test_codes import Noise, extract, net
from ral_env.nets import VQVAEConfig
config = VQVAEConfig(32, 16, 8, layers=2, num_codes=512, code_dim=8, levels=2)
count = int(sys.argv[2])
extract(net(0, config), Noise(1000, 32), sys.argv[1] + ".first")  # what the libraries need at all
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
found = extract(net(0, config), Noise(count, 32), sys.argv[1])
seconds = time.perf_counter() - start
print(before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)
"""


@pytest.mark.expensive
def test_memory_does_not_grow_with_the_images(tmp_path, capsys):
    """Peak memory (MB) for 10,000 and for 100,000 images of 32 pixels, and what 3 M will take."""
    peaks = {}
    for count in (10_000, 100_000):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path / f"{count}.npy"), str(count)],
            capture_output=True, text=True, check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        before, peaks[count], seconds = map(float, done.stdout.split())
        size = (tmp_path / f"{count}.npy").stat().st_size
        with capsys.disabled():
            print(
                f"\n{count} images: peak {peaks[count]:.0f} MB (1,000 images: {before:.0f}), "
                f"{seconds:.1f} s, {count / seconds:.0f} images/s, {size / 1e6:.1f} MB on disk"
            )
    assert size == 128 + 100_000 * (4 * 4 + 8 * 8) * 2
    assert peaks[100_000] - peaks[10_000] < 16, "MB: a tenth of what the images would take"

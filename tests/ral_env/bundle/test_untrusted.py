"""A bundle may come from anyone: it loads and can be used, or a BundleError says what is wrong.

Never another error, never long, never much memory. ``make fuzz`` tries 10,000 mutants.
"""

import json
import os
import random
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ral_env import bundle
from ral_env.bundle.manifest import checksum
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.files import sha256

MUTANTS = int(os.environ.get("MUTANTS", "60"))
BLOCKS = 4
SECONDS, MEGABYTES = 20, 300  # the most that one may take, on a busy machine
FIXTURES = Path(__file__).parents[2] / "fixtures"
ODD: list[Any] = [
    None, True, -1, 0, 1, 2, 3, 7, 15, 17, 64, 200_000, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "../x", "\x00", "\ud800", "9" * 5000, [], [1], [8, 8],
    [[8, 8]], [[8]], [-1, 4], {}, {"x": 1}, [2**40, 2**40],
]  # fmt: skip


def sign(folder: Path, manifest: Any) -> None:
    """Write a manifest with the checksums that its maker would have given it."""
    if isinstance(manifest, dict):
        files = manifest.get("files")
        if isinstance(files, dict):
            known = [name for name in files if isinstance(name, str) and "\x00" not in name]
            there = [name for name in known if name.isprintable() and (folder / name).is_file()]
            files |= {name: sha256(folder / name) for name in there}
        if "checksum" in manifest:
            manifest["checksum"] = checksum(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def use(folder: Path, verify: bool) -> None:
    """Load a bundle and ask for all of it; play an episode if it is verified."""
    loaded = bundle.load(folder, verify=verify)
    for part in ("vqvae", "discriminator", "other_discriminators", "priors", "policies", "oracles"):
        getattr(loaded, part)
    for part in ("feature_nets", "test_features", "flat_codes", "recipe", "digest"):
        getattr(loaded, part)
    repr(loaded).encode()
    for name in loaded.splits:
        np.asarray(loaded.split(name)[:2])
    if not verify:
        return
    try:
        envs = LatentCanvasVectorEnv(1, loaded, autoreset_mode="disabled")
        canvas, _ = envs.reset(seed=0)
        envs.complete(np.where(canvas == envs.layout.empty, 0, canvas))
    except bundle.BundleError:
        raise
    except ValueError as error:  # finite weights may still give scores that are not
        assert "scores are not finite" in str(error)


# --- ways to alter a bundle ---


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) in JSON."""
    held = value.items() if isinstance(value, dict) else enumerate(value)
    inner = [v for _, v in held if isinstance(v, dict | list)]
    return [(value, key) for key, _ in held] + [p for v in inner for p in places(v)]


def alter_manifest(folder: Path, rng: random.Random) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(places(manifest))
        how = rng.randrange(4)
        if how == 0:
            del holder[key]
            break  # a later place may be gone with it
        if how == 1 and isinstance(holder[key], int) and not isinstance(holder[key], bool):
            holder[key] += rng.choice((-1, 1, 2**16, 2**40))
        elif how == 2:
            holder[key] = json.loads(json.dumps(rng.choice(places(manifest))[0]))
        else:
            holder[key] = rng.choice(ODD)
    sign(folder, manifest)


def alter_bytes(folder: Path, rng: random.Random) -> None:
    """Flipped bits, most of them near the beginning, cut or longer files; signed or not."""
    file = rng.choice(sorted(folder.iterdir()))
    data = bytearray(file.read_bytes())
    how = rng.randrange(4)
    if how == 0:
        data = data[: rng.randrange(len(data))]
    elif how == 1:
        data += bytes(rng.randrange(1, 100))
    else:
        for _ in range(rng.choice((1, 3))):
            end = len(data) if rng.random() < 0.3 else min(len(data), 300)
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    if file.name != "manifest.json" and rng.random() < 0.8:
        sign(folder, json.loads((folder / "manifest.json").read_text()))


def alter_header(folder: Path, rng: random.Random) -> None:
    """The header of an npy file says something else."""
    file = rng.choice(sorted(folder.glob("*.npy")))
    shape = rng.choice(("()", "(40,)", "(-1, 32)", f"({2**62}, {2**62})", "(0, 32)", "(40, 32, 1)"))
    types = ("'|u1'", "'|O'", "'<f8'", "[('a', '|u1')]", "'|V32'", "(" * 200, "x" * 9000)
    descr = rng.choice(types)
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = (len(header) + 1).to_bytes(2, "little")
    file.write_bytes(b"\x93NUMPY\x01\x00" + length + header + b"\n" + bytes(40 * 32))
    sign(folder, json.loads((folder / "manifest.json").read_text()))


def alter_weights(folder: Path, rng: random.Random) -> None:
    """One tensor has another type, shape or value, or is missing."""
    file = rng.choice(sorted(folder.glob("*.safetensors")))
    weights = load_file(file)
    name = rng.choice(sorted(weights))
    how = rng.randrange(4)
    if how == 0:
        weights[name] = weights[name].astype(rng.choice(("u1", "f8", "i4", "f2", "?")))
    elif how == 1:
        weights[name] = np.ascontiguousarray(weights[name].reshape(-1)[:-1])
    elif how == 2:
        weights[name] = np.full_like(weights[name], rng.choice((1e30, -1e38, 0, 1)))
    else:
        del weights[name]
    save_file(weights, file)
    sign(folder, json.loads((folder / "manifest.json").read_text()))


WAYS: list[Callable[[Path, random.Random], None]] = [
    alter_manifest, alter_manifest, alter_manifest, alter_bytes, alter_header, alter_weights,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # numpy's and torch's, of what the weights have become
@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_mutant_loads_or_is_a_bundle_error(tmp_path, tiny, tiny_two_codes, block):
    originals = [tiny, tiny_two_codes, *(FIXTURES / f"bundle-format-{n}" for n in (2, 3, 4))]
    outcomes, outside = {"loads": 0, "refused": 0}, []
    for number in range(block, MUTANTS, BLOCKS):
        rng = random.Random(number)
        folder = Path(shutil.copytree(rng.choice(originals), tmp_path / str(number)))
        way = rng.choice(WAYS)
        way(folder, rng)
        verify = rng.random() < 0.7
        start = time.process_time()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            use(folder, verify)
            outcomes["loads"] += 1
        except bundle.BundleError as error:
            assert str(folder) in str(error)
            outcomes["refused"] += 1
        except Exception as error:  # all are told of at the end, where a run takes hours
            frame = traceback.extract_tb(error.__traceback__)[-1]
            outside.append(f"mutant {number} ({way.__name__}): {error!r} in {frame}")
        assert time.process_time() - start < SECONDS, f"mutant {number} takes long"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MEGABYTES * 1024, f"mutant {number} takes {grown / 1024:.0f} MB"
        shutil.rmtree(folder)
    assert not outside, "\n".join(outside)
    assert min(outcomes.values()) > 0, outcomes


# --- single ones ---


def test_deeply_nested_json_is_named(tmp_path, tiny):
    for depth in (40, 900, 100_000):
        folder = Path(shutil.copytree(tiny, tmp_path / str(depth)))
        text = (folder / "manifest.json").read_text()
        nested = "[" * depth + "]" * depth
        (folder / "manifest.json").write_text(text.replace('"tiny"', nested))
        with pytest.raises(bundle.BundleError, match="manifest.json: is not a readable manifest"):
            bundle.load(folder, verify=False)


def test_a_manifest_of_any_length_is_not_read(tmp_path, tiny):
    folder = Path(shutil.copytree(tiny, tmp_path / "b"))
    with (folder / "manifest.json").open("a") as stream:
        stream.write(" " * 2**24)
    with pytest.raises(bundle.BundleError, match="more than 16777216 bytes"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("stem", "field"), [("discriminator_image", "plain_layers"), ("vqvae", "blocks")]
)
def test_many_layers_are_refused_before_they_are_built(stem, field, tmp_path, tiny):
    """Even where the bundle is not verified: 60,000 of them would take a minute and a gigabyte."""
    folder = Path(shutil.copytree(tiny, tmp_path / "b"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["nets"][stem]["config"][field] = 60_000
    sign(folder, manifest)
    start = time.process_time()
    made = bundle.load(folder, verify=False)
    with pytest.raises(bundle.BundleError, match=f"{field}=60000, of"):
        _ = getattr(made, stem.partition("_")[0])
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("enlarge", "message"), [(3, "power of two"), (2, "does not fit"), (2**20, "at most 65536")]
)
def test_an_enlargement_that_the_weights_do_not_have_is_refused(enlarge, message, tmp_path, tiny):
    folder = Path(shutil.copytree(tiny, tmp_path / "b"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["nets"]["vqvae"]["config"]["enlarge"] = enlarge
    sign(folder, manifest)
    with pytest.raises(bundle.BundleError, match=message):
        bundle.load(folder)


@pytest.mark.parametrize("number", [10**400, -1e308, float("nan")], ids=["int", "float", "nan"])
@pytest.mark.parametrize("field", ["dropout", "hidden"])
def test_a_number_of_any_size_is_refused_in_words(number, field, tmp_path, tiny):
    folder = Path(shutil.copytree(tiny, tmp_path / "b"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["nets"]["prior_0"]["config"][field] = number
    sign(folder, manifest)
    for verify in (True, False):
        with pytest.raises(bundle.BundleError, match=f"prior_0.*{field} is|finite"):
            _ = bundle.load(folder, verify=verify).priors


@pytest.mark.parametrize("size", [None, "x", 0, -32, 2**40, [32], {}])
def test_an_image_size_that_is_none_is_refused_when_the_bundle_is_opened(size, tmp_path, tiny):
    """It alone of a net's config is asked for before the net is built."""
    for verify in (True, False):
        folder = Path(shutil.copytree(tiny, tmp_path / str(verify)))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["nets"]["vqvae"]["config"]["image_size"] = size
        if size is None:
            del manifest["nets"]["vqvae"]["config"]["image_size"]
        sign(folder, manifest)
        with pytest.raises(bundle.BundleError, match="manifest.json.*image_size of its VQ-VAE"):
            bundle.load(folder, verify=verify)


def test_weights_of_another_type_are_named(tmp_path, tiny):
    folder = Path(shutil.copytree(tiny, tmp_path / "b"))
    weights = load_file(folder / "prior_0.safetensors")
    weights["head.bias"] = weights["head.bias"].astype(np.uint8)
    save_file(weights, folder / "prior_0.safetensors")
    sign(folder, json.loads((folder / "manifest.json").read_text()))
    for verify in (True, False):
        with pytest.raises(bundle.BundleError, match=r"prior_0.*holds head\.bias as U8"):
            _ = bundle.load(folder, verify=verify).priors


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04"])
def test_what_is_no_array_is_named(tmp_path, tiny, data):
    folder = Path(shutil.copytree(tiny, tmp_path / "b"))
    (folder / "codes.npy").write_bytes(data)
    sign(folder, json.loads((folder / "manifest.json").read_text()))
    for verify in (True, False):
        with pytest.raises(bundle.BundleError, match=r"codes\.npy: is not a readable array"):
            _ = bundle.load(folder, verify=verify).flat_codes


def test_what_ships_and_older_formats_are_within_the_limits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in bundle.names():
            use(bundle.SHIPPED / name, verify=False)
        for number in (2, 3, 4):
            use(FIXTURES / f"bundle-format-{number}", verify=True)

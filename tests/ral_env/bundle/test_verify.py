"""A bundle whose files are cut, altered or do not fit each other: an error names the file."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_parts
from safetensors.torch import load_file, save_file

from ral_env import bundle
from ral_env.bundle.manifest import checksum

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def edit(path: Path, change) -> None:
    """Change a manifest, and its checksum with it."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    manifest["checksum"] = checksum(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def rehash(path: Path, name: str) -> None:
    edit(
        path,
        lambda m: m["files"].update({name: hashlib.sha256((path / name).read_bytes()).hexdigest()}),
    )


@pytest.mark.parametrize(
    "name",
    ["vqvae.safetensors", "discriminator_image.safetensors", "prior_0.safetensors", "codes.npy"],
)
def test_a_missing_cut_or_altered_file_is_named(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(bundle.BundleError, match=rf"{name}: is cut or altered.*ral pretrain"):
        bundle.load(copy)
    (copy / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(bundle.BundleError, match=rf"{name}: is cut or altered"):
        bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(bundle.BundleError, match=rf"{name}: is missing"):
        bundle.load(copy)


def test_a_cut_file_is_named_even_without_verifying(copy):
    for name in ("vqvae.safetensors", "codes.npy"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[: len(whole) // 2])
    loaded = bundle.load(copy, verify=False)
    with pytest.raises(bundle.BundleError, match="vqvae.safetensors"):
        _ = loaded.vqvae
    with pytest.raises(bundle.BundleError, match="codes.npy"):
        _ = loaded.codes


def test_weights_of_other_shapes_are_named(copy):
    file = copy / "prior_0.safetensors"
    state = load_file(file)
    state["head.bias"] = state["head.bias"][:-1].contiguous()
    save_file(state, file)
    rehash(copy, file.name)
    with pytest.raises(bundle.BundleError, match=r"prior_0.safetensors.*head\.bias"):
        bundle.load(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(copy, value):
    """When the bundle is loaded; without verifying, when the net is first asked for."""
    weights = load_file(copy / "prior_0.safetensors")
    next(iter(weights.values())).view(-1)[0] = value
    save_file(weights, copy / "prior_0.safetensors")
    rehash(copy, "prior_0.safetensors")
    message = f"prior_0.safetensors: holds weights that are not finite in {next(iter(weights))}"
    with pytest.raises(bundle.BundleError, match=message):
        bundle.load(copy)
    with pytest.raises(bundle.BundleError, match=message):
        _ = bundle.load(copy, verify=False).priors


def test_codes_that_do_not_fit_are_named(copy):
    for wrong in (
        np.zeros((40, 63), np.uint8),
        np.zeros((40, 32), np.int8),
    ):
        np.save(copy / "codes.npy", wrong)
        rehash(copy, "codes.npy")
        shape = re.escape(f"{wrong.dtype} {wrong.shape}, expected uint8 (N, 32)")
        with pytest.raises(bundle.BundleError, match=f"codes.npy: holds {shape}"):
            bundle.load(copy)


def test_a_code_that_is_not_in_the_codebook_is_named(tmp_path):
    old = shutil.copytree(FIXTURES / "bundle-format-3", tmp_path / "old")
    codes = np.load(old / "codes.npy")
    codes[7, 5] = 64
    np.save(old / "codes.npy", codes)
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["files"]["codes.npy"] = hashlib.sha256((old / "codes.npy").read_bytes()).hexdigest()
    (old / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(bundle.BundleError, match="codes.npy: holds code 64, expected 0 to 63"):
        bundle.load(old)
    path = bundle.save(tmp_path / "b", **tiny_parts(num_codes=11))  # 4 bits hold up to 15
    edit(path, lambda m: m)
    packed = np.load(path / "codes.npy")
    packed[3, 2] = 0xCA
    np.save(path / "codes.npy", packed)
    rehash(path, "codes.npy")
    with pytest.raises(bundle.BundleError, match="codes.npy: holds code 12, expected 0 to 10"):
        bundle.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "format 99"),
        (lambda m: m.pop("layout"), "layout"),
        (lambda m: m["layout"].update(num_codes=17), "VQ-VAE"),
        (lambda m: m["splits"].update(test=[35, 41]), "splits"),
        (
            lambda m: m["discriminators"][0].update(input="codes"),
            r"lists \['discriminator_codes'\]",
        ),
        (lambda m: m["discriminators"][0].update(reward_scale=0), "reward_scale"),
        (lambda m: m["discriminators"][0].update(reward_scale=10**400), "not a readable manifest"),
        (
            lambda m: m["nets"]["discriminator_image"]["config"].update(in_channels=4),
            "image.safetensors: does not fit",
        ),
        (lambda m: m["files"].pop("codes.npy"), r"does not list \['codes.npy'\]"),
        (lambda m: m["nets"]["prior_0"].update(file="a"), r"does not list \['a'\]"),
        (lambda m: m["nets"]["prior_0"].update(file="../a"), r"readable .*file is '../a'"),
        (lambda m: m["files"].update({"../a": ""}), r"readable .*files has the name '../a'"),
        (lambda m: m["files"].update({"a": ""}), "a: is missing"),
        (lambda m: m["nets"].pop("prior_0"), "priors"),
        (
            lambda m: m["nets"].update(magic_0=m["nets"]["prior_0"]),
            r"lists \[\], and holds \['magic_0'\]",
        ),
        (lambda m: m["nets"].update(prior_2=m["nets"]["prior_0"]), r"lists \['prior_0', 'prior_1"),
        (lambda m: m["nets"].pop("vqvae"), r"lists \['vqvae'\], and holds \[\]"),
        (lambda m: m["features"].clear(), r"lists \[\], and holds \['features_labels'\]"),
        (lambda m: m["nets"]["vqvae"]["config"].update(colour="b"), "vqvae.safetensors.*colour"),
        (
            lambda m: m["nets"]["discriminator_image"]["config"].update(plain_layers=1000),
            r"image.safetensors: is not readable .*plain_layers=1000, of \d+ tensors",
        ),
        (lambda m: m["nets"]["prior_0"]["config"].update(layers="many"), "prior_0.safetensors"),
        (lambda m: m["nets"]["prior_0"]["config"].update(layers=-3), "prior_0.*layers is -3"),
        (lambda m: m["nets"]["prior_0"]["config"].update(grid=[8]), r"prior_0.*grid is \[8\]"),
        (lambda m: m["nets"]["prior_0"]["config"].pop("grid"), "prior_0.*'grid' .* is missing"),
        (
            lambda m: m["nets"]["vqvae"]["config"].update(layers=10**9),
            "vqvae.*layers is 10+,",
        ),
        (lambda m: m["layout"].update(levels=[[8]]), "levels are"),
        (lambda m: m["layout"].update(levels=[[8, 8]] * 9), "levels are"),
        (lambda m: m["layout"].update(levels=[[2**16, 2**16]]), "levels have 4294967296 cells"),
        (lambda m: m["layout"].update(levels=[[8, -8]]), "readable .* is -8"),
        (lambda m: m["splits"].pop("test"), "splits are"),
        (lambda m: m["splits"].update(test=[5]), "splits are .*two numbers each"),
        (lambda m: m.update(discriminators=[]), "0 discriminators"),
        (lambda m: m.update(discriminators=m["discriminators"] * 2), "given twice"),
        (lambda m: m.update(dataset="\x1b[2Jnoise"), "dataset is"),
        (lambda m: m.update(dataset="\ud800"), "dataset is"),
        (lambda m: m["nets"]["prior_0"]["config"].update(hidden=2**40), "prior_0.safetensors"),
        (lambda m: m["nets"]["prior_0"]["config"].update(hidden=2**80), "prior_0.safetensors"),
    ],
)
def test_a_manifest_that_does_not_fit_is_named(copy, change, message):
    edit(copy, change)
    with pytest.raises(bundle.BundleError, match=message):
        bundle.load(copy)


def test_a_manifest_that_is_no_json_is_named(copy):
    (copy / "manifest.json").write_text("{")
    with pytest.raises(bundle.BundleError, match=r"manifest.json: is not a readable manifest"):
        bundle.load(copy)


def test_a_file_that_was_altered_after_loading_is_named_when_it_is_read(copy):
    bundle.load(copy)
    loaded = bundle.load(copy, verify=False)
    for name in ("prior_0.safetensors", "codes.npy"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert len(loaded.oracles) == 1, "it was not altered"
    with pytest.raises(bundle.BundleError, match="prior_0.safetensors: is cut or altered"):
        _ = loaded.priors
    with pytest.raises(bundle.BundleError, match="codes.npy: is cut or altered"):
        _ = loaded.codes

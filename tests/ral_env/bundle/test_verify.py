"""A bundle whose files are cut, altered or do not fit each other: an error names the file."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ral_env import bundle


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def edit(path: Path, change) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def rehash(path: Path, name: str) -> None:
    edit(
        path,
        lambda m: m["files"].update({name: hashlib.sha256((path / name).read_bytes()).hexdigest()}),
    )


@pytest.mark.parametrize(
    "name", ["vqvae.safetensors", "discriminator.safetensors", "prior_0.safetensors", "codes.npy"]
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


def test_codes_that_do_not_fit_are_named(copy):
    np.save(copy / "codes.npy", np.full((40, 64), 16, np.uint8))
    rehash(copy, "codes.npy")
    with pytest.raises(bundle.BundleError, match="codes.npy: holds code 16, expected 0 to 15"):
        bundle.load(copy)
    np.save(copy / "codes.npy", np.zeros((40, 63), np.uint8))
    rehash(copy, "codes.npy")
    with pytest.raises(bundle.BundleError, match=r"codes.npy: holds uint8 \(40, 63\)"):
        bundle.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "format 99"),
        (lambda m: m.pop("layout"), "layout"),
        (lambda m: m["layout"].update(num_codes=17), "VQ-VAE"),
        (lambda m: m["splits"].update(test=[35, 41]), "splits"),
        (lambda m: m["discriminator"].update(input="codes"), "3 channels"),
        (lambda m: m["discriminator"].update(reward_scale=0), "reward_scale"),
        (lambda m: m["files"].pop("codes.npy"), "codes.npy"),
        (lambda m: m["configs"]["priors"].clear(), "priors"),
        (lambda m: m["configs"]["vqvae"].update(colour="blue"), "vqvae.safetensors.*colour"),
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

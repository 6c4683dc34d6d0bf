"""A bundle comes back as it was saved, or an error names the file that is wrong."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_parts
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
    edit(path, lambda m: m["files"].update({name: bundle._sha256(path / name)}))


def test_what_was_saved_comes_back(tiny):
    parts, loaded = tiny_parts(), bundle.load(tiny)
    pairs = [
        (loaded.vqvae, parts["vqvae"]),
        (loaded.discriminator, parts["discriminator"]),
        (loaded.priors[0], parts["priors"][0]),
        (loaded.oracles[0], parts["oracles"][0]),
        (loaded.features, parts["features"]),
    ]
    for net, saved in pairs:
        assert net is not None and net.config == saved.config and not net.training
        for key, value in saved.state_dict().items():
            assert torch.equal(net.state_dict()[key], value)
    assert (loaded.codes[0] == parts["codes"][0]).all()
    assert loaded.flat_codes.dtype == np.uint8 and isinstance(loaded.flat_codes, np.memmap)
    assert (loaded.split("test") == parts["codes"][0][35:].reshape(5, 64)).all()
    assert (loaded.dataset, loaded.recipe) == ("noise", {"name": "tiny"})
    assert (loaded.discriminator_input, loaded.reward_scale) == ("image", 0.05)
    assert (loaded.layout.levels, loaded.layout.num_codes) == (((8, 8),), 16)


def test_optional_nets_may_be_absent(tmp_path):
    loaded = bundle.load(bundle.save(tmp_path / "b", **tiny_parts(oracles=(), features=None)))
    assert loaded.oracles == () and loaded.features is None


def test_pickling_opens_the_folder_again_and_carries_no_data(tiny):
    loaded = bundle.load(tiny)
    assert len(loaded.flat_codes)
    data = pickle.dumps(loaded)
    assert len(data) < 1000 and (pickle.loads(data).flat_codes == loaded.flat_codes).all()


def test_names_are_searched_in_the_users_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("RAL_ENV_HOME", str(tmp_path))
    shutil.copytree(tiny, tmp_path / "bundles" / "mine")
    assert "mine" in bundle.names()
    assert bundle.load("mine").path == tmp_path / "bundles" / "mine"
    with pytest.raises(ValueError, match=r"no bundle 'mime'.*'mine'.*ral pretrain"):
        bundle.load("mime")
    with pytest.raises(ValueError, match=str(tmp_path)):
        bundle.load("quite-another")


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


def test_a_failing_save_keeps_the_old_bundle_and_leaves_nothing_behind(tmp_path):
    path = bundle.save(tmp_path / "b", **tiny_parts())
    before = (path / "manifest.json").read_bytes()
    unusable = object()
    wrongs: list[dict[str, Any]] = [
        {"recipe": {"x": unusable}},
        {"priors": []},
        {"reward_scale": -1},
    ]
    for wrong in wrongs:
        with pytest.raises((TypeError, ValueError)):
            bundle.save(path, **tiny_parts(**wrong))
        assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
        assert (path / "manifest.json").read_bytes() == before
    bundle.save(path, **tiny_parts(dataset="newer"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
    assert bundle.load(path).dataset == "newer"


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    with pytest.raises(ValueError, match="is not a bundle"):
        bundle.save(tmp_path / "precious", **tiny_parts())
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_codes_out_of_range_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="expected 0 to 15"):
        bundle.save(tmp_path / "b", **tiny_parts(codes=np.full((40, 64), 16)))

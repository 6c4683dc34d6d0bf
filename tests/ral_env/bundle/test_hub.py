"""Bundles come from the Hub whole, or not at all; nothing else does."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from hub_server import TOKEN, Hub, serving
from huggingface_hub import ModelCard, constants

from ral_env import bundle, cli
from ral_env.bundle import BundleError, manifest
from ral_env.push import figures


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub without a bundle; huggingface_hub speaks to it and has an empty cache."""
    with serving() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def altered(files: dict[str, bytes], listed: dict[str, str]) -> dict[str, bytes]:
    """The files with other hashes in the manifest, and its checksum as it should be."""
    said = json.loads(files["manifest.json"]) | {"files": listed}
    said["checksum"] = manifest.checksum(said)
    return {**files, "manifest.json": json.dumps(said).encode()}


def asked_for(hub: Hub) -> set[str]:
    return {path.rpartition("/")[2] for _, path in hub.asked}


def test_a_revision_is_fetched_and_is_the_bundle_that_was_put_there(hub, tiny):
    pickled = {"model.pkl": pickle.dumps("evil"), "pytorch_model.bin": b"evil", "x.py": b"evil"}
    commit = hub.commit("owner/tiny", files_of(tiny) | pickled, "main", "v1")
    for revision in ("", "@v1", "@main", f"@{commit}"):
        made = bundle.load(f"hub:owner/tiny{revision}")
        assert made.digest == bundle.load(tiny).digest
        assert made.name == f"owner/tiny@{commit[:12]}"
        assert made.name in made.edition
    assert asked_for(hub) == set(files_of(tiny)), "nothing that the manifest does not list"
    env = gym.make("ral_env:RALBundle-v0", bundle="hub:owner/tiny@v1")
    env.reset(seed=0)
    assert pickle.loads(pickle.dumps(made)).name == made.name


def test_revisions_differ(hub, tiny, tiny_two):
    hub.commit("owner/x", files_of(tiny), "v1")
    hub.commit("owner/x", files_of(tiny_two), "v2", "main")
    assert bundle.load("hub:owner/x@v1").digest == bundle.load(tiny).digest
    assert bundle.load("hub:owner/x").digest == bundle.load(tiny_two).digest


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hub:tiny", "expected hub:OWNER/NAME"),
        ("hub:owner/tiny@", "expected hub:OWNER/NAME"),
        ("hub:owner/tiny@../../x", "expected hub:OWNER/NAME"),
        ("hub:owner/nothing", "no such repository, or a private one"),
        ("hub:owner/tiny@v9", "no branch, tag or commit 'v9'"),
        ("hub:owner/weights", "has no manifest.json"),
        ("hub:owner/secret", "or log in with `hf auth login`"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(hub, tiny, address, message):
    hub.commit("owner/tiny", files_of(tiny), "main")
    hub.commit("owner/secret", files_of(tiny), "main")
    hub.commit("owner/weights", {"pytorch_model.bin": b""}, "main")
    hub.private.add("owner/secret")
    with pytest.raises(ValueError, match=message):
        bundle.load(address)


def test_a_private_bundle_is_there_for_its_owner(hub, tiny, monkeypatch):
    hub.commit("owner/secret", files_of(tiny), "main")
    hub.private.add("owner/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert bundle.load("hub:owner/secret").digest == bundle.load(tiny).digest


def test_a_file_that_is_not_the_manifests_is_refused_and_not_kept(hub, tiny, tmp_path):
    files = files_of(tiny)
    weights = files["vqvae.safetensors"]
    hub.commit("owner/x", files | {"vqvae.safetensors": weights[:-1] + b"!"}, "main")
    for _ in range(2):  # the second time it is not taken for good because it is there
        with pytest.raises(BundleError, match=r"vqvae.safetensors.* is not the one"):
            bundle.load("hub:owner/x", verify=False)
    hub.commit("owner/x", files, "main")
    assert bundle.load("hub:owner/x").digest == bundle.load(tiny).digest


def test_a_manifest_that_lists_a_pickle_is_refused_before_that_is_asked_for(hub, tiny):
    files = files_of(tiny) | {"evil.pkl": pickle.dumps("evil")}
    listed = json.loads(files["manifest.json"])["files"]
    listed = {"evil.pkl": hashlib.sha256(files["evil.pkl"]).hexdigest(), **listed}
    hub.commit("owner/x", altered(files, listed), "main")
    with pytest.raises(BundleError, match="lists 'evil.pkl'"):
        bundle.load("hub:owner/x")
    assert asked_for(hub) == {"manifest.json"}


def test_a_cut_download_goes_on_where_it_stopped(hub, tiny, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # a part of a file is kept
    hub.commit("owner/x", files_of(tiny), "main")
    hub.cut += ["vqvae.safetensors"]
    made = bundle.load("hub:owner/x")
    assert made.digest == bundle.load(tiny).digest and not hub.cut
    asked = [path.rpartition("/")[2] for method, path in hub.asked if method == "GET"]
    assert asked.count("vqvae.safetensors") == 2 and asked.count("prior_0.safetensors") == 1
    half = len(files_of(tiny)["vqvae.safetensors"]) // 2
    assert hub.ranges == [f"bytes={half // 1000 * 1000}-"]


def test_without_a_connection_what_is_here_is_taken(hub, tiny, monkeypatch):
    commit = hub.commit("owner/x", files_of(tiny), "main")
    first = bundle.load("hub:owner/x")
    asked = len(hub.asked)
    assert bundle.load(f"hub:owner/x@{commit}").digest == first.digest
    assert len(hub.asked) == asked, "a commit that is here is not asked for again"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert bundle.load("hub:owner/x").digest == first.digest
    with pytest.raises(ValueError, match="is not on this machine, and the Hub cannot be reached"):
        bundle.load("hub:owner/other")
    assert len(hub.asked) == asked


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'ral-env\[hub\]'"):
        bundle.load("hub:owner/x")


def test_what_is_pushed_can_be_fetched_and_its_card_says_what_it_is(
    hub, tiny, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main(["push", str(tiny), "owner/mine", "--film", "false"]) == 0
    address = capsys.readouterr().out.split()[-1]
    (commit,) = hub.commits["owner/mine"]
    assert address == f"hub:owner/mine@{commit}"
    made = bundle.load(address)
    assert made.digest == bundle.load(tiny).digest
    there = hub.commits["owner/mine"][commit]
    assert set(there) == {*files_of(tiny), "README.md"}
    written = ModelCard(there["README.md"].decode())
    data: Any = written.data
    assert data.library_name == "ral-env"
    found = {one.metric_type: one.metric_value for one in data.eval_results or []}
    assert found == dict(figures(made.manifest["metrics"]))
    assert "ral evaluate hub:owner/mine\n" in written.text and made.dataset in written.text


def test_a_card_shows_the_prior_paint(hub, tiny, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main(["push", str(tiny), "owner/mine"]) == 0
    (there,) = hub.commits["owner/mine"].values()
    assert there["film.gif"].startswith(b"GIF8")
    assert "](film.gif)" in there["README.md"].decode()


def test_who_has_no_login_is_told(hub, tiny, capsys):
    assert cli.main(["push", str(tiny), "owner/mine", "--film", "false"]) == 1
    assert "Log in with `hf auth login`" in capsys.readouterr().err


def test_figures_are_numbers_and_no_curves():
    metrics = {"a": 1, "b": {"c": 2.5, "curve": [{"x": 1}]}, "d": float("nan"), "e": True, "f": "x"}
    assert list(figures(metrics)) == [("a", 1), ("b.c", 2.5)]

"""A bundle comes back as it was saved; a save is whole or leaves nothing behind."""

import copy
import dataclasses
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import close, tiny_parts

from ral_env import bundle, migrations
from ral_env.bundle.custom import assemble
from ral_env.bundle.folder import nets_by_stem
from ral_env.layout import CodeLayout
from ral_env.nets import Mixture, PixelCNN, joint, represent

FIXTURES = Path(__file__).parents[2] / "fixtures"


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
    assert loaded.flat_codes.dtype == np.uint8
    assert (loaded.split("test") == parts["codes"][0][35:].reshape(5, 64)).all()
    assert (loaded.dataset, loaded.recipe) == ("noise", {"name": "tiny"})
    assert (loaded.discriminator_input, loaded.reward_scale) == ("image", 0.05)
    assert (loaded.layout.levels, loaded.layout.num_codes) == (((8, 8),), 16)


def test_optional_nets_may_be_absent(tmp_path):
    loaded = bundle.load(bundle.save(tmp_path / "b", **tiny_parts(oracles=(), features=None)))
    assert loaded.oracles == () and loaded.features is None


def test_nets_are_built_and_codes_opened_when_first_asked_for(tiny, tmp_path):
    path = shutil.copytree(tiny, tmp_path / "b")
    loaded = bundle.load(path, verify=False)
    for file in ("vqvae.safetensors", "codes.npy"):
        (path / file).write_bytes(b"")  # neither was read
    assert loaded.priors[0] is loaded.priors[0]
    assert (loaded.image_size, loaded.dataset, loaded.recipe["name"]) == (32, "noise", "tiny")
    with pytest.raises(bundle.BundleError, match="vqvae.safetensors"):
        _ = loaded.vqvae
    with pytest.raises(bundle.BundleError, match="codes.npy"):
        _ = loaded.codes


def test_a_loaded_bundle_with_other_parts_is_saved_and_comes_back(tiny, tmp_path):
    loaded = bundle.load(tiny)
    prior = copy.deepcopy(loaded.priors[0])
    with torch.no_grad():
        prior.get_parameter("head.bias").add_(1)
    changed = dataclasses.replace(loaded, priors=(prior,), recipe={"name": "changed"})
    assert changed.path is None and changed.manifest == {}
    path = bundle.save(tmp_path / "b", changed, metrics={"reward": 0.5})
    again = bundle.load(path)
    assert torch.equal(again.priors[0].get_parameter("head.bias"), prior.get_parameter("head.bias"))
    assert again.recipe == {"name": "changed"} and again.manifest["metrics"] == {"reward": 0.5}
    unchanged = set(loaded.manifest["files"]) - {"prior_0.safetensors"}
    assert {n: loaded.manifest["files"][n] for n in unchanged} == {
        n: again.manifest["files"][n] for n in unchanged
    }


def test_parts_are_given_in_a_bundle_or_one_by_one_and_not_both(tiny, tmp_path):
    with pytest.raises(TypeError, match=r"priors given beside a bundle: use dataclasses\.replace"):
        bundle.save(tmp_path / "b", bundle.load(tiny), priors=(), metrics={})
    with pytest.raises(TypeError, match="colour"):
        bundle.save(tmp_path / "b", **tiny_parts(colour="blue"))
    assert not any(tmp_path.iterdir())


class AnotherPrior(PixelCNN):
    """A net that its config alone does not make again."""


def test_what_could_not_be_read_again_is_not_saved(tiny, tmp_path):
    loaded = bundle.load(tiny)
    assert bundle.storable(loaded)
    assembled = assemble(
        codec=loaded.vqvae,
        discriminator=loaded.discriminator,
        codes=list(loaded.codes),
        num_codes=16,
        priors=loaded.priors,
    )
    assert bundle.storable(assembled)  # whoever put them together
    foreign: dict[str, dict[str, Any]] = {
        "its prior_0 is a AnotherPrior, expected a ral_env.nets.PixelCNN": {
            "priors": (AnotherPrior(loaded.priors[0].config),)
        },
        "its vqvae is a Identity, expected a ral_env.nets.VQVAE": {"vqvae": torch.nn.Identity()},
        "its oracle_0 is a Identity, expected a ral_env.nets.PixelCNN or Mixture": {
            "oracles": (torch.nn.Identity(),)
        },
        "does not fit the VQ-VAE": {"layout": CodeLayout(((4, 4),), 16)},
    }
    for message, parts in foreign.items():
        changed = dataclasses.replace(loaded, **parts)
        assert not bundle.storable(changed)
        with pytest.raises(ValueError, match=f"cannot be saved: .*{message}"):
            bundle.save(tmp_path / "b", changed, metrics={})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("number", [2, 3, 4])
def test_bundles_of_every_format_are_read_and_give_what_they_gave(number):
    """Their manifests hold what their nets gave of the test codes when they were made."""
    loaded = bundle.load(FIXTURES / f"bundle-format-{number}")
    assert loaded.manifest["format"] == number
    levels = {2: ((8, 8), (16, 16)), 3: ((8, 8),), 4: ((8, 8),)}[number]
    assert (loaded.layout, loaded.image_size) == (CodeLayout(levels, 64), 32)
    tests = {"tuning": (44, 47), "test": (47, 52)} if number == 4 else {"test": (44, 52)}
    assert loaded.splits == {"train": (0, 40), "validation": (40, 44), **tests}
    assert loaded.features is not None
    test, metrics = loaded.layout.as_grids(loaded.split("test")), loaded.manifest["metrics"]
    for nets, nats in (
        (loaded.priors, metrics["priors"]["test_nats"]),
        (loaded.oracles, metrics["oracle"]["entropy"]),
    ):
        with torch.no_grad():
            assert -joint.total_log_prob(nets, test).mean().item() == close(nats)
        assert len(nets) == len(levels)
    assert isinstance(loaded.oracles[0], Mixture) == (number >= 3)
    images = loaded.vqvae.decode(test)
    assert images.shape == (len(test[0]), 3, 32, 32)
    shown = represent(loaded.vqvae, test, loaded.discriminator_input)
    assert loaded.discriminator(shown).isfinite().all()


@torch.no_grad()
def test_what_format_4_added_gives_what_it_gave():
    """Its metrics were measured by the nets that are in it."""
    loaded = bundle.load(FIXTURES / "bundle-format-4")
    metrics = loaded.manifest["metrics"]
    test = loaded.layout.as_grids(loaded.split("test"))
    images = loaded.vqvae.decode(test)
    nats = -joint.total_log_prob(loaded.policies, test).mean().item()
    assert nats == close(metrics["policies"]["test_nats"]) and loaded.version == "1"
    for input in ("codes", "image"):
        scores = loaded.discriminator_for(input)[0](represent(loaded.vqvae, test, input))
        assert scores.mean().item() == close(metrics["scores"][input])
    for name, dtype in {"labels": np.float16, "self_supervised": np.float32}.items():
        stored = loaded.test_features[name]
        assert stored.of == "the 5 test canvases, decoded" and stored.values.dtype == dtype
        found = loaded.feature_nets[name].features(images)
        np.testing.assert_allclose(stored.values, found, rtol=2e-3, atol=1e-4)  # of float16


@pytest.mark.parametrize("number", [2, 3])
def test_a_bundle_of_an_older_format_is_saved_as_one_of_today(number, tmp_path):
    old = bundle.load(FIXTURES / f"bundle-format-{number}")
    metrics = old.manifest["metrics"]
    again = bundle.load(bundle.save(tmp_path / "b", old, metrics=metrics, half=True))
    assert again.manifest["format"] == 4
    for field in ("dataset", "recipe", "layout", "splits", "metrics"):
        assert again.manifest[field] == old.manifest[field]
    assert np.array_equal(np.asarray(again.flat_codes), old.flat_codes)
    assert (again.discriminator_input, again.reward_scale) == (
        old.discriminator_input,
        old.reward_scale,
    )
    nets, others = nets_by_stem(again), nets_by_stem(old)
    assert list(nets) == list(others)
    for stem, net in nets.items():
        assert net.config == others[stem].config
        for key, value in net.state_dict().items():
            assert torch.equal(value, others[stem].state_dict()[key])
    assert again.tuning_split == "validation" and again.version == ""


def test_old_names_of_a_recipes_fields_are_read_with_a_warning(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(migrations.FIELDS["recipe"], "name", "title")
    loaded = bundle.load(tiny)
    with pytest.warns(FutureWarning, match=r"name is called title now .*manifest\.json"):
        assert loaded.recipe == {"title": "tiny"}


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


def test_a_failing_save_keeps_the_old_bundle_and_leaves_nothing_behind(tmp_path):
    path = bundle.save(tmp_path / "b", **tiny_parts())
    before = (path / "manifest.json").read_bytes()
    unusable = object()
    wrongs: list[dict[str, Any]] = [
        {"recipe": {"x": unusable}},
        {"priors": []},
        {"reward_scale": -1},
        {"splits": {"train": (0, 30), "validation": (30, 35)}},
        {"splits": {"train": (0, 36), "validation": (30, 35), "test": (36, 40)}},
        {"splits": {"train": (0, 30), "validation": (30, 35), "test": (35, 41)}},
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


def test_written_files_may_be_read_by_whom_the_umask_lets_read(tmp_path):
    before = os.umask(0o022)
    try:
        path = bundle.save(tmp_path / "b", **tiny_parts())
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


def test_codes_out_of_range_are_not_saved(tmp_path):
    with pytest.raises(
        ValueError, match="cannot be saved: its codes array holds code 16, expected 0 to 15"
    ):
        bundle.save(tmp_path / "b", **tiny_parts(codes=np.full((40, 64), 16)))

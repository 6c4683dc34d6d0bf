"""A bundle with all that it may have comes back; one that lacks a part says so in words."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import tiny_parts

import ral_env  # noqa: F401  (registers the ids)
from ral_env import bundle
from ral_env.bundle import StoredFeatures
from ral_env.bundle.custom import assemble
from ral_env.bundle.folder import nets_by_stem
from ral_env.nets import FeatureNet, FeatureNetConfig

FIXTURES = Path(__file__).parents[2] / "fixtures"
SPLITS = {"train": (0, 20), "validation": (20, 25), "tuning": (25, 32), "test": (32, 40)}


def full(levels: int = 1, **changes: Any) -> bundle.Bundle:
    """Two discriminators, four splits, two feature nets with stored features, policies."""
    parts = tiny_parts("codes", levels)
    del parts["metrics"], parts["features"]
    torch.manual_seed(1)
    nets = {
        "labels": FeatureNet(FeatureNetConfig(hidden=4, features=8, name="classes, 8-d")),
        "contrastive": FeatureNet(FeatureNetConfig(hidden=4, features=6, outputs=5)),
    }
    rng = np.random.default_rng(0)
    stored = {
        "labels": StoredFeatures(rng.random((90, 8)).astype(np.float16), "90 test images, raw"),
        "contrastive": StoredFeatures(rng.random((70, 6)).astype(np.float32), "70 test images"),
    }
    policies = [copy.deepcopy(prior) for prior in parts["priors"]]
    for policy in policies:
        torch.nn.init.ones_(policy.get_parameter("head.bias"))
    parts |= {
        "other_discriminators": {"image": (tiny_parts("image")["discriminator"], 0.75)},
        "policies": policies,
        "feature_nets": nets,
        "test_features": stored,
        "splits": SPLITS,
        "version": "1",
    }
    return bundle.from_nets(**parts | changes)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle.save(tmp_path_factory.mktemp("bundles") / "full", full(), metrics={})


@pytest.mark.parametrize("levels", [1, 2])
def test_all_that_a_bundle_may_have_comes_back(levels, tmp_path):
    made = full(levels)
    path = bundle.save(tmp_path / "b", made, metrics={"x": 1})
    loaded = bundle.load(path)
    assert {file.name for file in path.iterdir()} == {
        "manifest.json",
        "codes.npy",
        "vqvae.safetensors",
        "discriminator_codes.safetensors",
        "discriminator_image.safetensors",
        *(
            f"{kind}_{i}.safetensors"
            for kind in ("prior", "policy", "oracle")
            for i in range(levels)
        ),
        *(f"features_{name}.{end}" for name in ("labels", "contrastive") for end in ENDINGS),
    }
    nets, expected = nets_by_stem(loaded), nets_by_stem(made)
    assert list(nets) == list(expected)
    for stem, net in nets.items():
        assert net.config == expected[stem].config and not net.training
        for key, value in net.state_dict().items():
            assert torch.equal(value, expected[stem].state_dict()[key])
    assert loaded.splits == SPLITS and loaded.version == "1"
    for name, (start, end) in SPLITS.items():
        assert np.array_equal(loaded.split(name), made.flat_codes[start:end])
    for name, stored in made.test_features.items():
        found = loaded.test_features[name]
        assert found.of == stored.of and found.values.dtype == stored.values.dtype
        assert np.array_equal(found.values, stored.values) and isinstance(found.values, np.memmap)


ENDINGS = ("npy", "safetensors")


def test_a_discriminator_is_given_for_each_input(saved):
    loaded = bundle.load(saved)
    assert loaded.discriminator_inputs == ("codes", "image")
    assert loaded.discriminator_for("codes") == (loaded.discriminator, loaded.reward_scale)
    net, scale = loaded.discriminator_for("image")
    assert scale == 0.75 and net(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 2, 2)
    envs: Any = gym.make_vec("RALBundle-v0", num_envs=1, bundle=loaded).unwrapped
    assert (envs.discriminator_input, envs.reward_scale) == ("codes", loaded.reward_scale)


def test_a_discriminator_that_is_not_there_is_an_error_in_words(tiny):
    message = "has no discriminator that sees 'codes', only one that sees 'image'$"
    with pytest.raises(ValueError, match=message):
        bundle.load(tiny).discriminator_for("codes")


def test_a_new_default_discriminator_comes_before_the_other_of_its_input(tmp_path):
    made, net = full(), tiny_parts("image")["discriminator"]
    changed = dataclasses.replace(
        made, discriminator=net, discriminator_input="image", reward_scale=3.0
    )
    assert changed.discriminator_for("image") == (net, 3.0)
    loaded = bundle.load(bundle.save(tmp_path / "b", changed, metrics={}))
    assert loaded.discriminator_inputs == ("image",) and loaded.reward_scale == 3.0


def test_the_first_feature_net_is_the_default(saved):
    loaded = bundle.load(saved)
    assert list(loaded.feature_nets) == ["labels", "contrastive"]
    assert loaded.features is loaded.feature_nets["labels"]
    parts = tiny_parts(feature_nets={})
    with pytest.raises(TypeError, match="both features and feature_nets"):
        bundle.save(saved.with_name("both"), **parts)


def test_a_tuning_split_is_never_another_one_under_its_name(saved, tiny):
    loaded = bundle.load(saved)
    assert loaded.tuning_split == "tuning" and len(loaded.split("tuning")) == 7
    for without in (bundle.load(tiny), bundle.load(FIXTURES / "bundle-format-2")):
        assert without.tuning_split == "validation"
        with pytest.raises(ValueError, match="split 'tuning', expected one of .*tune on its 'vali"):
            without.split("tuning")


def test_opening_reads_no_net_and_no_array(saved, tmp_path):
    """Verified, it reads the files' bytes and the tensors' shapes, and builds none either."""
    for verify in (True, False):
        loaded = bundle.load(saved, verify=verify)
        made = {name for name, part in vars(loaded).items() if type(part).__name__ != "Later"}
        nets = {"vqvae", "discriminator", "other_discriminators", "priors", "policies", "oracles"}
        assert not made & (nets | {"feature_nets"})
        assert verify or not made & {"flat_codes", "test_features"}
    _ = loaded.discriminator
    assert type(vars(loaded)["other_discriminators"]).__name__ == "Later"


def test_it_is_pickled_by_its_path(saved):
    loaded = bundle.load(saved)
    assert len(loaded.feature_nets) == 2 and len(loaded.flat_codes)
    data = pickle.dumps(loaded)
    assert len(data) < 1000 and pickle.loads(data).digest == loaded.digest


def test_a_bundle_in_memory_with_packed_codes_is_copied_whole(saved):
    made = dataclasses.replace(bundle.load(saved), dataset="others")
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert np.array_equal(other.flat_codes, made.flat_codes) and other.digest is None


def test_a_flipped_bit_of_any_file_is_named(saved, tmp_path):
    for file in saved.iterdir():
        if file.name == "manifest.json":
            continue
        whole = file.read_bytes()
        for place in np.linspace(0, len(whole) - 1, 5).astype(int).tolist():
            altered = bytearray(whole)
            altered[place] ^= 1 << place % 8
            try:
                file.write_bytes(altered)
                with pytest.raises(bundle.BundleError, match=f"{file.name}: is cut or altered"):
                    bundle.load(saved)
            finally:
                file.write_bytes(whole)


def stored(*shape: int, dtype: type = np.float32, value: float = 0) -> dict[str, Any]:
    values = np.full(shape, value, dtype)
    return {"test_features": {"labels": StoredFeatures(values, "test images")}}


@pytest.mark.parametrize("part", ["policies", "oracles", "other_discriminators", "test_features"])
def test_a_part_may_be_left_out(part, tmp_path):
    nothing: dict[str, Any] = {part: () if part in ("policies", "oracles") else {}}
    made = full(1, **nothing)
    assert bundle.storable(made)
    assert not getattr(bundle.load(bundle.save(tmp_path / "b", made, metrics={})), part)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: {"feature_nets": {}}, "'labels' are stored, and there is no such feature"),
        (lambda made: stored(3, 5), r"float32 \(3, 5\), expected .*\(n, 8\)"),
        (lambda made: stored(0, 8), r"float32 \(0, 8\), expected .*\(n, 8\)"),
        (lambda made: stored(3, 8, dtype=np.float64), r"float64 \(3, 8\), expected float16 or"),
        (lambda made: stored(3, 8, value=np.inf), "not finite"),
        (
            lambda made: {"other_discriminators": {"sound": made.discriminator_for("image")}},
            "discriminator has input 'sound'",
        ),
        (
            lambda made: {"other_discriminators": {"image": made.discriminator_for("codes")}},
            "discriminator has input 'image' and 6 channels",
        ),
        (lambda made: {"policies": full(2).policies}, "does not fit the policies"),
        (lambda made: {"splits": SPLITS | {"tuning": (30, 36)}}, "'tuning' and 'test' share rows"),
        (lambda made: {"splits": SPLITS | {"extra": (30, 32)}}, "splits are .*'extra'"),
        (
            lambda made: {"feature_nets": {"../a": made.features}, "test_features": {}},
            r"feature net is called '\.\./a', expected small letters",
        ),
    ],
)
def test_what_does_not_fit_is_not_saved(change, message, tmp_path):
    made = full()
    made = dataclasses.replace(made, **change(made))
    assert not bundle.storable(made)
    with pytest.raises(ValueError, match=f"cannot be saved: .*{message}"):
        bundle.save(tmp_path / "b", made, metrics={})
    assert not any(tmp_path.iterdir())


def given(made: bundle.Bundle, **changes: Any) -> dict[str, Any]:
    """Arguments of `assemble` that make a bundle of these parts."""
    fields = ("discriminator", "discriminator_input", "reward_scale", "priors", "policies")
    fields = (*fields, "other_discriminators", "feature_nets", "splits")
    parts = {field: getattr(made, field) for field in fields}
    return {"codec": made.vqvae, "codes": list(made.codes), "num_codes": 16, **parts, **changes}


def test_an_assembled_bundle_may_have_the_same_parts():
    made = full()
    found = assemble(**given(made))
    assert found.splits == SPLITS and len(found.split("tuning")) == 7
    assert found.policies == made.policies and found.feature_nets == made.feature_nets
    assert found.discriminator_for("image") == made.discriminator_for("image")


class Odd(torch.nn.Module):
    """A feature net that forgets which image is which."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((0, 2, 3))[None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: {"policies": made.priors * 2}, "2 policies for 1 levels"),
        (lambda made: {"feature_nets": {"odd": Odd()}}, r"\['odd'\].* gave \(1, 3\), expected"),
        (lambda made: {"feature_nets": {"odd": torch.nn.Identity()}}, "has no features"),
        (lambda made: {"feature_nets": {"odd": 3}}, r"\['odd'\] is a int, expected a torch"),
        (
            lambda made: {"other_discriminators": {"image": (made.discriminator, 1.0)}},
            "the discriminator, given .* failed",
        ),
        (
            lambda made: {"other_discriminators": {"image": (made.discriminator, 0.0)}},
            r"reward_scale=0\.0, expected above 0",
        ),
        (lambda made: {"splits": SPLITS | {"tuning": (7, 7)}}, "splits are .*'tuning'"),
    ],
)
def test_an_assembled_part_that_does_not_fit_is_refused(no_shape_checks, change, message):
    made = full()
    with pytest.raises(ValueError, match=message):
        assemble(**given(made, **change(made)))

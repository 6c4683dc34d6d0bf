"""A bundle is a plain dataclass of parts, some of which are made when they are first asked for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import tiny_parts

from ral_env.bundle import Bundle, codes_dtype, from_nets
from ral_env.bundle.parts import Later


def made(levels: int = 1, **changes: Any) -> Bundle:
    parts = tiny_parts("image", levels)
    del parts["metrics"]
    return from_nets(**parts | changes)


def test_a_bundle_of_nets_has_the_vqvaes_layout_and_image_size():
    bundle, parts = made(levels=2), tiny_parts("image", 2)
    assert bundle.layout.levels == ((8, 8), (16, 16)) and bundle.layout.num_codes == 16
    assert bundle.image_size == 32
    for grid, given in zip(bundle.codes, parts["codes"], strict=True):
        assert np.array_equal(grid, given)
    flat = bundle.flat_codes
    assert flat.shape == (40, 64 + 256)
    assert made(levels=2, codes=flat).flat_codes is flat
    assert np.array_equal(bundle.split("validation"), flat[30:35])
    with pytest.raises(ValueError, match="split 'dev', expected one of .*'train'"):
        bundle.split("dev")


def test_a_part_given_for_later_is_made_once_and_only_when_asked_for():
    calls: list[int] = []

    def make() -> dict[str, str]:
        calls.append(1)
        return {"labels": "a feature net"}

    later: Any = Later(make)
    bundle = made(features=None, feature_nets=later)
    assert repr(bundle) and bundle.dataset == "noise" and not calls
    assert bundle.features == "a feature net" and bundle.features == "a feature net"
    assert calls == [1]


def test_a_part_that_failed_to_be_made_is_tried_again():
    results = iter([ValueError("the disk is away"), None])

    def make() -> dict[str, Any]:
        if error := next(results):
            raise error
        return {}

    later: Any = Later(make)
    bundle = made(features=None, feature_nets=later)
    with pytest.raises(ValueError, match="the disk is away"):
        _ = bundle.features
    assert bundle.features is None


def test_parts_are_replaced_as_those_of_any_dataclass():
    bundle: Any = made()
    other = dataclasses.replace(bundle, discriminator_input="codes", reward_scale=2.0)
    assert (other.discriminator_input, other.reward_scale) == ("codes", 2.0)
    assert other.vqvae is bundle.vqvae and bundle.reward_scale == 0.05
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.reward_scale = 2.0


def test_a_part_without_a_default_must_be_given():
    nothing: dict[str, Any] = {}
    with pytest.raises(TypeError, match="'vqvae', 'discriminator', 'flat_codes'"):
        Bundle(**nothing)
    parts: Any = {"vqvae": None, "discriminator": None, "flat_codes": None, "recipe": {}}
    bundle = Bundle(**parts, splits={}, layout=made().layout, image_size=32, dataset="none")
    assert (bundle.priors, bundle.oracles, bundle.features) == ((), (), None)


def test_a_bundle_in_memory_has_a_name_for_messages_and_is_copied_whole():
    bundle = made()
    assert bundle.name == "in memory" and bundle.path is None and bundle.manifest == {}
    assert repr(bundle).startswith("Bundle('in memory', dataset='noise', layout=CodeLayout(")
    for other in (copy.deepcopy(bundle), pickle.loads(pickle.dumps(bundle))):
        assert other.vqvae is not bundle.vqvae and other.vqvae.config == bundle.vqvae.config
        assert np.array_equal(other.flat_codes, bundle.flat_codes)


@pytest.mark.parametrize(("count", "dtype"), [(2, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_codes_are_stored_in_as_few_bytes_as_they_need(count, dtype):
    assert codes_dtype(count) is dtype
    assert np.iinfo(dtype).max >= count - 1

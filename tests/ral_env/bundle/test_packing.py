"""Codes come back from their bits as they went in, whole or some rows of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ral_env.bundle import packing
from ral_env.bundle.packing import PackedCodes, bits_per_code, pack, packed_bytes, unpack


@st.composite
def some_codes(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Codes (N, length), the largest among them, and the number of codes."""
    num_codes = draw(st.integers(2, 32766))
    count, length = draw(st.integers(0, 5)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = rng.integers(0, num_codes, (count, length))
    codes[rng.random(codes.shape) < 0.2] = num_codes - 1
    return codes, num_codes


@given(some_codes())
def test_codes_come_back_exactly_in_as_few_whole_bytes_a_row_as_hold_them(made):
    codes, num_codes = made
    packed = pack(codes, num_codes)
    bits = int(np.ceil(np.log2(num_codes)))
    assert packed.dtype == np.uint8 and bits_per_code(num_codes) == bits
    assert packed.shape == (len(codes), -(-codes.shape[1] * bits // 8))
    found = unpack(packed, codes.shape[1], num_codes)
    assert found.dtype == (np.uint8 if num_codes <= 256 else np.uint16)
    assert np.array_equal(found, codes)


@given(some_codes(), st.data())
def test_any_index_gives_what_an_array_gives(made, data):
    codes, num_codes = made
    count, length = codes.shape
    stored = PackedCodes(pack(codes, num_codes), length, num_codes)
    assert (stored.shape, stored.ndim, len(stored)) == (codes.shape, 2, count)
    rows = data.draw(st.slices(count))
    cells = data.draw(st.slices(length))
    indices: list[Any] = [rows, (rows, cells), (..., cells), np.arange(count) % 2 == 0]
    if count:
        some = data.draw(st.lists(st.integers(-count, count - 1)).filter(bool))
        indices += [some[0], some, np.array(some), (some[0], cells), (some, [0] * len(some))]
    for index in indices:
        assert np.array_equal(np.asarray(stored[index]), codes[index])
    assert np.array_equal(stored + 1, codes.astype(stored.dtype) + 1)
    assert (stored == codes).all() and not (stored != codes).any()


def test_every_number_of_codes_is_packed():
    for num_codes in range(2, 32767):
        codes = np.array([[num_codes - 1, 0, num_codes // 2]])
        assert np.array_equal(unpack(pack(codes, num_codes), 3, num_codes), codes)


def test_a_row_is_read_by_itself_and_a_slice_of_rows_is_not_a_copy(tmp_path):
    codes = np.random.default_rng(0).integers(0, 512, (50, 21))
    np.save(tmp_path / "codes.npy", pack(codes, 512))
    assert (tmp_path / "codes.npy").stat().st_size == 128 + 50 * 24  # 21 * 9 bits are 24 bytes
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    stored = PackedCodes(mapped, 21, 512)
    part = stored[10:40][5:]
    assert isinstance(part, PackedCodes) and np.shares_memory(part.packed, mapped)
    assert np.array_equal(part, codes[15:40])
    alone = PackedCodes(np.array(mapped[7:8]), 21, 512)  # no byte of any other row
    assert np.array_equal(alone[0], codes[7])


def test_more_rows_than_a_block_are_unpacked_in_order(monkeypatch):
    monkeypatch.setattr(packing, "BLOCK", 64)
    codes = np.random.default_rng(0).integers(0, 100, (23, 17))
    assert np.array_equal(np.asarray(PackedCodes(pack(codes, 100), 17, 100)), codes)


def test_packed_codes_are_converted_copied_and_pickled_as_arrays_are():
    codes = np.random.default_rng(0).integers(0, 300, (4, 5))
    stored = PackedCodes(pack(codes, 300), 5, 300)
    assert stored.astype(np.int64).dtype == np.int64 and np.asarray(stored).dtype == np.uint16
    assert np.array(stored, dtype=np.int32).dtype == np.int32
    assert repr(stored) == "PackedCodes(shape=(4, 5), num_codes=300)"
    for other in (copy.deepcopy(stored), pickle.loads(pickle.dumps(stored))):
        assert np.array_equal(other, codes)
    with pytest.raises(ValueError, match="copy=False"):
        stored.__array__(copy=False)


@pytest.mark.parametrize(
    "packed", [np.zeros((4, 6), np.uint8), np.zeros((4, 7), np.int8), np.zeros(7, np.uint8)]
)
def test_rows_of_another_size_or_type_are_refused(packed):
    assert packed_bytes(6, 300) == 7
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 7\) for 6 codes of 9 bits"):
        PackedCodes(packed, 6, 300)

"""Files of figures and tensors: read as they were written, and refused when they are altered."""

import random
from pathlib import Path

import pytest
import torch

from agents.training.files import read_rows, read_tensors, write_rows, write_tensors

FIXTURES = Path(__file__).parents[2] / "fixtures"
VALUES = {"weights": {"a": torch.arange(40.0), "b": torch.ones(3, dtype=torch.int64)}, "step": 3}


def test_tensors_are_read_as_they_were_written(tmp_path):
    write_tensors(tmp_path / "state.pt", VALUES)
    assert repr(read_tensors(tmp_path / "state.pt")) == repr(VALUES)
    assert repr(torch.load(tmp_path / "state.pt", weights_only=True)) == repr(VALUES), "torch's own"


def test_every_flipped_bit_is_noticed(tmp_path):
    """Of 400 drawn at random, and in all of the checksum; a cut file, too."""
    file = tmp_path / "state.pt"
    write_tensors(file, VALUES)
    whole = file.read_bytes()
    drawn = random.Random(0).sample(range(8 * len(whole)), 400)
    for bit in [*drawn, *range(8 * len(whole) - 8 * 95, 8 * len(whole), 7)]:
        byte = bit // 8
        flipped = bytes([whole[byte] ^ 1 << bit % 8])
        file.write_bytes(whole[:byte] + flipped + whole[byte + 1 :])
        with pytest.raises(ValueError, match="state.pt cannot be read .*remove it to begin anew"):
            read_tensors(file)
    for length in (0, 1, 21, 22, 71, len(whole) - 71, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="state.pt cannot be read"):
            read_tensors(file)


def test_a_file_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path):
    torch.save(VALUES, tmp_path / "state.pt")
    assert repr(read_tensors(tmp_path / "state.pt")) == repr(VALUES)
    assert read_tensors(FIXTURES / "run-reinforce" / "checkpoint.pt")["state"]["iteration"] == 2


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [
        {"iteration": 1, "loss": 0.1, "auc": 1 / 3},
        {"iteration": 2, "loss": -1e-12, "auc": 1.0, "nll": float("inf")},
    ]
    write_rows(tmp_path / "progress.csv", rows)
    found = read_rows(tmp_path / "progress.csv")
    assert found == rows and [list(map(type, row.values())) for row in found] == [
        [int, float, float], [int, float, float, float],
    ]  # fmt: skip


def test_rows_after_those_that_are_wanted_may_be_cut(tmp_path):
    """As the last one is when a disk was full."""
    file = tmp_path / "progress.csv"
    file.write_text("iteration,loss\n1,0.5\n2,-", encoding="utf-8")
    assert read_rows(file, 1) == [{"iteration": 1, "loss": 0.5}]
    with pytest.raises(ValueError):
        read_rows(file)

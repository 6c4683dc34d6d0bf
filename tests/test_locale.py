"""Text files are UTF-8, whatever the system calls text."""

import csv
import dataclasses
import io
import json
import locale
import os
import sys
from pathlib import Path

import pytest
from kills import in_a_child
from PIL import Image

from pretrain import data
from ral_env import bundle as bundles
from ral_env import cli

WORDS = "größere Gesichter, 顔"


def in_an_ascii_locale(act) -> int:
    """The status of a process whose files and output are ASCII unless told otherwise."""

    def run() -> None:
        locale.setlocale(locale.LC_CTYPE, "C")
        assert io.text_encoding(None) == "locale"
        with pytest.raises(UnicodeEncodeError), open(os.devnull, "w") as stream:  # noqa: PLW1514
            stream.write(WORDS)
        sys.stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
        act()

    return in_a_child(run)


@pytest.mark.skipif(sys.flags.utf8_mode == 1, reason="Python takes all text for UTF-8")
def test_a_run_ends_in_an_ascii_locale_whatever_letters_its_data_has(tiny_codes, tmp_path):
    named = dataclasses.replace(bundles.load(tiny_codes), dataset=WORDS)
    place = bundles.save(tmp_path / "größer", named, metrics={})
    words = ["--env", "RALBundle-v0", "--bundle", str(place), "--preset", "small", "--iterations",
             "1", "--canvases", "4", "--discriminator_warmup", "1", "--out"]  # fmt: skip
    run = tmp_path / "run"

    def train() -> None:
        assert cli.main(["train", *words, str(run)]) == 0
        assert cli.main(["train", *words, str(run), "--resume"]) == 0

    assert in_an_ascii_locale(train) == 0
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        assert next(csv.DictReader(stream))["dataset"] == WORDS
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["bundle"] == str(place)
    assert bundles.load(run / "bundle").dataset == WORDS


def test_a_folder_whose_name_is_no_text_still_has_a_name_that_a_bundle_takes(tmp_path):
    """As another locale's names are."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bilder-\xff"))
    place.mkdir()
    for i in range(12):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(place / f"{i}.png")
    name = data.load(place, 8).name
    assert name == "12 images of folder bilder-\ufffd" and name.isprintable()

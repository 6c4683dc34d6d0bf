"""What a manifest says is what its maker wrote, or reading it is an error that names the file."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from ral_env import bundle
from ral_env.bundle import manifest
from ral_env.bundle.manifest import BundleError

FIXTURES = Path(__file__).parents[2] / "fixtures"
ERRORS = (BundleError, KeyError, TypeError, ValueError)  # `load` makes one of all


def test_no_flipped_bit_of_a_manifest_changes_what_is_read(tiny, tmp_path):
    """Each place of a bit in a byte is flipped, in every third byte.

    What is harmless lies in how numbers and strings are written: ``1E-05`` is ``1e-05``.
    """
    file = tmp_path / "manifest.json"
    whole = (tiny / "manifest.json").read_bytes()
    expected = manifest.parse(tiny / "manifest.json")
    harmless = 0
    for place in range(0, len(whole), 3):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        file.write_bytes(altered)
        try:
            assert manifest.parse(file) == expected
            harmless += 1
        except ERRORS:
            pass
    assert harmless < len(whole) / 100


@pytest.mark.parametrize("place", range(0, 2000, 97))
def test_loading_an_altered_manifest_names_it_verified_or_not(tiny, tmp_path, place):
    path = Path(shutil.copytree(tiny, tmp_path / "b"))
    data = bytearray((path / "manifest.json").read_bytes())
    while chr(data[place]) in ' \n[]{}":,':
        place += 1
    data[place] ^= 1
    (path / "manifest.json").write_bytes(data)
    for verify in (True, False):
        with pytest.raises(BundleError, match="manifest.json"):
            bundle.load(path, verify=verify)


def test_every_field_is_under_the_checksum(tiny, tmp_path):
    path = Path(shutil.copytree(tiny, tmp_path / "b"))
    whole = json.loads((path / "manifest.json").read_text())
    for field in whole:
        altered = whole | {field: "altered"}
        (path / "manifest.json").write_text(json.dumps(altered))
        with pytest.raises(BundleError, match="manifest.json: is (altered|of format)"):
            bundle.load(path, verify=False)
        del altered[field]
        (path / "manifest.json").write_text(json.dumps(altered))
        with pytest.raises(BundleError, match="manifest.json"):
            bundle.load(path, verify=False)
    (path / "manifest.json").write_text(json.dumps(whole))  # without its indentation
    assert bundle.load(path).digest == whole["checksum"]


def test_a_bundle_does_not_pass_for_one_of_an_older_format(tiny, tmp_path):
    """Those need no checksum."""
    path = Path(shutil.copytree(tiny, tmp_path / "b"))
    text = (path / "manifest.json").read_text().replace('"format": 4', '"format": 3')
    (path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="manifest.json: is altered"):
        bundle.load(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "\xff", '{"format": 4}', "[" * 100_000, '{"format": []}']
)
def test_what_is_no_manifest_is_named(tiny, tmp_path, text):
    path = Path(shutil.copytree(tiny, tmp_path / "b"))
    (path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match="manifest.json: is "):
        bundle.load(path)


def test_the_digest_is_that_of_all_that_the_manifest_says(tiny, tiny_two, tmp_path):
    loaded = bundle.load(tiny)
    digests = {bundle.load(path).digest for path in (tiny, tiny_two, FIXTURES / "bundle-format-3")}
    assert len(digests) == 3 and all(digest and len(digest) == 64 for digest in digests)
    assert loaded.digest == loaded.manifest["checksum"]
    assert loaded.digest and loaded.edition == f"{loaded.name} {loaded.digest[:12]}"
    versioned = dataclasses.replace(loaded, version="2", name="mine")
    assert versioned.edition == "mine 2", "it is in memory: nothing has a digest"
    assert bundle.load(shutil.copytree(tiny, tmp_path / "b")).digest == loaded.digest
    again = bundle.save(tmp_path / "c", loaded, metrics=loaded.manifest["metrics"])
    assert bundle.load(again).digest == loaded.digest
    other = bundle.save(tmp_path / "d", loaded, metrics={"reward": 1})
    assert bundle.load(other).digest != loaded.digest

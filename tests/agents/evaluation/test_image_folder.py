"""Folders of images against a bundle's reals, raw or reconstructed; published networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agents.evaluation import image_folder, metrics, published
from agents.evaluation.comparison import Comparison, Settings
from agents.evaluation.evaluator import Evaluator
from agents.evaluation.published import PublishedNets
from ral_env import bundle, cli
from ral_env.picture import to_bytes


def write(folder: Path, images: np.ndarray) -> Path:
    """uint8 images (N, 3, S, S) as files, half of them a folder below."""
    (folder / "more").mkdir(parents=True)
    for i, image in enumerate(images):
        place = folder / "more" if i % 2 else folder
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{i:04}.png")
    return folder


@pytest.fixture
def digits() -> Evaluator:
    return Evaluator(bundle.load("digits"))


@pytest.fixture
def decoded(digits: Evaluator) -> np.ndarray:
    """Sixty training digits, decoded, uint8 (60, 3, 32, 32)."""
    grids = digits.bundle.layout.as_grids(digits.bundle.split("train"))
    return to_bytes(digits.images([grid[-60:] for grid in grids]))


def test_a_folder_is_read_at_any_depth_in_the_order_of_its_paths(decoded, tmp_path):
    folder = write(tmp_path / "images", decoded)
    (folder / "notes.txt").write_text("no image")
    assert image_folder.is_image_folder(str(folder))
    assert not image_folder.is_image_folder(str(tmp_path / "nowhere"))
    found = image_folder.read(folder, 32, 25)
    expected = decoded[::2][:25]
    assert np.array_equal(found.numpy(), expected)
    with pytest.raises(ValueError, match="has 5 images, expected 20"):
        image_folder.read(folder, 32, 5)


def test_images_that_are_the_bundles_own_reconstructions_have_the_figures_of_their_codes(
    digits, decoded, tmp_path
):
    folder = write(tmp_path / "images", decoded)
    settings = Settings(count=60, judges=0, temperatures=[])
    comparison = Comparison(digits.bundle, settings, PublishedNets())
    comparison.add_images(str(folder))
    as_they_are = comparison.image_rows[f"{folder}, 60 as they are"]
    grids = digits.bundle.layout.as_grids(digits.bundle.split("train"))
    expected = digits.evaluate_canvases([grid[-60:] for grid in grids]).figures
    for name, value in as_they_are.items():
        assert value == pytest.approx(expected[name], rel=0.02), "but for 8 bits a channel"
    assert "which are reconstructed" in comparison.text()
    again = comparison.image_rows[f"{folder}, 60 reconstructed"]
    assert again["fd"] < 3 * as_they_are["fd"]


def test_raw_reals_are_said_to_be_raw_and_are_told_from_noise(digits, decoded, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, decoded.shape, np.uint8)
    reals, fakes = write(tmp_path / "reals", decoded), write(tmp_path / "fakes", noise)
    settings = Settings(count=30, judges=2, judge_steps=15, temperatures=[], reals=str(reals))
    comparison = Comparison(digits.bundle, settings, PublishedNets())
    comparison.add_images(str(fakes))
    assert list(comparison.image_rows) == ["real, raw, 30 others", f"{fakes}, 30 as they are"]
    floor, row = comparison.image_rows.values()
    assert row["judge_auc"] > 0.95 and floor["judge_auc"] < 0.95
    assert row["fd"] > 2 * floor["fd"]


def test_the_command_measures_a_folder_against_the_bundle_before_it(decoded, tmp_path, capsys):
    folder, out = write(tmp_path / "images", decoded[:20]), tmp_path / "figures.json"
    options = ["--count", "20", "--judges", "0", "--temperatures", "[]", "--out", str(out)]
    assert cli.main(["evaluate", "digits", str(folder), *options]) == 0
    assert "Images against 300 real ones" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["image_rows"]) == 3
    assert cli.main(["evaluate", str(folder)]) == 1
    assert "name the bundle too" in capsys.readouterr().err


def test_a_word_that_is_a_name_and_a_folder_of_images_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(Path("digits"), np.zeros((4, 3, 8, 8), np.uint8))
    assert cli.main(["evaluate", "mnist", "digits"]) == 1
    shipped, here = str(bundle.SHIPPED / "digits"), "./digits"
    told = f"write {shipped!r} for the one, {here!r} for the other"
    assert told in capsys.readouterr().err


def test_published_networks_that_are_not_there_are_named_with_their_place(tmp_path):
    found = published.find(tmp_path)
    assert not found.embeddings and len(found.missing) == 2
    assert f"put {published.INCEPTION} into {tmp_path}" in found.missing[0]
    assert f"put {published.CLIP} into {tmp_path}" in found.missing[1]


def test_published_figures_are_the_metrics_of_the_networks_features(digits):
    """With stand-ins for the networks, which no test machine has."""
    mixing = torch.randn(3 * 32 * 32, 6, generator=torch.Generator().manual_seed(0))

    def embed(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.flatten(1).float() @ mixing, dim=1)

    nets = PublishedNets({"inception": embed, "clip": embed})
    comparison = Comparison(digits.bundle, Settings(count=70, judges=0, temperatures=[]), nets)
    row = next(iter(comparison.rows.values()))
    grids = digits.bundle.layout.as_grids(digits.bundle.split("train"))
    real, fake = (
        embed(torch.from_numpy(to_bytes(digits.images(g))))
        for g in (digits.held_out, [grid[:70] for grid in grids])
    )
    assert row["fid"] == pytest.approx(metrics.frechet_distance(real, fake), rel=1e-3)
    assert row["kid"] == pytest.approx(metrics.kernel_distance(real, fake), rel=1e-3)
    assert row["cmmd"] == pytest.approx(metrics.clip_distance(real, fake), rel=1e-3)

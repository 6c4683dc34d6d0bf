"""Stage 1: a VQ-VAE learns, and a codebook that collapses is told."""

import warnings

import numpy as np
import pytest
import torch
from conftest import close
from PIL import Image
from short_recipes import short

from pretrain import run, vqvae
from pretrain.configs import VQVAETraining
from pretrain.pixels import to_float
from pretrain.vqvae import extract, reconstruction_error, usage, warn_of_collapse
from ral_env.nets import VQVAEConfig


def test_a_vqvae_learns_to_reconstruct_and_uses_its_codes():
    """16x16 images of two flat colours from a palette of four."""
    rng = np.random.default_rng(0)
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
    halves = palette[rng.integers(0, 4, (300, 2))]  # (N, 2, 3)
    images = torch.from_numpy(halves.transpose(0, 2, 1)[:, :, :, None, None])
    images = images.expand(-1, -1, -1, 8, 16).reshape(300, 3, 16, 16).contiguous()
    config = VQVAEConfig(16, hidden=16, residual=8, layers=2, num_codes=16, code_dim=4)
    training = VQVAETraining(steps=300, batch=32, learning_rate=3e-3, codebook_decay=0.9)
    net, rows = vqvae.fit(config, images[:250], images[250:], training)
    # Against a net that says the mean colour everywhere.
    assert rows[-1]["reconstruction"] < 0.25 * to_float(images).var(0).mean()
    assert rows[-1]["used"] >= 4
    codes = extract(net, images)
    assert codes.shape == (300, 16) and usage(codes, config)["perplexity"] > 2
    best = min(row["reconstruction"] for row in rows)  # it is kept; whether it is the last is luck
    assert reconstruction_error(net, images[250:]) == close(best)


def test_usage_by_hand():
    one = VQVAEConfig(2, layers=1, num_codes=4)
    found = usage(np.array([[0], [1], [1], [0]]), one)
    assert found == {"perplexity": pytest.approx(2.0), "used": 2}
    two = VQVAEConfig(4, layers=1, num_codes=4, levels=2)
    found = usage(np.array([[3, 0, 0, 0, 0], [3, 1, 1, 1, 1]]), two)
    assert (found["perplexity"], found["used"]) == (1, 1)
    assert (found["perplexity_1"], found["used_1"]) == (pytest.approx(2.0), 2)


@pytest.mark.parametrize(("perplexity", "collapsed"), [(7.9, True), (8.1, False)])
def test_a_perplexity_below_an_eighth_of_the_codes_is_a_collapse(perplexity, collapsed):
    config = VQVAEConfig(32, num_codes=64, levels=2)
    figures = {"perplexity": 64.0, "perplexity_1": perplexity}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_collapse(figures, config)
    if collapsed:
        with pytest.warns(UserWarning, match="They are the codes of small: try images that are"):
            warn_of_collapse(figures, config, "small")
    expected = [f"the codebook of level 1 has collapsed: its perplexity is {perplexity} of 64"]
    assert [str(w.message)[: len(expected[0])] for w in told] == expected * collapsed


def test_a_codebook_that_collapses_is_told(tmp_path):
    """Images of one colour: their 8x8 cells are far fewer kinds than 512 codes."""
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "images" / f"{i}.png")
    with pytest.warns(UserWarning, match=r"level 0 has collapsed: .* of 512 codes. Try fewer"):
        run.pretrain(short("faces64wide"), tmp_path / "bundle", folder=str(tmp_path / "images"))

"""Presets of rounds fit any bundle; what is asked for beside them wins."""

import json

import pytest

from agents.rounds import PRESETS, Config, fit_preset
from agents.rounds.__main__ import main
from ral_env import bundle as bundles

SHORT = {
    "rounds": 1, "canvases": 12, "discriminator_canvases": 4, "discriminator_warmup": 1,
    "discriminator_updates": 1, "discriminator_batch": 2, "updates": 1, "batch": 2,
}  # fmt: skip


@pytest.mark.parametrize("fixture", ["tiny_codes", "tiny_two_codes"])
def test_long_begins_a_wider_discriminator_of_all_levels_vectors(fixture, request, tmp_path):
    path = str(request.getfixturevalue(fixture))
    config = fit_preset("long", bundles.load(path))
    bundle = bundles.load(path)
    net = config.discriminator_net
    assert net is not None and net.hidden > bundle.discriminator.config.hidden
    assert net.in_channels == bundle.vqvae.config.code_dim * bundle.vqvae.config.levels
    out = tmp_path / "run"
    words = [f"--{name}={value}" for name, value in SHORT.items()]
    asked = ["--env=RALBundle-v0", f"--bundle={path}", f"--out={out}", "--preset=long", *words]
    assert main(asked) == 0
    stored = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert stored["kl_coef"] == config.kl_coef != Config().kl_coef
    assert stored["discriminator_net"]["plain_layers"] == net.plain_layers
    assert {name: stored[name] for name in SHORT} == SHORT
    # A run that goes on keeps them, without being told.
    assert main([*asked[:3], "--resume", "--rounds=2"]) == 0
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["kl_coef"] == 1.0


def test_small_is_what_the_config_is_by_default():
    assert PRESETS["small"] == Config()


def test_an_unknown_preset_is_refused(tiny_codes):
    with pytest.raises(ValueError, match="preset='huge', expected one of small, long"):
        fit_preset("huge", bundles.load(tiny_codes))
    with pytest.raises(SystemExit):
        main(["--preset=huge"])

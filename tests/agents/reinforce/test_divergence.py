"""A run whose policy or discriminator diverges stops, and its last good state stays."""

import dataclasses

import pytest
import torch

from agents.reinforce import PRESETS, train
from agents.training.finite import NotFiniteError
from ral_env.cli import main

pytestmark = pytest.mark.faults


def is_finite(value):
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return not isinstance(value, torch.Tensor) or bool(torch.isfinite(value.float()).all())


@pytest.mark.parametrize("who", ["policy", "discriminator"])
def test_a_run_that_diverges_stops_and_keeps_its_last_good_state(who, tiny_codes, tmp_path):
    config = dataclasses.replace(
        PRESETS["small"], env="RALBundle-v0", bundle=str(tiny_codes), iterations=20, canvases=8,
        discriminator_warmup=2, gate_auc=0.0, checkpoint_every=1,
    )  # fmt: skip
    if who == "policy":
        config = dataclasses.replace(config, learning_rate=1e10)
    else:
        training = dataclasses.replace(config.discriminator, learning_rate=1e20)
        config = dataclasses.replace(config, discriminator=training)
    out = tmp_path / "run"
    with pytest.raises(NotFiniteError, match=f"the {who}'s .* not finite.*last good state.*"):
        train(config, out, progress=False)
    stored = torch.load(out / "checkpoint.pt", weights_only=True)
    assert is_finite(stored["parts"])
    assert not (out / "bundle").exists() and not (out / "metrics.csv").exists()


def test_the_command_says_so_in_one_line_and_fails(tiny_codes, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "--env", "RALBundle-v0", "--bundle", str(tiny_codes), "--preset", "small",
             "--out", str(out), "--canvases", "8", "--learning_rate", "1e10",
             "--discriminator_warmup", "1", "--gate_auc", "0"]  # fmt: skip
    assert main(words) == 1
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("ral: error")
    ]
    assert line.endswith(f"The last good state is kept: {out / 'checkpoint.pt'}")

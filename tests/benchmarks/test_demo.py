"""The demo measures what it says: rows, controls, oracle identities, pictures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FLOAT32, close
from PIL import Image

from agents import reinforce
from benchmarks import demo
from benchmarks.demo import Arm, Judge, TemperedPrior, train_arm
from ral_env.bundle import load


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(demo, "SAMPLES", 300)
    hasty = dataclasses.replace(reinforce.PRESETS["small"], discriminator_warmup=1, canvases=8)
    monkeypatch.setitem(reinforce.PRESETS, "small", hasty)


def test_a_tempered_generator_is_the_softmax_of_its_scaled_logits(tiny):
    prior = load(tiny).priors[0]
    codes = torch.randint(16, (5, 8, 8), generator=torch.Generator().manual_seed(0))
    found = TemperedPrior([prior], 0.5).log_prob([codes])
    with torch.no_grad():
        shares = prior.logits(codes).double().softmax(-1) ** 2  # softmax(z / 0.5), unnormalised
        shares = shares / shares.sum(-1, keepdim=True)
        expected = shares.gather(-1, codes[..., None]).log().sum((1, 2, 3))
    np.testing.assert_allclose(found, expected.numpy(), **FLOAT32)


def test_an_oracle_judges_itself_to_be_right(tiny, monkeypatch):
    """KL of the oracle to itself is 0 both ways; NLL_oracle - entropy is the reverse KL."""
    monkeypatch.setattr(demo, "SAMPLES", 60)
    bundle = load(tiny)
    judge = Judge(bundle, 0)
    own = judge.measure("oracle", TemperedPrior(bundle.oracles))
    assert own["reverse KL"] == close(0, own["entropy"])
    assert own["forward KL"] == close(0, own["entropy"])
    other = judge.measure("cooled", TemperedPrior(bundle.oracles, 0.5))
    assert other["reverse KL"] == close(other["NLL_oracle"] - other["entropy"], own["entropy"])
    assert other["reverse KL"] > 0.1 < other["forward KL"]
    assert other["entropy"] < own["entropy"]


@pytest.mark.parametrize("env", ["RALDigits-v0", "RALOracle-v0"])
def test_the_demo_fills_every_cell_and_paints_its_pictures(quick, env, tmp_path, capsys):
    bundle = demo.load_bundle(env)
    trained = {
        label: train_arm(Arm(label, env, 2.0, 0))
        for label in (demo.RAL, demo.NO_REWARD, demo.CONTINUED)
    }
    for label in (demo.RAL, demo.NO_REWARD):  # more MLE may rightly keep the prior it began with
        weights, _, curve = trained[label]
        assert curve
        assert any(
            not np.array_equal(weights[0][name], value.numpy())
            for name, value in bundle.priors[0].state_dict().items()
        )
    rows, note = demo.measure_seed(env, bundle, trained, 0, tmp_path)
    assert [row["row"] for row in rows] == [
        demo.FLOOR, demo.PRIOR, demo.CONTINUED, demo.COOLED, demo.NO_REWARD, demo.RAL,
    ]  # fmt: skip
    json.dumps(rows)
    by_label = {row["row"]: row for row in rows}
    assert by_label[demo.FLOOR]["FD"] < by_label[demo.PRIOR]["FD"]
    entropies = [by_label[label]["entropy"] for label in (demo.COOLED, demo.RAL)]
    assert abs(entropies[0] - entropies[1]) < 2.5, "matched, in nats of a canvas"
    assert all(len(by_label[label]["FD - control"]) == 3 for label in (demo.PRIOR, demo.RAL))
    assert ("reverse KL" in by_label[demo.RAL]) == (env == "RALOracle-v0")
    assert "nearest training canvas" in note
    for name in ("samples", "curves", "completion", "episode"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 100

    one = demo.table([rows], env == "RALOracle-v0").splitlines()
    assert len(one) == 8 and len({len(line) for line in one}) == 1
    three = demo.table([rows, rows, [r | {"FD": r["FD"] + 1} for r in rows]], False)
    assert "±" in three


def test_too_little_time_is_said_to_be_too_little():
    with pytest.raises(ValueError, match="before the first policy update"):
        train_arm(Arm(demo.RAL, "RALDigits-v0", 1e-3, 0))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="seeds=0"):
        demo.command(seeds=0)


@pytest.mark.expensive
def test_the_command_runs_from_end_to_end(tmp_path: Path, capsys):
    demo.command("RALOracle-v0", seconds=5, out=str(tmp_path))
    assert "RAL loop, no reward" in capsys.readouterr().out
    assert (tmp_path / "table.md").is_file() and (tmp_path / "results.json").is_file()

"""The demo measures what it says: rows, controls, pictures."""

import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents import reinforce
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from benchmarks import demo, demo_frontier
from benchmarks.demo import Arm, train_arm
from ral_env.bundle import load


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(demo, "SAMPLES", 300)
    monkeypatch.setattr(demo_frontier, "SAMPLES", 100)
    hasty = dataclasses.replace(reinforce.PRESETS["small"], discriminator_warmup=1, canvases=8)
    monkeypatch.setitem(reinforce.PRESETS, "small", hasty)


def test_a_cooled_prior_has_the_entropy_of_another():
    bundle = load("oracle")
    evaluator = Evaluator(bundle, demo.BATCH_SIZES)
    prior, like = TemperedPrior(bundle.priors), TemperedPrior(bundle.priors, 0.8)
    assert demo.cooled(evaluator, prior, like, 0).temperature == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("env", ["RALDigits-v0", "RALOracle-v0"])
def test_the_demo_fills_every_cell_and_paints_its_pictures(quick, env, tmp_path, capsys):
    bundle = demo.load_bundle(env)
    trained = {
        label: train_arm(Arm(label, env, 2.0, 0, clock=time.process_time))
        for label in (demo.RAL, demo.NO_REWARD, demo.CONTINUED)
    }
    for label in (demo.RAL, demo.NO_REWARD):  # more MLE may rightly keep the prior it began with
        weights, _, curve = trained[label]
        assert curve
        assert any(
            not np.array_equal(weights[0][name], value.numpy())
            for name, value in bundle.priors[0].state_dict().items()
        )
    rows, reached, note = demo.measure_seed(env, bundle, trained, 0, tmp_path)
    assert [row["row"] for row in rows] == [
        demo.FLOOR, demo.PRIOR, demo.CONTINUED, demo.COOLED, demo.NO_REWARD, demo.RAL,
    ]  # fmt: skip
    json.dumps([rows, reached])
    assert [row["row"] for row in reached] == [
        demo.PRIOR, demo.CONTINUED, demo.NO_REWARD, demo.RAL,
    ]  # fmt: skip
    for row in reached:
        assert row["area"][1] < row["area"][2] and 0.6 <= row["temperature"] <= 1
        assert ("area_minus_control" in row) == (row["row"] != demo.CONTINUED)
    by_label = {row["row"]: row for row in rows}
    assert by_label[demo.FLOOR]["fd"] < by_label[demo.PRIOR]["fd"]
    entropies = [by_label[label]["entropy"] for label in (demo.COOLED, demo.RAL)]
    assert abs(entropies[0] - entropies[1]) < 2.5, "matched, in nats of a canvas"
    assert all(len(by_label[label]["fd_minus_control"]) == 3 for label in (demo.PRIOR, demo.RAL))
    assert ("reverse_kl" in by_label[demo.RAL]) == (env == "RALOracle-v0")
    assert "nearest training canvas" in note
    for name in ("samples", "curves", "completion", "episode", "frontier"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 100

    one = demo.table([rows], bundle).splitlines()
    assert len(one) == 8 and len({len(line) for line in one}) == 1
    three = demo.table([rows, rows, [r | {"fd": r["fd"] + 1} for r in rows]], bundle)
    assert "±" in three


def test_a_claim_holds_only_where_every_feature_space_says_so():
    digits = load("digits")
    net = digits.feature_nets["labels"]
    two = dataclasses.replace(digits, feature_nets={"labels": net, "inpainting": net})

    def row(labels: float, inpainting: float) -> list[dict[str, Any]]:
        found = {"fd": labels, "fd_inpainting": inpainting}
        differences = {f"{k}_minus_control": (v, v - 0.5, v + 0.5) for k, v in found.items()}
        return [{"row": demo.RAL, **found, **differences}]

    assert "nearer to real images in every feature space" in demo.claim([row(-2, -1)], two)
    assert "no claim: nearer to real images by fd alone" in demo.claim([row(-2, 1)], two)
    assert "not nearer" in demo.claim([row(-0.1, 1)], two)
    seeds = [row(-2, -1), row(-2.1, -1.1), row(-1.9, 4)]
    assert "by fd alone" in demo.claim(seeds, two), "an interval over seeds"
    assert "the one feature space that there is" in demo.claim([row(-2, 1)], digits)
    assert "FD (inpainting) - control" in demo.table([row(-2, -1)], two)


def test_too_little_time_is_said_to_be_too_little():
    with pytest.raises(ValueError, match="before the first policy update"):
        train_arm(Arm(demo.RAL, "RALDigits-v0", 1e-3, 0))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="seeds=0"):
        demo.command(seeds=0)
    with pytest.raises(ValueError, match=r"context_noise=1.5, expected a number in \[0, 1\)"):
        demo.command(context_noise=1.5)


def test_continued_mle_takes_noisy_contexts():
    """By a clock that counts its calls, so that both arms make the same number of updates."""

    def curve(**options: Any) -> list[dict[str, float]]:
        ticks = itertools.count()
        arm = Arm(demo.CONTINUED, "RALDigits-v0", 20, 0, clock=lambda: next(ticks), **options)
        return train_arm(arm).curve

    plain, noisy = curve(), curve(context_noise=0.2)
    assert plain[0] == noisy[0], "the shipped prior"
    assert plain[-1]["seconds"] == noisy[-1]["seconds"]
    assert plain[-1]["validation NLL"] != noisy[-1]["validation NLL"]


@pytest.mark.expensive
def test_the_command_runs_from_end_to_end(tmp_path: Path, capsys):
    demo.command("RALOracle-v0", seconds=5, out=str(tmp_path))
    assert "RAL loop, no reward" in capsys.readouterr().out
    assert (tmp_path / "table.md").is_file() and (tmp_path / "results.json").is_file()

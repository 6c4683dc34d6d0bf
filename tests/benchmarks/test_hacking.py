"""Curves of a hacked reward: every seed of both arms is measured, kept and drawn."""

import csv

import numpy as np
from PIL import Image

from benchmarks import hacking
from ral_env import bundle


def row(arm: str, seed: int, iteration: int, fd: float) -> dict:
    return {"arm": arm, "seed": seed, "iteration": iteration, "score": -fd, "fd": fd}


def test_the_picture_has_a_thin_line_a_seed_and_their_mean():
    rows = [
        row(arm, seed, iteration, seed + iteration)
        for arm in hacking.ARMS
        for seed in (1, 3)
        for iteration in (0, 10)
    ]
    panels = hacking.figure(rows, "an id").axes
    assert [panel.get_title() for panel in panels] == [hacking.PANELS[n] for n in ("score", "fd")]
    lines = [np.asarray(line.get_ydata()).tolist() for line in panels[1].lines]
    assert lines == 2 * [[2, 12], [1, 11], [3, 13]]
    labels = [text.get_text() for text in panels[1].figure.legends[0].texts]
    assert labels == list(hacking.ARMS.values())


def test_every_seed_of_both_arms_is_kept(tmp_path, monkeypatch, capsys):
    def curve(env, bundle, arm, iterations, points, samples, judges, seed):
        return [row(arm, seed, at, seed + at) for at in (0, iterations)]

    monkeypatch.setattr(hacking, "curve", curve)
    words = ["--env", "RALDigits-v0", "--iterations", "2", "--seed", "4", "--seeds", "2"]
    hacking.main([*words, "--out", str(tmp_path)])
    with (tmp_path / "RALDigits-v0.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["arm"], row["seed"], row["iteration"]) for row in rows] == [
        (arm, seed, at) for arm in hacking.ARMS for seed in "45" for at in "02"
    ]
    with Image.open(tmp_path / "RALDigits-v0.png") as picture:
        assert picture.width > 400
    assert "| fixed" in capsys.readouterr().out


def test_an_arm_is_measured_before_its_first_iteration_and_after_its_last():
    digits = bundle.load("digits")
    rows = hacking.curve("RALDigits-v0", digits, "fixed", 1, 1, 40, 0, seed=3)
    assert [(row["arm"], row["seed"], row["iteration"]) for row in rows] == [
        ("fixed", 3, 0), ("fixed", 3, 1),
    ]  # fmt: skip
    assert rows[0]["forward_nll"] != rows[1]["forward_nll"], "it has learnt"
    assert {"score", "fd", "coverage"} <= set(rows[0])

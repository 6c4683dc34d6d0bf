"""Benchmarks run end to end on something tiny; what they print is what they measured."""

import csv
import dataclasses
import time

import pytest
import torch

from agents import reinforce
from benchmarks import demo, learning, recipes
from ral_env.cli import main


@pytest.mark.parametrize("name", recipes.VARIANTS)
def test_a_variant_is_the_preset_small_and_what_it_says(name):
    changes = recipes.VARIANTS[name]
    config, small = recipes.config_of(changes, seed=3), reinforce.PRESETS["small"]
    assert config.seed == 3
    for key, value in changes.items():
        outer, _, inner = key.partition(".")
        found = getattr(config, outer)
        assert (getattr(found, inner) if inner else found) == value
        before = getattr(small, outer)
        assert (getattr(before, inner) if inner else before) != value, "it changes something"


def test_variants_are_trained_compared_and_never_done_twice(tiny_codes, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SAMPLES", 200)
    hasty = dataclasses.replace(reinforce.PRESETS["small"], warmup=1, batch=8)
    monkeypatch.setitem(reinforce.PRESETS, "small", hasty)
    monkeypatch.setattr(recipes, "_own_core", lambda: None)  # would change this process's clock

    class Here:
        """A pool of no processes."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        map = staticmethod(map)

    monkeypatch.setattr(recipes, "ProcessPoolExecutor", Here)
    file = tmp_path / "results.csv"
    words = ["bench", "recipes", "--env", "RALBundle-v0", "--bundles", f'["{tiny_codes}"]',
             "--seconds", "0.7", "--out", str(file)]  # fmt: skip
    assert main([*words, "--variants", '["small"]']) == 0
    assert main([*words, "--variants", '["small", "hinge"]']) == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["variant"] for row in rows] == ["small", "hinge"]
    for row in rows:
        assert int(row["iterations"]) > 0 and float(row["FD low"]) <= float(row["FD high"])
        assert abs(float(row["entropy"])) < 64 * 2.8  # log 16 a code
    assert len(list(tmp_path.glob("mle-*.pt"))) == 1, "one control for both"
    assert time.perf_counter is not time.process_time


def test_the_table_of_variants_has_means_and_intervals():
    columns = ["reverse KL", "forward NLL", "reverse KL - MLE", "forward NLL - MLE", "FD - MLE",
               "FD", "entropy", "recall", "auc", "iterations"]  # fmt: skip
    rows = [
        {"variant": name, **{column: str(value) for column in columns}}
        for name, value in (("good", -3), ("good", -1), ("bad", 2))
    ]
    lines = recipes.table(rows).splitlines()
    assert lines[2].startswith("| good") and "-2.00 ± 12.71" in lines[2]
    assert lines[3].startswith("| bad") and "+2.00" in lines[3]


def test_unknown_variants_are_refused(capsys):
    assert main(["bench", "recipes", "--variants", '["magic"]']) == 1
    assert "magic" in capsys.readouterr().err


def test_an_iterations_parts_are_less_than_the_whole():
    found = learning.loop("RALDigits-v0", "full", batch=4, iterations=2, device="cpu")
    parts = [found[part] for part in learning.PARTS]
    assert min(parts) > 0 and sum(parts) <= found["whole"]


def test_ppo_is_timed_either_way():
    with torch.random.fork_rng():
        for fast in (True, False):
            collected, learnt = learning.ppo("RALDigits-v0", 2, fast)
            assert collected > 0 and learnt > 0

"""Benchmarks run end to end on something tiny; what they print is what they measured."""

import csv
import dataclasses

import pytest
import torch

from agents import reinforce
from benchmarks import demo, floor, learning, recipes, sampling
from ral_env.cli import main
from ral_env.nets import native


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
    hasty = dataclasses.replace(reinforce.PRESETS["small"], discriminator_warmup=1, canvases=8)
    monkeypatch.setitem(reinforce.PRESETS, "small", hasty)
    file = tmp_path / "results.csv"
    words = ["bench", "recipes", "--env", "RALBundle-v0", "--bundles", f'["{tiny_codes}"]',
             "--seconds", "0.7", "--jobs", "1", "--out", str(file)]  # fmt: skip
    assert main([*words, "--variants", '["small"]']) == 0
    assert main([*words, "--variants", '["small", "hinge"]']) == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["variant"] for row in rows] == ["small", "hinge"]
    for row in rows:
        assert int(row["iterations"]) > 0 and float(row["fd_minus_mle_low"]) <= float(
            row["fd_minus_mle_high"]
        )
        assert abs(float(row["entropy"])) < 64 * 2.8  # log 16 a code
    assert len(list(tmp_path.glob("mle-*.pt"))) == 1, "one control for both"


def test_the_table_of_variants_has_means_and_intervals():
    rows = [
        {"variant": name, **{column: str(value) for column in recipes.DIGITS}}
        for name, value in (("good", -3), ("good", -1), ("bad", 2))
    ]
    lines = recipes.table(rows).splitlines()
    assert lines[2].startswith("| good") and "-2.00 ± 12.71" in lines[2]
    assert lines[3].startswith("| bad") and "+2.00" in lines[3]


def test_results_with_old_headings_are_gone_on_with(tmp_path):
    file = tmp_path / "results.csv"
    file.write_text(
        "variant,bundle,seed,given,FD,FD low,reverse KL - MLE\nsmall,oracle,0,50,1,2,3\n"
    )
    with pytest.warns(FutureWarning) as warned:
        (row,) = recipes.read(file)
    assert "FD low is called fd_minus_mle_low now" in str(warned[2].message)
    assert row == {
        "variant": "small", "bundle": "oracle", "seed": "0", "seconds": "50", "fd": "1",
        "fd_minus_mle_low": "2", "reverse_kl_minus_mle": "3",
    }  # fmt: skip
    job = recipes.Job("small", "RALOracle-v0", "oracle", 0, 50.0, tmp_path)
    assert recipes._key(row) == job.key


def test_unknown_variants_are_refused(capsys):
    assert main(["bench", "recipes", "--variants", '["magic"]']) == 1
    assert "magic" in capsys.readouterr().err


def test_an_iterations_parts_are_less_than_the_whole():
    found = learning.loop("RALDigits-v0", "full", batch=4, iterations=2, device="cpu")
    parts = [found[part] for part in learning.PARTS]
    assert min(parts) > 0 and sum(parts) <= found["whole"]


def test_iterations_a_second_are_told_with_their_parts():
    found = learning.iterations_a_second("RALDigits-v0", 1)
    parts = [found[part] for part in learning.PARTS]
    assert found["a second"] == 1 / found["whole"]
    assert min(parts) > 0 and sum(parts) <= found["whole"]


def test_ppo_is_timed_in_every_way():
    with torch.random.fork_rng():
        rows = learning.ppo_rows("RALDigits-v0", 2, turns=1)
    assert {row["steps and buffer"] for row in rows} <= set(learning.WAYS) and len(rows) >= 2
    assert all(float(row["collect s"]) > 0 and float(row["learn s"]) > 0 for row in rows)


@pytest.mark.parametrize("more", [{}, {"attention_layers": 1}, {"condition_layers": 1}])
def test_every_method_of_sampling_writes_the_same_codes(more):
    methods = sampling.Methods(graph=True)
    row = sampling.measure("tiny", sampling._net(4, 8, 2, **more), 3, "cpu", (1e9, 1e9), methods)
    assert row["same codes"] == "yes"
    assert {"naive s", "row-wise s", "cached s", "graph, float32 s", "floor s"} <= row.keys()
    assert 0 < float(row["bfloat16's error, nats a code"]) < 0.1


def test_the_floor_counts_every_multiplication_by_hand():
    """One layer, 2 channels, 2x2 cells of 512 codes: filters 3x5 and 1x3, two of 1x1, the head."""
    net = sampling.Case.make(sampling._net(2, 2, 1, output_layers=0), 1, "cpu").net
    a_cell = 2 * 4 * 15 + 2 * 4 * 3 + 4 * 4 + 2 * 2 + 2 * 512
    assert floor.multiplications(net, batch=3) == 3 * 4 * a_cell


def test_every_backend_has_a_row_and_writes_the_same_codes():
    config = sampling._net(4, 8, 2)
    rows = sampling.measure_backends("tiny", config, 3, (1e9, 1e9), repeats=2)
    assert [row["backend"] for row in rows] == ["eager", *native.instruction_sets()]
    assert all(row["same codes"] == "yes" for row in rows)
    assert rows[0]["times eager"] == "1.00"


@pytest.mark.skipif(not native.instruction_sets(), reason="nothing compiled that runs here")
def test_the_peak_counts_its_multiply_adds_and_is_no_less_than_a_product():
    name = native.instruction_sets()[0]
    once, twice = (native.peak_multiply_adds(name, steps) for steps in (10, 20))
    assert twice == 2 * once and once % (10 * 8) == 0
    assert floor.ceilings("cpu")[0] > 0.5 * floor.peak(name) > 1e8


def test_networks_that_are_not_there_are_refused(capsys):
    assert main(["bench", "sampling", "--nets", '["7x7"]']) == 1
    assert "7x7" in capsys.readouterr().err

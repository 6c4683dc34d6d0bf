"""The leaderboard: equal terms for every entry, results that can be gone on with, a true page."""

import csv
import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import reinforce
from agents.evaluation.evaluator import Evaluator, TemperedPrior
from benchmarks import algorithms, submit
from benchmarks.leaderboard import page, protocol
from benchmarks.leaderboard.entries import (
    ENTRIES,
    TRIALS,
    Budget,
    Contender,
    Entry,
    canvases_of_loop,
)
from benchmarks.leaderboard.protocol import BATCH_SIZES, Task, measure, run
from benchmarks.leaderboard.results import Results, best_settings
from ral_env import bundle
from ral_env.nets import joint

ENV = "RALDigits-v0"
DOCS = Path(__file__).parents[2] / "docs"
SLOW = ("SB3's A2C", "SB3's TRPO", "MaskablePPO from nothing", "REINFORCE, paper")


@pytest.fixture(scope="module")
def digits():
    return bundle.load("digits")


@pytest.fixture(autouse=True)
def few_swept(monkeypatch):
    """Temperatures are chosen by few samples: these tests ask how, not how well."""
    monkeypatch.setattr(protocol, "SWEPT", 20)


def test_entries_that_learn_have_equally_many_trials():
    assert {len(e.trials) for e in ENTRIES.values() if e.learns} == {TRIALS}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.expensive] if name in SLOW else []) for name in ENTRIES],
)
def test_every_entry_gives_whole_canvases_that_depend_on_the_seed(name, digits):
    entry = ENTRIES[name]
    settings = dict(entry.trials[0])
    if "canvases" in settings:  # a round's
        settings |= {"canvases": 100, "discriminator_canvases": 40, "updates": 2,
                     "discriminator_updates": 2, "discriminator_warmup": 2}  # fmt: skip
    found = entry.train(Budget(ENV, 0.2, 0), digits, settings)
    draw = found.draw
    if draw is None:
        prior = TemperedPrior(found.priors)
        draw = lambda count, seed: Evaluator(digits).sample(prior, count, seed)  # noqa: E731
    (one,), (again,), (other,) = draw(6, 1), draw(6, 1), draw(6, 2)
    assert one.shape == (6, 8, 8) and one.min() >= 0 and one.max() < 64
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert (found.seconds > 0) == entry.learns and (found.canvases > 0) <= entry.learns


def test_a_prior_s_figures_are_the_evaluator_s(digits):
    found = measure(Contender(digits.priors, temperatures=(1.0,)), digits, 3, samples=60, judges=0)
    evaluator = Evaluator(digits, BATCH_SIZES)
    expected = evaluator.evaluate_prior(TemperedPrior(digits.priors), 60, 1003).figures
    assert found == {"temperature": 1.0} | expected


def test_canvases_that_are_drawn_otherwise_are_measured_alike(digits):
    evaluator = Evaluator(digits, BATCH_SIZES)
    prior = TemperedPrior(digits.priors)
    found = measure(
        Contender(draw=lambda count, seed: evaluator.sample(prior, count, seed)),
        digits, 3, samples=60, judges=0,
    )  # fmt: skip
    own = measure(Contender(digits.priors, temperatures=(1.0,)), digits, 3, samples=60, judges=0)
    assert found == {name: own[name] for name in found}


def test_the_temperature_is_chosen_on_the_tuning_split(digits, monkeypatch):
    asked = []
    monkeypatch.setattr(
        protocol.frontier, "sweep",
        lambda priors, test, tuning, *_: asked.append((test.split, tuning.split)) or Chosen(),
    )  # fmt: skip

    class Chosen:
        area = 0.25

        def chosen(self, bound):
            assert bound > 0
            return type("Point", (), {"temperature": 0.7})()

    found = measure(
        Contender(digits.priors, temperatures=(1.0, 0.7)), digits, 0, samples=30, judges=0
    )
    assert asked == [("test", digits.tuning_split)]
    assert found["temperature"] == 0.7 and found["area"] == 0.25
    own = Evaluator(digits, BATCH_SIZES).evaluate_prior(TemperedPrior(digits.priors, 0.7), 30, 1000)
    assert found["fd"] == own.figures["fd"]


@pytest.mark.parametrize("pool", [0, 2])
def test_the_canvases_of_the_loop_are_those_it_sampled(pool, digits, monkeypatch):
    drawn = []
    sample = joint.sample

    def counting(priors, prefixes, *args, **kwargs):
        drawn.append(len(prefixes[0]))
        return sample(priors, prefixes, *args, **kwargs)

    monkeypatch.setattr(joint, "sample", counting)
    config = reinforce.Config(
        env=ENV, start="full", canvases=4, iterations=3, discriminator_warmup=5,
        discriminator_updates=2, fake_pool=pool, discriminator_input="codes",
        discriminator_net=None,
    )  # fmt: skip
    found = reinforce.train(config, progress=False, bundle=digits)
    assert canvases_of_loop(config, len(found.history)) == sum(drawn)


def test_a_run_s_line_says_what_it_rests_on():
    found = run(Task(ENV, "MLE prior", samples=30, judges=0))
    assert found["bundle"] == bundle.load("digits").edition
    assert set(json.loads(found["versions"])) == {"ral_env", "torch", "python"}
    assert {"seed", "fd", "precision", "seconds", "canvases", "date"} <= set(found)


def test_runs_that_are_there_are_left_out_and_others_are_added(tmp_path, capsys):
    def go(*names, seeds=1):
        algorithms.command([ENV], names, seeds, samples=30, judges=0, jobs=1, out=str(tmp_path))
        return capsys.readouterr().out

    assert "1 runs of 1" in go("random codes")
    before = (tmp_path / f"{ENV}.csv").read_text()
    assert "0 runs of 1" in go("random codes")
    assert (tmp_path / f"{ENV}.csv").read_text() == before
    assert "3 runs of 4" in go("random codes", "MLE prior", seeds=2)
    with (tmp_path / f"{ENV}.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["entry"], r["seed"]) for r in rows] == [
        ("random codes", "0"), ("MLE prior", "0"), ("random codes", "1"), ("MLE prior", "1"),
    ]  # fmt: skip
    assert rows[0]["forward_nll"] == "" and float(rows[1]["forward_nll"]) > 0


def test_two_that_add_to_the_same_results_lose_no_line(tmp_path):
    first, second = (Results(tmp_path / "made" / "x.csv") for _ in range(2))
    for seed, results in enumerate((first, second, first)):
        results.add({"entry": "MLE prior", "seed": seed})
    assert [r["seed"] for r in Results(first.file).records] == [0, 1, 2]
    assert [file.name for file in first.file.parent.iterdir()] == ["x.csv"]


def test_each_of_several_bundles_has_a_run_and_its_own_canvases(tmp_path, digits):
    other = tmp_path / "other"  # where other canvases are for testing
    bundle.save(
        other,
        dataclasses.replace(digits, flat_codes=np.roll(digits.flat_codes, 300, 0)),
        metrics={},
    )
    names = ["digits", str(other)]
    algorithms.command([ENV], ["MLE prior", "continued MLE"], bundles=names, seconds=0.1,
                       samples=30, judges=0, jobs=1, out=str(tmp_path))  # fmt: skip
    found = Results(tmp_path / f"{ENV}.csv").records
    editions = [bundle.load(name).edition for name in names]
    assert [(r["seed"], r["bundle"]) for r in found] == [
        (seed, edition) for seed, edition in enumerate(editions) for _ in range(2)
    ]
    assert found[0]["forward_nll"] != found[2]["forward_nll"]


def test_a_run_of_another_edition_is_made_again(tmp_path, digits):
    results = Results(tmp_path / "x.csv")
    task = Task(ENV, "random codes")
    results.add({**task.key, "bundle": "digits 0"})
    again = Results(tmp_path / "x.csv")
    assert again.has(task.key, "digits 0") and not again.has(task.key, digits.edition)


def test_runs_take_the_settings_whose_trial_came_nearest_on_the_tuning_split(tmp_path, monkeypatch):
    def train(budget, digits, settings):
        return ENTRIES["real data" if settings["real"] else "random codes"].train(
            budget, digits, settings
        )

    settings = ({"real": False}, {"real": True})
    monkeypatch.setitem(ENTRIES, "either", Entry("either", "one of two", train, settings))
    algorithms.command([ENV], ["either", "MLE prior"], samples=30, jobs=1, out=str(tmp_path),
                       trials=True)  # fmt: skip
    trials = Results(tmp_path / f"trials-{ENV}.csv")
    assert [json.loads(record["settings"]) for record in trials.records] == list(settings)
    assert all(set(record) & {"fd", "precision"} == set() for record in trials.records)
    assert best_settings(trials, "either", trials.records[0]["bundle"]) == {"real": True}
    assert best_settings(trials, "either", "another edition") == {"real": False}


def test_unknown_entries_and_odd_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="magic.*expected some of.*'MLE prior'"):
        algorithms.command([ENV], ["magic"], out=str(tmp_path))
    with pytest.raises(ValueError, match="entry='magic'"):
        Task(ENV, "magic")
    with pytest.raises(ValueError, match="seconds"):
        algorithms.command([ENV], seconds=0, out=str(tmp_path))


# --- what others have made ---


def test_a_file_of_canvases_is_measured_as_they_are(tmp_path, digits, capsys):
    real = digits.split("train")[:50]
    np.save(tmp_path / "mine.npy", real)
    submit.command(ENV, "mine", samples=str(tmp_path / "mine.npy"), count=50, judges=0,
                   out=str(tmp_path))  # fmt: skip
    assert "mine" in capsys.readouterr().out
    (line,) = Results(tmp_path / f"{ENV}.csv").records
    own = Evaluator(digits, BATCH_SIZES).evaluate_canvases(digits.layout.as_grids(real)).figures
    assert line["fd"] == pytest.approx(own["fd"]) and line["precision"] == own["precision"]


def test_an_agent_is_asked_for_each_code_and_plays_what_it_says(digits):
    seen = []

    def act(observations, rng):
        seen.append(observations.copy())
        return rng.integers(0, 64, len(observations))

    draw = submit.from_agent(act, digits).draw
    assert draw
    (canvases,) = draw(3, 5)
    assert len(seen) == 64 and all(obs.shape == (3, 64) for obs in seen)
    assert all((obs == 64).sum() == 3 * (64 - step) for step, obs in enumerate(seen))
    np.testing.assert_array_equal(seen[-1][:, :63], canvases.flatten(1)[:, :63])
    assert torch.equal(draw(3, 5)[0], canvases)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.zeros((50, 64), np.float32), "float32.*expected integers"),
        (np.zeros((50, 63), np.int64), r"\(50, 63\), expected integers \(N, 64\)"),
        (np.zeros((5, 64), np.int64), "5 canvases, expected 50"),
        (np.full((50, 64), 64), "64 to 64, expected 0 to 63"),
        (np.int64(3), r"int64 \(\)"),
    ],
)
def test_files_that_hold_something_else_are_refused(codes, words, tmp_path):
    np.save(tmp_path / "bad.npy", codes)
    with pytest.raises(ValueError, match=words):
        submit.command(ENV, "bad", samples=str(tmp_path / "bad.npy"), count=50, out=str(tmp_path))
    assert not (tmp_path / f"{ENV}.csv").exists()


def test_agents_and_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.npy cannot be read"):
        submit.command(ENV, "x", samples=str(tmp_path / "nowhere.npy"), out=str(tmp_path))
    with pytest.raises(ValueError, match="nowhere:act.*cannot be imported"):
        submit.command(ENV, "x", agent="nowhere:act", out=str(tmp_path))
    with pytest.raises(ValueError, match="expected 'module:function'"):
        submit.command(ENV, "x", agent="nowhere", out=str(tmp_path))
    with pytest.raises(ValueError, match="expected one of them"):
        submit.command(ENV, "x", out=str(tmp_path))


# --- the page ---


def test_the_table_has_means_and_student_intervals_nearest_first():
    runs = [{"entry": "far", "fd": 9.0, "seconds": 1.0}] + [
        {"entry": "near", "fd": fd, "seconds": 2.0} for fd in (1.0, 3.0)
    ]
    near, far = page.table(runs).splitlines()[2:]
    assert near.startswith("| near") and "2.00 ± 12.71" in near  # t of one degree, 12.706, times 1
    assert far.startswith("| far") and "9.00" in far


def test_the_page_opens_with_a_figure_of_each_environment(tmp_path):
    runs = [{"entry": "near", "fd": 1.0, "coverage": 0.9}, {"entry": "MLE prior", "fd": 2.0,
             "coverage": 0.5}]  # fmt: skip
    common = {"env": ENV, "seed": 0, "bundle": "digits 1", "budget": 1.0, "samples": 10,
              "versions": json.dumps({"torch": "2"}), "seconds": 1.0}  # fmt: skip
    results = Results(tmp_path / f"{ENV}.csv")
    for one in runs:
        results.add(common | one)
    text = runpy.run_path(str(DOCS / "make_leaderboard.py"))["make"](tmp_path)
    shown = f"![{ENV}](leaderboard/{ENV}.png)"
    assert text.count(shown) == 1 and text.index(shown) < text.index("Every algorithm gets")
    assert text.index("Every algorithm gets") < text.index(f"## {ENV}")
    page.save_figure(results.records, ENV, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_the_page_is_made_of_the_results():
    made = runpy.run_path(str(DOCS / "make_leaderboard.py"))
    text = (DOCS / "leaderboard.md").read_text(encoding="utf-8")
    assert made["make"]() == text, "run `python docs/make_leaderboard.py`"
    for file in made["environments"](made["RESULTS"]):
        assert (DOCS / "leaderboard" / f"{file.stem}.png").exists()

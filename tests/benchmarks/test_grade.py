"""A grade is one number of canvases that the grader drew itself, and old tricks get none."""

import copy
import dataclasses
import json
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agents.evaluation.evaluator import TemperedPrior
from agents.training.files import write_rows
from benchmarks import grade
from benchmarks.grade import Grader, score
from benchmarks.leaderboard import protocol
from benchmarks.leaderboard.entries import Contender
from benchmarks.submit import from_agent
from ral_env import bundle, cli, reference

ENV = "RALDigits-v0"
GRADED = [env for env, found in reference.scores().items() if "fd" in found["rows"]["MLE prior"]]
ROWS = {
    reference.TRAIN: {"fd": 2.0, "fd_other": 1.0},
    reference.PRIOR: {"fd": 10.0, "fd_other": 3.0},
}


@pytest.fixture(scope="module")
def grader():
    return Grader(ENV)


def of_prior(grader, temperature):
    prior = TemperedPrior(grader.bundle.priors, temperature)
    return Contender(draw=partial(grader.evaluator.sample, prior))


def training_canvases(grader, count, seed):
    rows = np.random.default_rng(seed).choice(len(grader.train), count)
    return grader.bundle.layout.as_grids(grader.train[np.sort(rows)])


# --- the score ---


@pytest.mark.parametrize(
    ("distances", "expected"),
    [((10, 3), 0), ((2, 1), 100), ((6, 2), 50), ((1, 0.5), 112.5), ((12, 3), -25)],
)
def test_the_score_is_the_share_of_the_way_from_the_prior_to_real_canvases(distances, expected):
    fd, other = distances
    assert score({"fd": fd, "fd_other": other}, ROWS) == pytest.approx(expected)


def test_of_two_feature_spaces_the_lower_score_counts():
    assert score({"fd": 2.0, "fd_other": 3.0}, ROWS) == 0
    assert score({"fd": 9.0, "fd_other": 1.0}, ROWS) == pytest.approx(12.5)


def test_the_prior_itself_is_accepted_with_the_score_0(grader):
    found = grader.grade(Contender(grader.bundle.priors))
    assert not found.refused and not found.beats_prior
    assert (found.score, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-4)
    assert "score 0.0 [" in found.text().replace("-0.0", "0.0")


def test_an_interval_holds_the_score_and_is_0_or_more_only_where_the_prior_is_beaten(grader):
    found = grader.grade(of_prior(grader, 1.0), seed=1)
    assert found.low < found.score < found.high and not found.refused and not found.beats_prior


# --- the gates ---


def test_cooled_samples_are_refused_though_they_cover_more(grader):
    found = grader.grade(of_prior(grader, 0.5))
    assert found.figures["coverage"] > found.rows[reference.PRIOR]["coverage"]
    assert found.refused == ["its canvases are alike, as cooled or repeated ones are"]
    assert "no score" in found.text() and found.record()["score"] is None


@pytest.mark.expensive
@pytest.mark.parametrize("env", GRADED)
def test_on_every_id_the_prior_passes_with_another_seed_and_is_refused_when_cooled(env):
    one = Grader(env)
    assert not one.grade(of_prior(one, 1.0), seed=7).refused
    assert one.grade(of_prior(one, 0.5)).refused


@pytest.mark.parametrize("env", GRADED)
def test_what_priors_reach_is_well_above_every_limit(env):
    rows = reference.scores()[env]["rows"]
    figures = rows[reference.PRIOR] | {"nearest_test": 10}
    for gate in grade.gates(figures, rows, real_nearest_test=10):
        assert gate.is_passed
        if gate.figure == "diversity":
            assert (1 - gate.value) / (1 - gate.limit) < 0.9
        else:
            assert gate.value / gate.limit > 1.15


def test_training_canvases_that_an_agent_returns_are_refused_and_get_no_place(grader):
    canvases = {}

    def act(observations, rng):
        step = int((observations[0] != 64).sum())
        if not step:
            rows = np.sort(rng.choice(len(grader.train), len(observations)))
            canvases["now"] = grader.train[rows]
        return canvases["now"][:, step]

    found = grader.grade(from_agent(act, grader.bundle))
    assert found.figures["nearest"] == 0 and found.refused == ["it copies training canvases"]
    assert found.order[0] == found.label, "nothing but the gate keeps it from the top"
    assert found.record()["place"] is None


def test_one_copy_among_ten_canvases_is_seen(grader):
    def draw(count, seed):
        (own,) = of_prior(grader, 1.0).draw(count, seed)  # type: ignore[misc]
        own[::10] = training_canvases(grader, len(own[::10]), seed)[0]
        return [own]

    assert "it copies training canvases" in grader.grade(Contender(draw=draw)).refused


def test_test_canvases_are_refused(grader):
    def draw(count, seed):
        return [grid.repeat(4, 1, 1)[:count] for grid in grader.evaluator.held_out]

    refused = grader.grade(Contender(draw=draw)).refused
    assert "it copies test canvases, from which nothing may learn" in refused


def test_one_canvas_repeated_is_refused(grader):
    canvas = grader.evaluator.sample(TemperedPrior(grader.bundle.priors), 1, 0)
    found = grader.grade(Contender(draw=lambda n, _: [grid.repeat(n, 1, 1) for grid in canvas]))
    failed = {gate.figure for gate in found.gates if not gate.is_passed}
    assert failed >= {"coverage", "diversity"}


def test_cooling_that_hides_in_weights_is_refused_as_well(grader, tmp_path):
    prior = copy.deepcopy(grader.bundle.priors[0])
    with torch.no_grad():
        prior.head.weight *= 2  # the logits of temperature 0.5
        prior.head.bias *= 2
    sharp = dataclasses.replace(grader.bundle, priors=(prior,))
    bundle.save(tmp_path / "sharp", sharp, metrics={})
    assert grader.grade(grade.policies_of(str(tmp_path / "sharp"), grader.bundle)).refused


# --- the command ---


def test_a_runs_folder_is_graded_and_its_grade_and_sheet_are_written(tmp_path, capsys):
    digits = bundle.load("digits")
    bundle.save(tmp_path / "run" / "bundle", digits, metrics={})
    out = tmp_path / "out"
    status = cli.main(["grade", "--env", ENV, "--policy", str(tmp_path / "run"), "--out", str(out)])
    printed = capsys.readouterr().out
    assert status == 0 and "place 3 of 4 among the reference scores" in printed
    record = json.loads((out / "grade.json").read_text(encoding="utf-8"))
    assert record["accepted"] and record["score"] == pytest.approx(0, abs=1e-4)
    assert record["place"] == 3 and record["bundle"] == digits.edition
    assert all(gate["passed"] for gate in record["gates"])
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_an_agent_that_is_refused_gives_exit_status_3_and_its_reasons(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("zeros_agent.py").write_text(
        textwrap.dedent(
            """
            import numpy as np

            def act(observations, rng):
                return np.zeros(len(observations), int)
            """
        ),
        encoding="utf-8",
    )
    status = cli.main(["grade", "--env", ENV, "--agent", "zeros_agent:act", "--out", "out"])
    assert status == grade.REFUSED == 3
    assert "no score: it covers fewer kinds" in capsys.readouterr().out
    record = json.loads(Path("out/grade.json").read_text(encoding="utf-8"))
    assert not record["accepted"] and record["score"] is None and record["refused"]


def test_the_leaderboards_place_is_among_rows_of_this_bundle_and_as_many_samples(
    grader, tmp_path, monkeypatch
):
    monkeypatch.setattr(protocol, "SAMPLES", 100)
    row = {"env": ENV, "seed": 0, "samples": 100, "bundle": grader.bundle.edition, "seconds": 0.0,
           "canvases": 0}  # fmt: skip
    rows = [
        row | {"entry": "near", "fd": 0.1},
        row | {"entry": "far", "fd": 1e6},
        row | {"entry": "of another edition", "fd": 0.2, "bundle": "digits 0"},
        row | {"entry": "of more samples", "fd": 0.3, "samples": 3000},
    ]
    contender = Contender(grader.bundle.priors, temperatures=(1.0,))
    found = grader.grade(contender, "mine")
    standing = partial(grade.standing, contender, found, grader.bundle, tmp_path)
    assert standing() is None, "there is no leaderboard"
    write_rows(tmp_path / f"{ENV}.csv", rows)
    stands = standing()
    assert stands and stands[1] == {"place": 2, "of": 3}
    assert "mine (submitted)" in stands[0] and "another edition" not in stands[0]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([ENV], "expected one of them"),
        ([ENV, "--bundle", "digits", "--agent", "a:b"], "expected one of them"),
        ([ENV, "--bundle", "mnist"], "has another VQ-VAE than"),
        ([ENV, "--bundle", "digits", "--references", "nowhere.json"], "has no reference scores"),
        (["RALCelebAHQ512-v0", "--bundle", "x"], "has no feature net; or choose one of RALFaces32"),
    ],
)
@pytest.mark.filterwarnings("ignore::ral_env.StandInWarning")
def test_bad_input_is_named(words, error, tmp_path):
    with pytest.raises(ValueError, match=error):
        grade.main(["--env", *words, "--out", str(tmp_path)])


@pytest.mark.filterwarnings("ignore::ral_env.StandInWarning")
def test_reference_scores_of_too_few_canvases_are_refused(tmp_path):
    scores = reference.scores()
    for row in scores["RALCelebA128-v0"]["rows"].values():
        for name in [name for name in row if name == "coverage" or name.startswith("fd")]:
            del row[name]
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(scores), encoding="utf-8")
    with pytest.raises(ValueError, match=r"lack coverage, .*fd.*: with --count 250 or more"):
        Grader("RALCelebA128-v0", file)


def test_reference_scores_of_another_edition_are_refused(tmp_path):
    scores = reference.scores()
    scores[ENV]["bundle"] = "digits 0"
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(scores), encoding="utf-8")
    with pytest.raises(ValueError, match="on the bundle digits 0, but it runs on digits"):
        Grader(ENV, file)

"""Reference scores are what the environments pay, and what thresholds and pages say."""

import json
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import close

from benchmarks import scores
from ral_env import bundle, reference
from ral_env.envs.vector import LatentCanvasVectorEnv
from ral_env.nets import joint
from ral_env.tasks import TASKS


@pytest.fixture
def measured(tiny_two_codes):
    made = bundle.load(tiny_two_codes)
    return made, scores.Scores(made, 5).rows()


def test_a_return_is_what_the_environment_pays_on_average(measured):
    made, rows = measured
    env = LatentCanvasVectorEnv(5, made, autoreset_mode="disabled")
    for label, codes in [
        (reference.REAL, made.split("test")),
        ("real, training split", made.split("train")[:5]),
    ]:
        env.reset()
        paid = env.complete(codes.astype(np.int64))[1]
        assert rows[label]["return"] == close(paid.mean())
    assert list(rows) == [reference.REAL, "real, training split", "random codes", "MLE prior"]


def test_the_priors_row_is_of_its_samples_and_of_held_out_canvases(measured):
    made, rows = measured
    empty = [torch.full((5, *level), 16) for level in made.layout.levels]
    grids = joint.sample(made.priors, empty, generator=torch.Generator().manual_seed(0))
    row = rows["MLE prior"]
    assert row["entropy"] == close(-joint.total_log_prob(made.priors, grids).mean().item(), 1000)
    test = made.layout.as_grids(made.split("test"))
    nll = -joint.total_log_prob(made.priors, test).mean().item()
    assert row["forward_nll"] == close(nll, 1000)
    oracle = -joint.total_log_prob(made.oracles, grids).mean().item()
    assert row["nll_oracle"] == close(oracle, 1000)
    assert "fd" not in row and "precision" not in row, "5 canvases say nothing of distances"


def test_tuned_policies_have_a_row_of_their_own(tiny_two_codes):
    made = bundle.load(tiny_two_codes)
    rows = scores.Scores(made, 5).rows(made.priors)
    assert rows["RAL"] == rows["MLE prior"]


def test_large_images_have_fewer_canvases():
    faces = bundle.load("faces32")
    assert scores.canvases(faces) == 1000


def test_one_id_is_replaced_in_the_file_and_the_others_stay(tmp_path, monkeypatch, capsys):
    file = tmp_path / "scores.json"
    found = {"bundle": "b", "dataset": "d", "count": 1, "rows": {reference.REAL: {"return": 0.25}}}
    monkeypatch.setattr(scores, "measure", lambda env, *_: found | {"command": env})
    first, second = list(TASKS)[:2]
    scores.main([second, "--out", str(file)])
    found["rows"] = {reference.REAL: {"return": 0.5}}
    scores.main([first, "--out", str(file)])
    stored = json.loads(file.read_text())
    assert list(stored) == [first, second], "in the order of the table of ids"
    assert [reference.reward_threshold(stored[env]) for env in stored] == [0.5, 0.25]
    assert f"{first}, on b (d), 1 canvases" in capsys.readouterr().out


def test_ids_on_one_bundle_are_measured_once(tmp_path, monkeypatch):
    begun, rows = [], {reference.REAL: {"return": 0.25}}

    def begin(bundle, *_):
        begun.append(bundle.edition)
        return SimpleNamespace(rows=lambda policies: rows)

    monkeypatch.setattr(scores, "Scores", begin)
    file = tmp_path / "scores.json"
    scores.main(["RALCelebA128-v0", "RALFaces32-v0", "RALBedroom128-v0", "--out", str(file)])
    stored = json.loads(file.read_text())
    assert len(stored) == 3 and len(begun) == 2 == len(set(begun))
    assert stored["RALCelebA128-v0"]["bundle"] == stored["RALBedroom128-v0"]["bundle"]
    assert stored["RALBedroom128-v0"]["command"].startswith("ral bench scores RALBedroom128-v0")


def test_what_was_measured_on_earlier_editions_stays_in_the_file(tmp_path, monkeypatch):
    file = tmp_path / "scores.json"
    env = next(iter(TASKS))
    for edition, paid in (("b 1", 0.5), ("b 1", 0.25), ("b 2", 0.75), ("b 3", 1.0)):
        rows = {label: {"return": paid} for label in (reference.REAL, "random codes")}
        found = {"bundle": edition, "dataset": "d", "command": "", "count": 1, "rows": rows}
        monkeypatch.setattr(scores, "measure", lambda *_, found=found: found)
        scores.main([env, "--out", str(file)])
    stored = json.loads(file.read_text())[env]
    assert stored["bundle"] == "b 3" and stored["rows"][reference.REAL]["return"] == 1.0
    assert stored["earlier"] == [
        {"bundle": edition, "count": 1, "rows": {reference.REAL: {"return": paid}}}
        for edition, paid in (("b 1", 0.25), ("b 2", 0.75))
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["RALNoSuch-v0"], "expected ids of"),
        (["--tuned", "x"], "name one"),
        (["--count", "0"], "count=0"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, error, tmp_path):
    with pytest.raises(ValueError, match=error):
        scores.main([*words, "--out", str(tmp_path / "scores.json")])


@pytest.mark.parametrize("env", TASKS)
def test_an_ids_threshold_is_the_return_of_real_canvases(env):
    measured = reference.scores()[env]
    threshold = gym.spec(env).reward_threshold
    paid = measured["rows"][reference.REAL]["return"]
    assert threshold is not None and abs(threshold - paid) <= 5e-4
    assert paid > measured["rows"]["MLE prior"]["return"], "the discriminator tells them apart"
    assert measured["command"].startswith(f"ral bench scores {env} --count {measured['count']}")


def test_what_is_not_measured_has_no_threshold():
    assert gym.spec("RALBundle-v0").reward_threshold is None
    assert reference.reward_threshold(None) is None

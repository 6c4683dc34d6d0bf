"""A run's folder: checked before anything is written, exact when it goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from agents.training import run_folder
from agents.training.run_folder import Figures, RunFolder, differences
from agents.training.timings import Timings
from ral_env import bundle as bundles

CONFIG = {"seed": 1, "betas": (0.5, 0.9), "discriminator": {"loss": "hinge", "r1": 0.0}}


def opened(folder: Path | None, config=CONFIG, **changes) -> RunFolder:
    settings: dict[str, Any] = {"kind": "reinforce"} | changes
    return RunFolder(folder, config, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def test_a_new_run_writes_what_was_asked_for(tmp_path):
    opened(tmp_path / "a" / "run", notes={"versions": {"torch": "2"}})
    stored = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert stored == json.loads(json.dumps(CONFIG)) | {"versions": {"torch": "2"}}


@pytest.mark.parametrize(
    ("config", "resume", "message"),
    [
        (CONFIG, False, "holds a run: go on with it .--resume., choose another folder .--out."),
        (CONFIG | {"seed": 2}, True, "something else .seed: 1 then, 2 now.: ask for the same"),
        (CONFIG | {"betas": (0.5, 0.8)}, None, r"something else .betas.1: 0.9 then, 0.8 now"),
        (
            CONFIG | {"discriminator": {"loss": "logistic", "r1": 0.0}},
            True,
            "discriminator.loss: 'hinge' then, 'logistic' now",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, config, resume, message):
    opened(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "run", config, resume=resume)
    assert contents(tmp_path) == before


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(ValueError, match="holds no run to resume: check --work"):
        opened(tmp_path / "run", resume=True, option="--work")
    assert not (tmp_path / "run").exists()
    opened(tmp_path / "run", resume=None)
    opened(tmp_path / "run", resume=None)  # goes on


def test_free_settings_may_change_and_are_written(tmp_path):
    opened(tmp_path / "run", CONFIG | {"device": "cpu"})
    run = opened(tmp_path / "run", CONFIG | {"device": "cuda"}, resume=True, free=("device",))
    config = tmp_path / "run" / "config.json"
    assert json.loads(config.read_text())["device"] == "cpu", "the run may still be refused"
    run.write_config()
    assert json.loads(config.read_text())["device"] == "cuda"


def test_a_config_that_is_none_is_named(tmp_path):
    (tmp_path / "config.json").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"config.json is no config of a run"):
        opened(tmp_path, resume=None)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = opened(None)
    assert not run.writes and run.checkpoint({}, {}) is None
    assert not list(tmp_path.iterdir())


def test_rows_are_appended_and_rewritten_when_columns_come(tmp_path):
    figures = Figures(tmp_path / "progress.csv", tmp_path)
    figures.add({"iteration": 1, "loss": 0.5})
    first = (tmp_path / "progress.csv").stat().st_ino
    figures.add({"iteration": 2, "loss": 0.25})
    assert (tmp_path / "progress.csv").stat().st_ino == first, "appended, not written anew"
    figures.add({"iteration": 3, "loss": 0.1, "nll": 7.0})
    figures.add({"iteration": 4, "loss": 0.1})
    figures.close()
    assert table(tmp_path / "progress.csv") == [
        {"iteration": "1", "loss": "0.5", "nll": ""},
        {"iteration": "2", "loss": "0.25", "nll": ""},
        {"iteration": "3", "loss": "0.1", "nll": "7.0"},
        {"iteration": "4", "loss": "0.1", "nll": ""},
    ]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_pictures_are_saved_as_they_are(tmp_path):
    run = opened(tmp_path / "run")
    sheet = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    run.picture("samples.png", "samples", sheet, run.figures(), step=3)
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "run" / "samples.png")), sheet)


def test_a_short_stage_is_made_once(tmp_path):
    run, calls = opened(tmp_path / "run"), []

    def make():
        calls.append(1)
        return {"weights": torch.arange(3), "figure": 0.5}

    first, second = run.once("stage", make), run.once("stage", make)
    assert len(calls) == 1 and second["figure"] == first["figure"] == 0.5
    assert torch.equal(second["weights"], torch.arange(3))


def test_a_finished_run_leaves_results_and_a_bundle(tmp_path, tiny_codes, capsys):
    made, run = bundles.load(tiny_codes), opened(tmp_path / "run")
    net = nn.ModuleList([made.discriminator])[0]
    run.finish(
        made, made.priors, {"algo": "none", "seed": 3, "fd": 1.5},
        discriminator=net, discriminator_input="codes", reward_scale=0.25,
    )  # fmt: skip
    (row,) = table(tmp_path / "run" / "metrics.csv")
    assert row["algo"] == "none" and row["fd"] == "1.5" and row["dataset"] == made.dataset
    assert (
        row["bundle"] == made.edition and f"by bundle {made.edition}\n" in capsys.readouterr().out
    )
    left = bundles.load(tmp_path / "run" / "bundle")
    assert left.reward_scale == 0.25 and left.recipe["fine_tuned_from"] == made.recipe
    assert left.recipe["seed"] == 1, "of the run's config"
    for a, b in zip(left.priors[0].parameters(), made.priors[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_of_the_policies_on_the_way_a_run_keeps_some_from_the_first_to_the_last(
    tmp_path, tiny_two_codes, monkeypatch
):
    monkeypatch.setattr(run_folder, "KEPT_POLICIES", 4)
    nets, run = bundles.load(tiny_two_codes).priors, opened(tmp_path / "run")
    for step in range(10, 100, 10):
        run.keep_policies(nets, step)
        kept = sorted((tmp_path / "run").glob("policy-*.safetensors"))
        steps = [int(file.stem.removeprefix("policy-")) for file in kept]
        assert len(steps) <= 4 and steps[-1] == step
    assert steps == [10, 70, 90]
    stored = load_file(kept[-1])
    for name, value in torch.nn.ModuleList(nets).state_dict().items():
        assert torch.equal(stored[name], value.half())
    opened(None).keep_policies(nets, 1)  # nowhere to write: nothing is written


def test_a_policy_that_is_no_prior_leaves_results_alone(tmp_path, tiny_codes):
    made, run = bundles.load(tiny_codes), opened(tmp_path / "run")
    run.finish(
        made, [], {"algo": "none", "seed": 3},
        discriminator=made.discriminator, discriminator_input="codes", reward_scale=0.25,
    )  # fmt: skip
    left = {file.name for file in (tmp_path / "run").iterdir()}
    assert left == {".lock", "config.json", "metrics.csv"}


def test_differences_are_told_by_their_path():
    was = {"a": 1, "b": {"c": [1, 2]}, "d": 3}
    now = {"a": 1, "b": {"c": [1, 5]}, "e": 4}
    assert differences(was, now) == [
        "b.c.1: 2 then, 5 now", "d: 3 then, None now", "e: None then, 4 now",
    ]  # fmt: skip
    assert differences(was, was) == []


def test_timings_count_parts_by_the_clock_they_are_given():
    now = [10.0]
    timings = Timings(lambda: now[0], before=5.0)
    for seconds in (1.0, 2.0):
        with timings("sampling"):
            now[0] += seconds
    now[0] += 4
    assert timings.elapsed == 5 + 7
    assert timings.take() == {"seconds_sampling": 3.0} and timings.take() == {}


def test_a_fingerprint_stands_for_how_a_path_is_spelt(tmp_path):
    """Where both runs have one: else the path is all that there is to compare."""
    same = {"stands_for": {"bundle": "bundle_digest"}, "resume": True}
    asked = CONFIG | {"bundle": "mine", "bundle_digest": "1a"}
    opened(tmp_path / "run", asked).close()
    opened(tmp_path / "run", asked | {"bundle": "./mine"}, **same).close()
    with pytest.raises(ValueError, match="bundle_digest: '1a' then, '2b' now"):
        opened(tmp_path / "run", asked | {"bundle_digest": "2b"}, **same)
    opened(tmp_path / "early", CONFIG | {"bundle": "mine"}).close()
    opened(tmp_path / "early", asked, **same).close()
    with pytest.raises(ValueError, match="bundle: 'mine' then, './mine' now"):
        opened(tmp_path / "early", asked | {"bundle": "./mine"}, **same)

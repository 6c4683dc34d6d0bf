"""What a name stands for: ids, bundles, and runs with the policies that they have kept."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from run_folders import keep, make

from ral_env import bundle
from ral_env.viewer import sources
from ral_env.viewer.answers import answer
from ral_env.viewer.sources import Library


@pytest.fixture
def run(tiny_two: Path, tmp_path: Path) -> Path:
    """A run, below a folder of runs."""
    return make(tmp_path / "runs" / "mine", tiny_two)


def test_a_run_has_its_prior_its_steps_and_its_end(run, tiny_two):
    source = Library(run.parent).open(str(run))
    made = bundle.load(tiny_two)
    assert list(source.policies()) == ["mle", "step-1", "step-50", "step-150"]
    for name, shift in (("mle", 0.0), ("step-50", 0.05)):
        pairs = zip(source.nets(name), made.priors, strict=True)
        for ours, theirs in ((a, b) for net, prior in pairs for a, b in zip(
            net.parameters(), prior.parameters(), strict=True
        )):  # fmt: skip
            assert torch.allclose(ours, theirs + shift, atol=2e-3)  # 16 bits
    # A run goes on while it is looked at.
    keep(run, 200, 0.2, made)
    tuned = dataclasses.replace(made, priors=tuple(source.nets("step-150")))
    bundle.save(run / "bundle", tuned, metrics={})
    assert list(source.policies())[-2:] == ["step-200", "final"]
    for net, kept in zip(source.nets("final"), source.nets("step-150"), strict=True):
        for ours, theirs in zip(net.parameters(), kept.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_a_policy_of_another_net_is_refused_by_name(run, tiny):
    keep(run, 300, 0, bundle.load(tiny))
    source = Library(run.parent).open(str(run))
    with pytest.raises(ValueError, match=r"policy-0000300.safetensors does not fit the priors"):
        source.nets("step-300")


def test_a_fine_tuned_bundle_stands_beside_the_prior_that_it_began_with():
    source = Library(Path("nowhere")).open("mnist-ral")
    assert source.policies() == {"mle": "MLE prior", "policy": "RAL policy"}
    for policy, name in (("mle", "mnist"), ("policy", "mnist-ral")):
        (net,), (its,) = source.nets(policy), bundle.load(name).priors
        for ours, theirs in zip(net.parameters(), its.parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "changed",
    [
        {"bundle_digest": "0" * 64}, {"bundle_digest": None}, {"bundle": "nowhere/at/all"},
        {"bundle": "hub:owner/name@main"}, {"bundle": 5}, {"env": ["RALMNIST-v0"]},
    ],
)  # fmt: skip
def test_where_that_prior_is_not_here_the_fine_tuned_one_says_what_it_is(changed, tmp_path):
    made = bundle.load("mnist-ral")
    bundle.save(tmp_path / "b", dataclasses.replace(made, recipe=made.recipe | changed), metrics={})
    source = Library(tmp_path).open(str(tmp_path / "b"))
    assert source.policies() == {"mle": "Fine-tuned prior"}
    assert source.mle is source.bundle.priors


def test_curves_are_the_figures_of_the_run(run):
    library = Library(run.parent)
    columns = answer(library, "curves", {"source": str(run)})["columns"]  # type: ignore[index]
    assert columns == {"iteration": [1, 2], "reward": [-0.5, 0.25], "auc": [None, None]}
    assert json.dumps(columns, allow_nan=False)
    assert answer(library, "curves", {"source": "digits"}) == {"columns": {}}


def test_runs_and_bundles_below_the_folder_are_offered(run, tiny):
    (run.parent / "set" / "of").mkdir(parents=True)
    os.symlink(tiny, run.parent / "set" / "of" / "images")
    bundle.save(run / "bundle", bundle.load(tiny), metrics={})  # a run's own is offered as the run
    offered = Library(run.parent, [str(tiny)]).offered()
    assert [each["name"] for each in offered["runs"]] == [str(run)]
    named = [each["name"] for each in offered["bundles"]]
    assert named[-2:] == [str(tiny), str(run.parent / "set" / "of" / "images")]
    assert "faces32" in named and "RALDigits-v0" in [e["name"] for e in offered["environments"]]


def test_nothing_outside_is_opened_unless_it_was_given(run, tiny):
    for name in (str(tiny), f"{run.parent}/../../{tiny}", "/etc/passwd", ".."):
        with pytest.raises(ValueError, match="neither an id"):
            Library(run.parent).open(name)
    assert Library(run.parent, [str(tiny)]).open(str(tiny)).bundle.dataset == "noise"


def test_an_id_on_a_stand_in_says_so():
    source = Library(Path("nowhere")).open("RALCelebA64-v0")
    assert "stand-in 'faces64'" in source.note and source.bundle.image_size == 64


def test_a_source_is_read_anew_when_its_files_change(run, tiny_two, tiny, tmp_path):
    path = tmp_path / "runs" / "b"
    bundle.save(path, bundle.load(tiny), metrics={})
    library = Library(run.parent)
    first = library.open(str(path))
    assert library.open(str(path)) is first
    bundle.save(path, bundle.load(tiny_two), metrics={})
    assert len(library.open(str(path)).layout.levels) == 2


def test_few_sources_are_kept(monkeypatch):
    monkeypatch.setattr(sources, "KEPT", 2)
    library = Library(Path("nowhere"))
    digits = library.open("digits")
    library.open("oracle")
    assert library.open("digits") is digits
    library.open("faces32")
    assert library.open("digits") is digits and len(library._open) == 2


def test_a_run_of_pretraining_is_its_bundle(tmp_path, tiny):
    folder = tmp_path / "pretrained"
    folder.mkdir()
    (folder / "config.json").write_text('{"name": "small32"}')
    with pytest.raises(ValueError, match="has made no bundle yet"):
        Library(tmp_path).open(str(folder))
    bundle.save(folder / "bundle", bundle.load(tiny), metrics={})
    assert list(Library(tmp_path).open(str(folder)).policies()) == ["mle"]

"""The one-file baselines do what the package does, and leave what they say."""

import dataclasses
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

from agents import reinforce
from ral_env import bundle

BASELINES = Path(__file__).parents[1] / "docs" / "baselines"


@pytest.fixture(scope="module")
def one_file():
    return runpy.run_path(str(BASELINES / "reinforce.py"), run_name="one_file")


def test_the_first_iterations_are_those_of_the_loop(one_file):
    args = one_file["Args"](iterations=3, canvases=8, discriminator_warmup=4)
    mine, rows = one_file["train"](args, log=lambda line: None)
    config = dataclasses.replace(
        reinforce.fit_preset("small", bundle.load("digits"), "codes"),
        env=args.env, iterations=3, canvases=8, discriminator_warmup=4, gate_auc=0.0,
    )  # fmt: skip
    found = reinforce.train(config, progress=False)
    for name in ("reward", "entropy", "nats_per_code", "cross_entropy", "r1"):
        expected = [row[name] for row in found.history]
        assert [row[name] for row in rows] == pytest.approx(expected, rel=1e-4), name
    before = torch.nn.utils.parameters_to_vector(bundle.load("digits").priors[0].parameters())
    ours, theirs = (
        torch.nn.utils.parameters_to_vector(nets[0].parameters()) - before
        for nets in (mine, found.policies)
    )
    # Adam's first steps are near the sign of a gradient: rounding may turn those that are near 0.
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_the_command_leaves_samples_and_the_policy(one_file, tmp_path, capsys):
    options = "--iterations 1 --canvases 4 --discriminator_warmup 1 --out"
    one_file["main"]([*options.split(), str(tmp_path)])
    assert "fd: prior" in capsys.readouterr().out
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size[0] > 8 * 32
    stored = torch.load(tmp_path / "policy.pt", weights_only=True)
    assert set(stored) == {f"0.{name}" for name in bundle.load("digits").priors[0].state_dict()}


def test_it_is_one_short_file():
    assert len((BASELINES / "reinforce.py").read_text().splitlines()) <= 300

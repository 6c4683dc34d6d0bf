"""``ral evaluate``: figures against hand counts, and what may be compared."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import close

from agents.evaluation import metrics
from agents.evaluation.evaluator import Judge, diversity, results
from ral_env import bundle, cli
from ral_env.nets import joint


def test_diversity_by_hand():
    a = torch.tensor([[[0, 0]], [[0, 1]], [[1, 1]]])  # neighbours differ in 1, 1 and 2 of 2 cells
    assert diversity([a]) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert diversity([a[:1].expand(4, 1, 2)]) == 0


def test_real_codes_are_judged_near_and_diverse_noise_far():
    made = bundle.load("digits")
    judge = Judge(made)
    train = [grid[:300] for grid in made.layout.as_grids(made.split("train"))]
    noise = [torch.randint(made.layout.num_codes, grid.shape) for grid in train]
    real, fake = judge.written(train), judge.written(noise)
    assert real["fd"] < fake["fd"] / 5
    assert real["precision"] > 0.7 > fake["precision"] and real["recall"] > fake["recall"]
    assert real["score"] > fake["score"] and fake["diversity"] > real["diversity"]


def test_a_priors_figures_are_those_of_its_samples():
    made = bundle.load("oracle")
    row = Judge(made).policy(made.priors, count=60, seed=4)
    generator = torch.Generator().manual_seed(4)
    empty = [torch.full((60, *level), made.layout.empty) for level in made.layout.levels]
    grids = joint.sample(made.priors, empty, generator=generator)
    entropy = -joint.total_log_prob(made.priors, grids).mean().item()
    nll = -joint.total_log_prob(made.oracles, grids).mean().item()
    test = made.layout.as_grids(made.split("test"))
    assert row["entropy"] == close(entropy) and row["nll_oracle"] == close(nll)
    assert row["reverse_kl"] == close(nll - entropy, nll)
    assert row["test_nats"] == close(-joint.total_log_prob(made.priors, test).mean().item())
    images = [made.vqvae.decode([grid]) for grid in (test[0], grids[0])]
    features = [made.features.features(image).detach() for image in images]
    assert row["fd"] == pytest.approx(metrics.frechet_distance(*features), rel=1e-4)


def test_results_set_a_policy_beside_the_prior():
    made = bundle.load("digits")
    row = results(made, made.priors, count=40)
    assert {name for name in row if name.startswith("prior_")} == {
        f"prior_{name}" for name in row if not name.startswith("prior_")
    }
    assert all(row[name] == row[f"prior_{name}"] for name in row if f"prior_{name}" in row)
    grids = made.layout.as_grids(made.split("validation"))
    judged = results(made, [], count=40, grids=grids)
    assert "entropy" not in judged and "prior_entropy" in judged and judged["fd"] > 0


def test_bundles_of_one_vqvae_are_rows_of_one_table(tmp_path, capsys):
    out = tmp_path / "made" / "figures.json"
    assert cli.main(["evaluate", "RALDigits-v0", "digits", "--count", "40", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split("|")[2:] == lines[-2].split("|")[2:], "one bundle by two names"
    rows = json.loads(out.read_text())["rows"]
    assert list(rows)[1:] == ["RALDigits-v0", "digits"] and rows["digits"]["fd"] > 0


def test_bundles_of_other_codes_are_not_compared(capsys):
    assert cli.main(["evaluate", "digits", "faces32"]) == 1
    assert "another VQ-VAE" in capsys.readouterr().err
    assert cli.main(["evaluate", "digits", "--count", "1"]) == 1
    assert cli.main(["evaluate", "nowhere"]) == 1
    assert "no bundle 'nowhere'" in capsys.readouterr().err

"""The evaluator: its figures against hand counts and against nets that are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import FLOAT32, close

from agents.evaluation import metrics
from agents.evaluation.evaluator import (
    BatchSizes,
    Evaluator,
    TemperedPrior,
    nearer_in_all,
    results,
)  # fmt: skip
from ral_env import bundle
from ral_env.nets import FeatureNet, FeatureNetConfig, joint

NATS = {"forward_nll", "entropy", "nll_oracle", "reverse_kl", "forward_kl"}


def test_real_codes_are_near_and_noise_is_far_and_diverse():
    made = bundle.load("digits")
    evaluator = Evaluator(made)
    train = [grid[:300] for grid in made.layout.as_grids(made.split("train"))]
    noise = [torch.randint(made.layout.num_codes, grid.shape) for grid in train]
    real, fake = (evaluator.evaluate_canvases(grids).figures for grids in (train, noise))
    assert real["fd"] < fake["fd"] / 5
    assert real["precision"] > 0.7 > fake["precision"] and real["recall"] > fake["recall"]
    assert real["coverage"] > 0.9 > 0.5 > fake["coverage"]
    assert 0.7 < real["density"] < 1.3 and fake["density"] < 0.5
    assert real["score"] > fake["score"] and fake["diversity"] > real["diversity"]


def test_stored_features_stand_in_for_test_codes_that_a_bundle_does_not_have():
    made = bundle.load("digits")
    assert made.features is not None
    whole = Evaluator(made).held_out_features["labels"]
    assert len(whole) == 300
    of = "all test canvases, their codes decoded"
    stored = {"labels": bundle.StoredFeatures(whole.numpy().astype(np.float16), of)}
    start, _ = made.splits["test"]
    splits = dict(made.splits) | {"test": (start, start + 20)}
    fewer = Evaluator(dataclasses.replace(made, splits=splits, test_features=stored))
    assert (fewer.held_out_count, len(fewer.held_out[0])) == (300, 20)
    train = [grid[:300] for grid in made.layout.as_grids(made.split("train"))]
    figures = fewer.evaluate_canvases(train).figures
    assert figures["fd"] == pytest.approx(
        Evaluator(made).evaluate_canvases(train).figures["fd"], rel=1e-2
    )
    # As many codes as features: nothing was left out, and they are what is compared.
    both = Evaluator(dataclasses.replace(made, test_features=stored))
    assert both.held_out_count == 300 and torch.equal(both.held_out_features["labels"], whole)
    # They are of test canvases.
    tuning = Evaluator(dataclasses.replace(made, test_features=stored), split="validation")
    assert tuning.held_out_count == len(tuning.held_out_features["labels"]) == 297


def test_a_priors_figures_are_those_of_its_samples():
    made = bundle.load("oracle")
    row = Evaluator(made).evaluate_prior(TemperedPrior(made.priors), count=60, seed=4).figures
    generator = torch.Generator().manual_seed(4)
    empty = [torch.full((60, *level), made.layout.empty) for level in made.layout.levels]
    grids = joint.sample(made.priors, empty, generator=generator)
    entropy = -joint.total_log_prob(made.priors, grids).mean().item()
    nll = -joint.total_log_prob(made.oracles, grids).mean().item()
    test = made.layout.as_grids(made.split("test"))
    forward = -joint.total_log_prob(made.priors, test).mean().item()
    assert row["entropy"] == close(entropy) and row["nll_oracle"] == close(nll)
    assert row["reverse_kl"] == close(nll - entropy, nll)
    assert row["forward_nll"] == close(forward)
    oracle_entropy = -joint.total_log_prob(made.oracles, test).mean().item()
    assert row["forward_kl"] == close(forward - oracle_entropy, forward)
    assert row["diversity"] == metrics.diversity(grids[0].flatten(1))
    assert made.features is not None
    images = [made.vqvae.decode([grid]) for grid in (test[0], grids[0])]
    features = [made.features.features(image).detach() for image in images]
    assert row["fd"] == pytest.approx(metrics.frechet_distance(*features), rel=1e-4)


def test_an_oracle_is_its_own_truth(tiny):
    """KL of the oracle to itself is 0 both ways, and a cooled one is wrong both ways."""
    made = bundle.load(tiny)
    evaluator = Evaluator(made)
    itself, cooled = (
        evaluator.evaluate_prior(TemperedPrior(made.oracles, t), 60).figures for t in (1.0, 0.5)
    )
    assert itself["reverse_kl"] == itself["forward_kl"] == 0
    assert cooled["reverse_kl"] > 0.1 < cooled["forward_kl"]
    assert cooled["entropy"] < itself["entropy"]
    assert itself["entropy"] == evaluator.entropy(TemperedPrior(made.oracles), 60, 0)


def test_a_tempered_prior_is_the_softmax_of_its_scaled_logits(tiny):
    prior = bundle.load(tiny).priors[0]
    codes = torch.randint(16, (5, 8, 8), generator=torch.Generator().manual_seed(0))
    found = TemperedPrior([prior], 0.5).log_prob([codes])
    with torch.no_grad():
        shares = prior.logits(codes).double().softmax(-1) ** 2  # softmax(z / 0.5), unnormalised
        shares = shares / shares.sum(-1, keepdim=True)
        expected = shares.gather(-1, codes[..., None]).log().sum((1, 2, 3))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), **FLOAT32)


def test_only_the_noise_depends_on_the_sizes_of_batches(tiny_two):
    made = bundle.load(tiny_two)
    grids = made.layout.as_grids(made.split("train"))
    small, large = (
        Evaluator(made, BatchSizes(sample=7, decode=n, features=m)) for n, m in ((3, 6), (30, 30))
    )
    for name, value in small.evaluate_canvases(grids).figures.items():
        assert value == pytest.approx(large.evaluate_canvases(grids).figures[name], rel=1e-4)
    with pytest.raises(ValueError, match="decode=0"):
        BatchSizes(decode=0)


def test_the_difference_of_two_distances_has_an_interval_around_it():
    made = bundle.load("digits")
    evaluator = Evaluator(made)
    train = [grid[:200] for grid in made.layout.as_grids(made.split("train"))]
    noise = [torch.randint(made.layout.num_codes, grid.shape) for grid in train]
    real, fake = (evaluator.evaluate_canvases(grids) for grids in (train, noise))
    found = evaluator.fd_differences(real, fake)["fd"]
    assert found.value == pytest.approx(real.figures["fd"] - fake.figures["fd"])
    assert found.low < found.value < found.high < 0


def test_every_feature_net_has_its_distance():
    digits = bundle.load("digits")
    labels = digits.feature_nets["labels"]
    torch.manual_seed(0)
    other = FeatureNet(FeatureNetConfig(features=8, name="random weights")).eval()
    made = dataclasses.replace(digits, feature_nets={"labels": labels, "random": other})
    evaluator = Evaluator(made)
    train = [grid[:100] for grid in made.layout.as_grids(made.split("train"))]
    noise = [torch.randint(made.layout.num_codes, grid.shape) for grid in train]
    real, fake = (evaluator.evaluate_canvases(grids) for grids in (train, noise))
    images = [evaluator.images(grids) for grids in (evaluator.held_out, noise)]
    features = [other.features(image).detach() for image in images]
    assert fake.figures["fd_random"] == pytest.approx(metrics.frechet_distance(*features), 1e-4)
    alone = Evaluator(digits).evaluate_canvases(noise).figures
    assert {k: v for k, v in fake.figures.items() if k != "fd_random"} == alone
    differences = evaluator.fd_differences(real, fake)
    assert list(differences) == ["fd", "fd_random"]
    assert nearer_in_all(differences) == "nearer to real images in every feature space"


def test_figures_are_of_the_split_that_is_asked_for():
    made = bundle.load("digits")
    tuning = Evaluator(made, split=made.tuning_split)
    assert len(tuning.held_out[0]) == len(made.split("validation"))
    grids = made.layout.as_grids(made.split("validation"))
    assert tuning.evaluate_canvases(grids).figures["fd"] == pytest.approx(0, abs=1e-4)


def test_a_bundle_without_oracle_and_features_has_no_figures_of_them():
    made = dataclasses.replace(bundle.load("digits"), feature_nets={}, test_features={})
    evaluator = Evaluator(made)
    found = evaluator.evaluate_prior(TemperedPrior(made.priors), count=8)
    assert set(found.figures) == {"forward_nll", "entropy", "score", "diversity"}
    assert found.features == {}
    with pytest.raises(ValueError, match="no feature net"):
        evaluator.fd_differences(found, found)


def test_results_set_a_policy_beside_the_prior():
    made = bundle.load("digits")
    row = results(made, made.priors, count=40)
    assert {name for name in row if name.startswith("prior_")} == {
        f"prior_{name}" for name in row if not name.startswith("prior_")
    }
    assert all(row[name] == row[f"prior_{name}"] for name in row if f"prior_{name}" in row)
    grids = made.layout.as_grids(made.split("validation"))
    of_canvases = results(made, [], count=40, grids=grids)
    assert not NATS & set(of_canvases)
    assert "prior_entropy" in of_canvases and of_canvases["fd"] > 0

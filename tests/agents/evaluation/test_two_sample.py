"""The classifier two-sample test: what it gives where the best classifier's AUC is known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from agents.evaluation.evaluator import Evaluator, TemperedPrior
from agents.evaluation.two_sample import (
    TRAINING,
    ClassifierTraining,
    CodeTest,
    Sample,
    classifier_inputs,
    replace_codes,
    separate,
)
from ral_env import bundle


def quick(steps: int = 60, **options) -> ClassifierTraining:
    training = dataclasses.replace(TRAINING, steps=steps, validate_every=20, batch=64)
    settings = {"classifiers": 2, "hidden": 8, "dropout": 0.0, "shift": 0, "drop": 0.0} | options
    return ClassifierTraining(training=training, **settings)


def noise(seed: int, shift: float = 0.0, count: int = 600) -> Sample:
    """Gaussian images (N, 1, 4, 4), whose sixteen pixels have the mean ``shift``."""
    generator = torch.Generator().manual_seed(seed)
    train, held_out = torch.randn(2, count, 1, 4, 4, generator=generator) + shift
    return Sample(train, held_out)


def test_the_auc_is_that_of_the_best_classifier_of_two_gaussians():
    """The likelihood ratio's AUC is the normal distribution at |difference| / sqrt(2)."""
    shift = 0.25
    best = 0.5 * (1 + math.erf(shift * 4 / math.sqrt(2) / math.sqrt(2)))
    found = separate(noise(0), noise(1, -shift), quick(200))
    assert found.auc == pytest.approx(best, abs=0.04)
    assert found.deviation < 0.03


def test_samples_of_one_distribution_cannot_be_told_apart():
    found = separate(noise(0), noise(1), quick())
    assert found.auc == pytest.approx(0.5, abs=4 * math.sqrt(1 / (6 * 600)))


def test_the_result_depends_on_the_seed_alone_and_leaves_torchs_generator_alone():
    pair = noise(0, count=40), noise(1, 0.2, count=40)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = separate(*pair, quick(10), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert separate(*pair, quick(10), seed=3) == first
    assert separate(*pair, quick(10), seed=4) != first


def test_training_ends_with_its_seconds():
    ticks = iter(range(10**6))
    asked = []

    def clock() -> float:
        asked.append(next(ticks))
        return asked[-1]

    separate(noise(0, count=40), noise(1, count=40), quick(10**4, seconds=5), clock=clock)
    assert len(asked) < 50


def test_sides_of_other_sizes_are_cut_to_the_smaller():
    small, large = noise(0, count=40), noise(1, count=60)
    cut = Sample(large.train[:40], large.held_out[:40])
    assert separate(small, large, quick(5)) == separate(small, cut, quick(5))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: separate(noise(0, count=9), noise(1, count=9)), "9 reals"),
        (
            lambda: separate(noise(0), Sample(torch.zeros(20, 1, 5, 5), torch.zeros(9, 1, 5, 5))),
            "expected one shape",
        ),
        (lambda: ClassifierTraining(classifiers=1), "classifiers=1"),
        (lambda: ClassifierTraining(validation=0.0), "validation=0.0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_replaced_codes_are_others_and_as_many_as_said():
    codes = torch.randint(64, (500, 8, 8), generator=torch.Generator().manual_seed(0))
    (made,) = replace_codes([codes], 64, share=0.02)
    replaced = made != codes
    assert replaced.float().mean().item() == pytest.approx(0.02, abs=0.003)
    assert made.min() >= 0 and made.max() < 64
    assert len(made[replaced].unique()) > 60, "any other code"
    (all_of_them,) = replace_codes([codes], 64, share=1.0)
    assert (all_of_them != codes).all()


def test_classifiers_see_codebook_vectors_or_images_of_a_codec_without_them(tiny_two):
    made = bundle.load(tiny_two)
    grids = [grid[:3] for grid in made.layout.as_grids(made.split("test"))]
    dim = made.vqvae.config.code_dim
    assert classifier_inputs(made.vqvae, grids).shape == (3, 2 * dim, *grids[-1].shape[1:])

    class Decoder:
        decode = made.vqvae.decode

    images = classifier_inputs(Decoder(), grids, batch=2)
    assert images.shape == (3, 3, made.image_size, made.image_size)


def test_noise_is_told_from_real_codes_and_reals_are_not_told_from_reals():
    made = bundle.load("oracle")
    test = CodeTest(made, 400, quick(60, hidden=16))
    generator = torch.Generator().manual_seed(0)
    learnt, held_out = (
        [torch.randint(64, grids[0].shape, generator=generator)]
        for grids in (test.train, test.held_out)
    )
    assert test.of_samples(learnt, held_out).auc > 0.95
    floor = test.floor()
    assert floor.auc == pytest.approx(0.5, abs=4 * math.sqrt(1 / (6 * 1200)))
    assert set(floor.figures) == {"judge_auc", "judge_auc_deviation"}


@pytest.mark.expensive
def test_judges_see_the_digits_prior_at_least_as_well_as_a_discriminator_has():
    made = bundle.load("digits")
    evaluator = Evaluator(made)
    test = CodeTest(made, 1200, ClassifierTraining(classifiers=2))
    count, held_out = len(test.train[0]), len(test.held_out[0])
    samples = evaluator.sample(TemperedPrior(made.priors), count + held_out, 0)
    learnt, unseen = [g[:count] for g in samples], [g[count:] for g in samples]
    assert test.of_samples(learnt, unseen).auc > 0.8
    assert test.floor().auc == pytest.approx(0.5, abs=0.1)
    assert test.power().auc > test.floor().auc + 0.05

"""Metrics against closed forms, brute force and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agents.evaluation import metrics


def features(count: int, seed: int = 0, shift: float = 0.0, width: int = 6) -> np.ndarray:
    """Correlated Gaussian features."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return rng.normal(size=(count, width)) @ mixing + shift


# Fréchet distance


def test_frechet_distance_is_the_closed_form_for_gaussians_of_diagonal_covariance():
    x = np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])  # mean 0, covariance diag(2, 8) / 3
    y = x * [2, 3] + [5, -1]
    spread = (2 - 1) ** 2 * 2 / 3 + (3 - 1) ** 2 * 8 / 3
    assert metrics.frechet_distance(x, y) == pytest.approx(5**2 + 1 + spread)


def test_frechet_distance_agrees_with_scipy_and_torchmetrics():
    linalg = pytest.importorskip("scipy.linalg")
    fid = pytest.importorskip("torchmetrics.image.fid")
    torch = pytest.importorskip("torch")
    x, y = features(200, 0), features(300, 1, shift=0.5) * np.linspace(0.5, 2, 6)
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    cross = np.trace(linalg.sqrtm(cx @ cy)).real
    by_scipy = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * cross
    moments = [torch.from_numpy(m) for m in (x.mean(0), cx, y.mean(0), cy)]
    ours = metrics.frechet_distance(x, y)
    assert ours == pytest.approx(by_scipy, rel=1e-9)
    assert ours == pytest.approx(fid._compute_fid(*moments).item(), rel=1e-6)


def test_frechet_distance_is_symmetric_nonnegative_and_survives_fewer_rows_than_features():
    x, y = features(5, 0, width=20), features(7, 1, width=20)
    assert metrics.frechet_distance(x, y) == pytest.approx(metrics.frechet_distance(y, x), rel=1e-6)
    assert 0 <= metrics.frechet_distance(x, x) < 1e-4
    assert metrics.frechet_distance(x, y) > 1


# Kernel distances


def test_the_kernel_distance_is_torchmetrics_kid_of_all_rows():
    kid = pytest.importorskip("torchmetrics.image.kid")
    torch = pytest.importorskip("torch")
    x, y = features(50, 0), features(50, 1, shift=0.3)  # it wants as many of both
    theirs = kid.poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert metrics.kernel_distance(x, y) == pytest.approx(theirs, rel=1e-9)
    assert metrics.kernel_distance(x, x) < 0, "unbiased, so below 0 for the very same rows"


def test_the_clip_distance_is_the_definition():
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (features(8), features(9, 1)))

    def mean(u: np.ndarray, v: np.ndarray) -> float:
        return float(np.mean([[math.exp(-(math.dist(a, b) ** 2) / 200) for b in v] for a in u]))

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert metrics.clip_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert metrics.clip_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert metrics.clip_distance(x, x[:4]) > 0


# Bootstrap


def test_paired_bootstrap_reports_the_difference_and_its_sign():
    reference, near, far = features(300, 0), features(400, 1, 0.1), features(400, 2, 1.0)
    difference, low, high = metrics.paired_bootstrap(reference, near, far, draws=50)
    fd = metrics.frechet_distance
    assert difference == pytest.approx(fd(reference, near) - fd(reference, far))
    assert low < high < 0
    swapped = metrics.paired_bootstrap(reference, far, near, draws=50)
    assert swapped == pytest.approx((-difference, -high, -low))


def test_paired_bootstrap_of_a_generator_against_itself_is_exactly_zero():
    x, y = features(50), features(60, 1)
    assert metrics.paired_bootstrap(x, y, y, draws=5) == (0, 0, 0)


def test_paired_bootstrap_interval_is_as_wide_as_theory_says():
    rng = np.random.default_rng(0)
    reference, noise = rng.normal(size=(100, 1)), rng.normal(size=(300, 1))
    # Of equal spread, so FD(r, n + 3) - FD(r, n - 3) = 12 (mean(n) - mean(r)).
    _, low, high = metrics.paired_bootstrap(reference, noise + 3, noise - 3, draws=2000)
    deviation = 12 * math.sqrt(reference.var() / 100 + noise.var() / 300)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.06)


def test_paired_bootstrap_depends_on_the_seed_alone():
    data = features(50), features(60, 1), features(60, 2)
    assert metrics.paired_bootstrap(*data, draws=9) == metrics.paired_bootstrap(*data, draws=9)
    assert metrics.paired_bootstrap(*data, draws=9) != metrics.paired_bootstrap(
        *data, draws=9, seed=1
    )


# Precision and recall


def covered(manifold: np.ndarray, points: np.ndarray, k: int) -> float:
    """By the words of the definition, one point at a time."""
    radius = [sorted(math.dist(a, b) for b in manifold)[k] for a in manifold]
    hits = [
        any(math.dist(p, a) <= r for a, r in zip(manifold, radius, strict=True)) for p in points
    ]
    return sum(hits) / len(points)


def test_precision_recall_is_the_definition():
    real, fake = features(40, 0, width=2), features(40, 1, 0.5, width=2) * 0.5
    precision, recall = metrics.precision_recall(real, fake, k=3)
    assert precision == pytest.approx(covered(real, fake, 3))
    assert recall == pytest.approx(covered(fake, real, 3))
    assert 0 < recall < precision < 1


def test_a_generator_of_one_mode_has_precision_without_recall():
    modes = np.repeat([[0.0, 0], [50, 0]], 50, axis=0)
    noise = np.random.default_rng(0).normal(size=(2, 100, 2))
    precision, recall = metrics.precision_recall(modes + noise[0], modes[:50] + noise[1, :50])
    assert precision > 0.8
    assert 0.3 < recall < 0.6


def test_precision_recall_counts_equal_rows_as_covered_even_at_radius_zero():
    real = np.repeat(features(50) + 1000, 4, axis=0)  # far from 0, where rounding would show
    fake = np.random.default_rng(0).permutation(real)
    assert metrics.precision_recall(real, fake) == (1, 1)
    assert metrics.precision_recall(real, fake + 1e-6) == (0, 0)


def test_precision_recall_is_balanced_and_averages_the_draws():
    real, fake = features(30, 0), features(90, 1, 0.5)
    picks = [metrics.precision_recall(real, fake, draws=1, seed=s) for s in range(30)]
    assert len(set(picks)) > 1
    average = metrics.precision_recall(real, fake, draws=60)
    assert average == pytest.approx(np.mean(picks, axis=0), abs=0.05)


# Density and coverage


def test_density_and_coverage_are_the_definition():
    real, fake = features(40, 0, width=2), features(40, 1, 0.5, width=2) * 0.5
    radius = [sorted(math.dist(a, b) for b in real)[5] for a in real]
    holds = [[math.dist(a, p) <= r for p in fake] for a, r in zip(real, radius, strict=True)]
    density, coverage = metrics.density_coverage(real, fake, k=5)
    assert density == pytest.approx(sum(map(sum, holds)) / (5 * 40))
    assert coverage == pytest.approx(sum(map(any, holds)) / 40)
    assert 0 < coverage < density < 1


def test_two_samples_of_one_distribution_have_the_density_and_coverage_of_the_paper():
    """Naeem et al. 2020, lemmas 1 and 2."""
    found = [
        metrics.density_coverage(features(300, 2 * s), features(300, 2 * s + 1)) for s in range(20)
    ]
    density, coverage = np.mean(found, axis=0)
    n = 300
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, 6))
    assert density == pytest.approx(1, abs=0.03)
    assert coverage == pytest.approx(expected, abs=0.01)


def test_coverage_is_not_raised_by_outliers_as_recall_is():
    """Two fakes on the far side have neighbourhoods that reach over all that is real."""
    real, fake = features(100, 0), features(100, 1, shift=-100)
    assert metrics.precision_recall(real, fake) == (0, 0)
    fake[-2:] += 200
    assert metrics.precision_recall(real, fake)[1] == 1
    assert metrics.density_coverage(real, fake) == (0, 0)


def test_memberships_of_unequal_sets_add_up_to_the_mean_over_draws():
    real, fake = features(30, 0), features(90, 1, 0.5)
    found = metrics.neighbours(real, fake, k=3, draws=8)
    assert found.fakes_inside.drawn.sum() == found.reals_covered.drawn.sum() == 8 * 30
    assert (found.reals_covered.drawn == 8).all() and (found.fakes_inside.drawn <= 8).all()
    assert metrics.precision_recall(real, fake) == (
        found.fakes_inside.share,
        found.reals_inside.share,
    )
    rows = np.arange(90)
    assert found.fakes_inside.resampled_share(rows) == found.fakes_inside.share
    assert found.fakes_inside.resampled_share(np.repeat(rows, 2)) == pytest.approx(
        found.fakes_inside.share
    )


# Entropies and divergences


def test_divergences_are_those_of_known_distributions():
    g, oracle = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    rng = np.random.default_rng(0)
    of_g, of_oracle = rng.choice(3, 40_000, p=g), rng.choice(3, 40_000, p=oracle)
    pairs = [
        (metrics.entropy(np.log(g[of_g])), -(g * np.log(g)).sum()),
        (
            metrics.reverse_kl(np.log(g[of_g]), np.log(oracle[of_g])),
            (g * np.log(g / oracle)).sum(),
        ),
        (
            metrics.forward_kl(np.log(oracle[of_oracle]), np.log(g[of_oracle])),
            (oracle * np.log(oracle / g)).sum(),
        ),
    ]
    for estimate, exact in pairs:
        assert abs(estimate.value - exact) < 4 * estimate.error
        assert 0 < estimate.error < 0.01


def test_the_standard_error_is_the_deviation_over_root_n():
    assert metrics.entropy([-1.0, -3.0]) == metrics.Estimate(2.0, pytest.approx(1.0))  # type: ignore


# Temperature


def test_matching_temperature_finds_the_entropy_of_a_tempered_model():
    logits = np.random.default_rng(0).normal(size=16) * 2

    def entropy_at(temperature: float) -> float:
        p = np.exp(logits / temperature)
        p /= p.sum()
        return float(-(p * np.log(p)).sum())

    found = metrics.matching_temperature(entropy_at, entropy_at(0.83), steps=12)
    assert found == pytest.approx(0.83, abs=1 / 2**13)


def test_matching_temperature_refuses_a_target_out_of_reach():
    with pytest.raises(ValueError, match=r"outside .*widen"):
        metrics.matching_temperature(lambda t: t, 2.0)


# Intervals


@pytest.mark.parametrize("count", [2, 3, 5, 10, 11, 20, 100])
def test_interval_is_students(count: int):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(count).normal(3, 2, count)
    mean, half = metrics.interval(values)
    assert mean == pytest.approx(values.mean())
    assert half == pytest.approx(stats.sem(values) * stats.t.ppf(0.975, count - 1), rel=1e-4)


# Memorising


def test_nearest_distance_is_the_median_of_the_nearest_hamming_distances():
    rng = np.random.default_rng(0)
    train, fake = rng.integers(0, 4, (30, 12)), rng.integers(0, 4, (7, 12))
    nearest = [min(sum(a != b for a, b in zip(t, f, strict=True)) for t in train) for f in fake]
    assert metrics.nearest_distance(train, fake) == sorted(nearest)[3]
    assert metrics.nearest_distance(train, train[:5]) == 0
    assert metrics.nearest_distance(train.astype(np.uint16), train[:5] - 4) == 12


# Diversity


def test_diversity_is_the_share_of_pairs_that_differ_by_hand():
    canvases = np.array([[0, 0], [0, 1], [1, 1]])  # of 3 pairs 2 differ in each cell
    assert metrics.diversity(canvases) == pytest.approx(2 / 3)
    assert metrics.diversity(canvases[:1].repeat(4, 0)) == 0
    assert metrics.diversity([[5, 0], [6, 1]]) == 1


def test_diversity_counts_every_pair_of_canvases():
    canvases = np.random.default_rng(0).integers(0, 4, (9, 5))
    pairs = [(canvases[i] != canvases[j]).mean() for i in range(9) for j in range(i)]
    assert metrics.diversity(canvases) == pytest.approx(np.mean(pairs))


def test_diversity_compares_only_written_cells():
    canvases = np.array([[0, 9], [1, 9], [1, 3], [1, 3]])
    written = np.array([[True, False], [True, False], [False, True], [True, True]])
    # First cell: of 0, 1, 1 two pairs of three differ. Second: 3 and 3 are alike.
    assert metrics.diversity(canvases, written) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.diversity(canvases[1:3], written[1:3]) == 1, "no two have a cell in common"
    assert metrics.diversity(canvases[:1]) == 1


# Bad input

GOOD = features(10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.frechet_distance(GOOD[0], GOOD), r"x is \(6,\), expected features"),
        (lambda: metrics.frechet_distance(GOOD, GOOD[:, :5]), r"y is \(10, 5\).*\(N, 6\)"),
        (lambda: metrics.frechet_distance(GOOD, GOOD * np.nan), r"y\[0, 0\] is nan"),
        (lambda: metrics.paired_bootstrap(GOOD, GOOD, GOOD[:5]), "10 rows and b 5"),
        (lambda: metrics.paired_bootstrap(GOOD, GOOD, GOOD, draws=0), "draws=0"),
        (lambda: metrics.precision_recall(GOOD, GOOD[:3]), "k=3 with 3 rows"),
        (lambda: metrics.density_coverage(GOOD, GOOD[:5]), "k=5 with 5 rows"),
        (lambda: metrics.density_coverage(GOOD, GOOD[:8], draws=0), "draws=0"),
        (lambda: metrics.entropy([1.0]), r"log_g is \(1,\)"),
        (lambda: metrics.reverse_kl([1.0, 2], [1.0, 2, 3]), r"\(2,\) and log_oracle \(3,\)"),
        (lambda: metrics.forward_kl([1.0, 2], [1.0, -np.inf]), r"log_g\[1\] is -inf"),
        (lambda: metrics.interval([1.0]), "N >= 2"),
        (lambda: metrics.nearest_distance(GOOD, GOOD), "train is float64"),
        (lambda: metrics.nearest_distance([[1, 2]], [[1, 2, 3]]), "length 2 and fake 3"),
        (lambda: metrics.diversity(GOOD), "canvases is float64"),
        (lambda: metrics.diversity([[1, 2]], [[True]]), r"written is \(1, 1\).*\(1, 2\)"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

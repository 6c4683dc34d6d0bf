"""What is measured, as pure functions of features (N, F), log-probs (N,) or codes.

Log-probs are sums over a whole canvas, so entropies and divergences are in nats per canvas; divide
by ``layout.length`` for nats per code. Bad input (shape, too few rows, a NaN or an infinity) is a
``ValueError``.

The Fréchet distance is computed here and not by torchmetrics because that one wants an
``nn.Module`` and uint8 images and keeps only running sums: the bootstrap needs the features' rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over independent samples, and its standard error (standard deviation / sqrt(N))."""

    value: float
    error: float


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance of Gaussians fitted to features x (N, F) and y (M, F).

    ``|mx - my|^2 + tr(Cx) + tr(Cy) - 2 tr((Cx Cy)^(1/2))``, in squared feature units, at least 0;
    symmetric. Biased upward at small N and M: compare only distances at equal N and M.
    Source: Dowson and Landau 1982; FID (Heusel et al. 2017) is this on Inception features.
    """
    return _gaussian_distance(_moments(_features("x", x)), _moments(_features("y", y, like=x)))


def kernel_distance(x: ArrayLike, y: ArrayLike) -> float:
    """KID: unbiased squared maximum mean discrepancy of features x (N, F) and y (M, F).

    The kernel is ``(a . b / F + 1)^3``; about 0, and below it by chance, where both are of one
    distribution. It is that of all rows, not a mean over subsets: the expectation is the same.
    Source: Bińkowski et al. 2018, equations 3 and 4.
    """
    a, b = _features("x", x), _features("y", y, like=x)
    width = a.shape[1]
    within = []
    for z in (a, b):
        kernel = (z @ z.T / width + 1) ** 3
        within.append((kernel.sum() - np.trace(kernel)) / (len(z) * (len(z) - 1)))
    return float(sum(within) - 2 * ((a @ b.T / width + 1) ** 3).mean())


def clip_distance(x: ArrayLike, y: ArrayLike) -> float:
    """CMMD of embeddings of length 1, x (N, F) and y (M, F), at least 0.

    1000 times the squared maximum mean discrepancy, each row counted against itself too, with the
    kernel ``exp(-|a - b|^2 / (2 * 10^2))``. Source: Jayasumana et al. 2024, section 4.
    """
    a, b = _features("x", x), _features("y", y, like=x)

    def kernel(u: Array, v: Array) -> float:
        squared = (u**2).sum(1)[:, None] + (v**2).sum(1) - 2 * u @ v.T
        return float(np.exp(-squared / 200).mean())

    return 1000 * (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))


def paired_bootstrap(
    reference: ArrayLike, a: ArrayLike, b: ArrayLike, draws: int = 200, seed: int = 0
) -> tuple[float, float, float]:
    """``FD(reference, a) - FD(reference, b)`` and its 95 % percentile interval (low, high).

    Negative: a is nearer. Each draw resamples the reference's rows, which both distances then
    share, and the rows of a and b with the same indices. This tells sampling noise only, not how
    a retrained generator would vary. reference (R, F), a and b (N, F): FD is biased by N, so
    unequal N is an error. Source: Efron and Tibshirani 1993, chapter 13.
    """
    reference = _features("reference", reference)
    a, b = _features("a", a, like=reference), _features("b", b, like=reference)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} rows and b {len(b)}, expected as many: cut the longer")
    if draws < 1:
        raise ValueError(f"draws={draws}, expected at least 1")
    rng = np.random.default_rng(seed)

    def difference(rows: slice | NDArray, shared: slice | NDArray) -> float:
        real = _moments(reference[rows])
        near, far = (_gaussian_distance(real, _moments(x[shared])) for x in (a, b))
        return near - far

    resampled = [
        difference(
            rng.integers(len(reference), size=len(reference)), rng.integers(len(a), size=len(a))
        )
        for _ in range(draws)
    ]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return difference(slice(None), slice(None)), float(low), float(high)


@dataclass(frozen=True)
class Membership:
    """How often each row of a set lies inside the other set's neighbourhoods, over all draws.

    Attributes:
        inside: Number of draws in which each row lies inside, float64 (N,).
        drawn: Number of draws that hold the row, float64 (N,).
    """

    inside: Array
    drawn: Array

    @property
    def share(self) -> float:
        """The share of drawn rows that lie inside, 0 to 1: the mean over the draws."""
        return float(self.inside.sum() / self.drawn.sum())

    def resampled_share(self, rows: NDArray) -> float:
        """The same of rows that are drawn again, by their indices: for a bootstrap.

        ``rows`` must hold a row that some draw holds.
        """
        return float(self.inside[rows].sum() / self.drawn[rows].sum())


@dataclass(frozen=True)
class Neighbours:
    """Which rows of two sets of features lie inside each other's neighbourhoods.

    A row's neighbourhood reaches to its k-th nearest other row of its own set.

    Attributes:
        fakes_inside: Of each fake, whether it lies in a real row's neighbourhood: precision.
        reals_inside: Of each real row, whether it lies in a fake's neighbourhood: recall.
        reals_covered: Of each real row, whether its neighbourhood holds a fake: coverage.
        density: Mean number of real rows whose neighbourhood holds a fake, divided by k.
    """

    fakes_inside: Membership
    reals_inside: Membership
    reals_covered: Membership
    density: float


def neighbours(
    real: ArrayLike, fake: ArrayLike, k: int, draws: int = 8, seed: int = 0
) -> Neighbours:
    """The neighbourhoods that precision, recall, density and coverage count.

    All four depend on the number of rows, so each draw takes min(N, M) of both sets. Memory is
    quadratic in that number.

    Args:
        real: Features (N, F).
        fake: Features (M, F).
        k: Which nearest other row of its own set a row's neighbourhood reaches to.
        draws: Number of draws; one is enough, and is made, where N and M are equal.
        seed: Seed of the draws.
    """
    real = _features("real", real)
    fake = _features("fake", fake, like=real)
    count = min(len(real), len(fake))
    if not 1 <= k < count:
        raise ValueError(f"k={k} with {count} rows, expected 1 <= k < rows")
    if draws < 1:
        raise ValueError(f"draws={draws}, expected at least 1")
    rng = np.random.default_rng(seed)
    found = [(np.zeros(len(rows)), np.zeros(len(rows))) for rows in (fake, real, real)]
    densities = []
    for _ in range(draws if len(real) != len(fake) else 1):
        picked = [rng.permutation(len(rows))[:count] for rows in (real, fake)]
        x, y = (torch.from_numpy(rows[p]) for rows, p in zip((real, fake), picked, strict=True))
        apart = _distances(x, y)  # (real, fake)
        # The nearest row is the row itself, at 0: hence k + 1.
        x_radius, y_radius = (_distances(z, z).kthvalue(k + 1).values for z in (x, y))
        in_real, in_fake = apart <= x_radius[:, None], apart <= y_radius
        hits = (in_real.any(0), in_fake.any(1), in_real.any(1))
        of_set = (picked[1], picked[0], picked[0])
        for (inside, drawn), rows, hit in zip(found, of_set, hits, strict=True):
            inside[rows] += hit.numpy()
            drawn[rows] += 1
        densities.append(in_real.double().sum(0).mean().item() / k)
    return Neighbours(*(Membership(*pair) for pair in found), density=float(np.mean(densities)))


def precision_recall(
    real: ArrayLike, fake: ArrayLike, k: int = 3, draws: int = 8, seed: int = 0
) -> tuple[float, float]:
    """Improved precision and recall, each in [0, 1], of features real (N, F) and fake (M, F).

    Precision: the share of fakes within some real row's distance to its k-th nearest other real
    row. Recall: the same with the roles exchanged. See :func:`neighbours` for ``draws``.
    Source: Kynkäänniemi et al. 2019, equations 1 and 2.
    """
    found = neighbours(real, fake, k, draws, seed)
    return found.fakes_inside.share, found.reals_inside.share


def density_coverage(
    real: ArrayLike, fake: ArrayLike, k: int = 5, draws: int = 8, seed: int = 0
) -> tuple[float, float]:
    """Density and coverage of features real (N, F) and fake (M, F).

    Density: how many real rows have a fake within their distance to their k-th nearest other real
    row, divided by k; 1 where both are of one distribution, 0 where they are far apart, above 1
    where fakes crowd where real rows are dense. Coverage: the share of real rows that have a fake
    within that distance, in [0, 1]; 1 - 2^-k (.969) is expected where both are of one distribution
    and the sets are large. An outlier among the fakes makes no neighbourhood, so unlike recall
    coverage is not raised by it. See :func:`neighbours` for ``draws``.
    Source: Naeem et al. 2020, equations 3 and 4; k = 5 is theirs.
    """
    found = neighbours(real, fake, k, draws, seed)
    return found.density, found.reals_covered.share


def diversity(canvases: ArrayLike, written: ArrayLike | None = None) -> float:
    """Mean over cells of the share of pairs of canvases that differ there, 0 (all alike) to 1.

    A pair counts where both canvases have written the cell; a cell that fewer than two canvases
    have written is left out. 1 where no two canvases can be compared. Source: in each cell this is
    Simpson's index (Simpson 1949), the chance that two draws without replacement differ.

    Args:
        canvases: integers (N, length), codes from 0 on where they are written.
        written: bool (N, length), which cells count; all if not given.
    """
    canvases = _codes("canvases", canvases)
    written = np.ones(canvases.shape, bool) if written is None else np.asarray(written, bool)
    if written.shape != canvases.shape:
        raise ValueError(f"written is {written.shape}, expected that of canvases {canvases.shape}")
    length, num_codes = canvases.shape[1], int(canvases.max(initial=0, where=written)) + 1
    place = np.arange(length) * num_codes + canvases.astype(np.int64)
    counts = np.bincount(place[written], minlength=length * num_codes).reshape(length, num_codes)
    total = counts.sum(1)
    pairs, alike = total * (total - 1), (counts * (counts - 1)).sum(1)
    compared = pairs > 0
    if not compared.any():
        return 1.0
    return float((1 - alike[compared] / pairs[compared]).mean())


def entropy(log_g: ArrayLike) -> Estimate:
    """Entropy of a generator G, nats per canvas: ``E_G[-log G(c)]``, from log G of its own samples.

    log_g (N,), nats. Samples and log-probs must be those of the same temperature.
    """
    return _mean(-_samples("log_g", log_g))


def reverse_kl(log_g: ArrayLike, log_oracle: ArrayLike) -> Estimate:
    """``KL(G || oracle) = E_G[log G(c) - log oracle(c)]`` = nll_oracle - entropy, nats per canvas.

    Both (N,), of the same *generator's* samples. It is low for a G that drops modes: read it
    beside ``forward_kl``. Its first term alone, ``nll_oracle``, is the paper's equation 7, and
    falls by mere cooling.
    """
    return _mean_difference("log_g", log_g, "log_oracle", log_oracle)


def forward_kl(log_oracle: ArrayLike, log_g: ArrayLike) -> Estimate:
    """``KL(oracle || G) = E_oracle[log oracle(c) - log G(c)]``, nats per canvas.

    Both (N,), of the same samples of the *oracle*. It is what MLE lowers; high when modes are lost.
    """
    return _mean_difference("log_oracle", log_oracle, "log_g", log_g)


def divergences(
    log_g: ArrayLike, log_oracle: ArrayLike, real_log_g: ArrayLike, real_log_oracle: ArrayLike
) -> dict[str, Estimate]:
    """All that an oracle tells of a generator G, so that collapse cannot pass as progress.

    ``nll_oracle`` alone falls when G loses modes or is sampled cold; the reverse KL does not
    reward that, and the forward KL punishes it. All are exact but for the sampling error.

    Args:
        log_g, log_oracle: log-probs (N,) of G's own samples under G and under the oracle, in nats
            per canvas.
        real_log_g, real_log_oracle: the same of samples of the oracle, (M,).

    Returns:
        ``entropy`` of G, ``nll_oracle`` (paper Eq. 7), ``reverse_kl`` KL(G || oracle) =
        nll_oracle - entropy, ``forward_kl`` KL(oracle || G), and ``oracle_entropy``; nats per
        canvas.
    """
    return {
        "entropy": entropy(log_g),
        "nll_oracle": entropy(log_oracle),  # of G's samples: a cross-entropy
        "reverse_kl": reverse_kl(log_g, log_oracle),
        "forward_kl": forward_kl(real_log_oracle, real_log_g),
        "oracle_entropy": entropy(real_log_oracle),
    }


def matching_temperature(
    entropy_at: Callable[[float], float],
    target: float,
    low: float = 0.5,
    high: float = 1.5,
    steps: int = 8,
) -> float:
    """The sampling temperature in [low, high] at which a generator's entropy is ``target``.

    ``entropy_at(temperature)``: nats per canvas (any unit, if target has it too), increasing with
    temperature. It must sample *and* take log-probs at that temperature, i.e. ``E[-log G_T]``
    under G_T, the tempered model; use one seed for all temperatures, so that noise does not make
    it jump. Bisection: right to ``(high - low) / 2^(steps + 1)``, after ``steps + 2`` calls.
    ``ValueError`` when the target is not between the entropies at low and high.
    """
    least, most = entropy_at(low), entropy_at(high)
    if not least <= target <= most:
        raise ValueError(
            f"target entropy {target:.4g} is outside [{least:.4g}, {most:.4g}], the entropies at "
            f"temperatures {low} and {high}: widen low and high"
        )
    for _ in range(steps):
        middle = (low + high) / 2
        if entropy_at(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
T_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


def interval(values: ArrayLike) -> tuple[float, float]:
    """Mean over seeds and the half-width of its 95 % Student-t interval: ``mean ± half``.

    values (N,), N >= 2, one per independent run. Beyond the table, the expansion of the quantile
    in 1 / degrees of freedom (Abramowitz and Stegun 26.7.5), right to 2e-4 there.
    """
    estimate = _mean(_samples("values", values))
    freedom = np.size(values) - 1
    if freedom <= len(T_QUANTILES):
        quantile = T_QUANTILES[freedom - 1]
    else:
        quantile = 1.959964 + 2.372271 / freedom + 2.822502 / freedom**2 + 2.555850 / freedom**3
    return estimate.value, quantile * estimate.error


def nearest_distance(train: ArrayLike, fake: ArrayLike, quantile: float = 0.5) -> float:
    """Median over fakes of the Hamming distance to the nearest training canvas, in codes.

    train (N, length) and fake (M, length) integers. Near 0 the generator memorises; compare with
    the same figure for held-out canvases in the place of the fakes. A low ``quantile``, in [0, 1],
    in the median's place sees a small share of copies, too.
    """
    train, fake = _codes("train", train), _codes("fake", fake)
    if train.shape[1] != fake.shape[1]:
        raise ValueError(f"train has length {train.shape[1]} and fake {fake.shape[1]}")
    return float(np.quantile([(train != canvas).sum(1).min() for canvas in fake], quantile))


def _moments(x: Array) -> tuple[Array, Array]:
    """Mean (F,) and covariance (F, F)."""
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def _gaussian_distance(x: tuple[Array, Array], y: tuple[Array, Array]) -> float:
    (x_mean, x_cov), (y_mean, y_cov) = x, y
    # The eigenvalues of Cx Cy are the squared singular values of Cx^(1/2) Cy^(1/2): no square root
    # of an unsymmetric matrix, which is complex or fails when the covariances lack full rank.
    cross = np.linalg.svd(_root(x_cov) @ _root(y_cov), compute_uv=False).sum()
    squared = ((x_mean - y_mean) ** 2).sum() + np.trace(x_cov) + np.trace(y_cov) - 2 * cross
    return max(float(squared), 0.0)


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(N, F), (M, F) -> (N, M). Exactly 0 for equal rows, which the matrix-product way is not."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _features(name: str, value: ArrayLike, like: ArrayLike | None = None) -> Array:
    x = np.asarray(value, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or (like is not None and x.shape[1] != np.shape(like)[1]):
        width = "F" if like is None else np.shape(like)[1]
        raise ValueError(f"{name} is {x.shape}, expected features (N, {width}) with N >= 2")
    return _finite(name, x)


def _codes(name: str, value: ArrayLike) -> NDArray[Any]:
    codes = np.asarray(value)
    if codes.ndim != 2 or not len(codes) or codes.dtype.kind not in "iu":
        raise ValueError(
            f"{name} is {codes.dtype} {codes.shape}, expected integers (N, length), N >= 1: "
            "flatten the grids"
        )
    return codes


def _samples(name: str, value: ArrayLike) -> Array:
    x = np.asarray(value, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"{name} is {x.shape}, expected (N,) with N >= 2")
    return _finite(name, x)


def _finite(name: str, x: Array) -> Array:
    if not np.isfinite(x).all():
        row = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"{name}{row.tolist()} is {x[tuple(row)]}, expected finite numbers")
    return x


def _mean(x: Array) -> Estimate:
    return Estimate(float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x)))


def _mean_difference(name: str, value: ArrayLike, minus_name: str, minus: ArrayLike) -> Estimate:
    x, y = _samples(name, value), _samples(minus_name, minus)
    if x.shape != y.shape:
        raise ValueError(
            f"{name} is {x.shape} and {minus_name} {y.shape}, expected one each for every sample"
        )
    return _mean(x - y)

"""What is measured: pure functions on features, log-probs and codes.

The Fréchet distance is computed here and not by torchmetrics because its paired bootstrap needs
the distance of many resamples of the same features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: np.ndarray) -> Estimate:
        values = np.asarray(values, np.float64)
        return cls(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def _moments(x: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"{what} have shape {x.shape}, expected (N, F) with N of at least 2")
    if not np.isfinite(x).all():
        raise ValueError(f"{what} hold values that are not finite")
    return x.mean(0), np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def _frechet(mean_x, cov_x, mean_y, cov_y) -> float:
    # tr (Cx Cy)^1/2 is the sum of the roots of the eigenvalues of Cx^1/2 Cy Cx^1/2, which is
    # symmetric: no complex arithmetic, and singular covariances do no harm.
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_y @ root).clip(0)).sum()
    return float(((mean_x - mean_y) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """|mx - my|^2 + tr(Cx + Cy - 2 (Cx Cy)^1/2) of two sets of features (N, F) and (M, F).

    Heusel et al. 2017 (arXiv 1706.08500), there in Inception's features. 0 is equal; it is biased
    upward by few samples, so compare at the same N only.

    Raises:
        ValueError: if a set has fewer than two rows, another width, or non-finite values.
    """
    if np.shape(x)[1:] != np.shape(y)[1:]:
        raise ValueError(f"features have widths {np.shape(x)[1:]} and {np.shape(y)[1:]}")
    return _frechet(*_moments(x, "features"), *_moments(y, "features"))


def paired_bootstrap(
    reference: np.ndarray, a: np.ndarray, b: np.ndarray, draws: int = 200, seed: int = 0
) -> tuple[float, float, float]:
    """FD(reference, a) - FD(reference, b), and its 95 % percentile interval.

    Every draw resamples the reference rows, the same for both sides (that is what pairs them: the
    choice of test images moves both distances together), and the rows of ``a`` and of ``b``.
    Negative: ``a`` is nearer to the reference.

    Returns:
        (difference, low, high); the difference is that of the whole sets. Resamples hold fewer
        distinct rows, which biases both distances alike.
    """
    rng = np.random.default_rng(seed)
    difference = frechet_distance(reference, a) - frechet_distance(reference, b)
    found = np.empty(draws)
    for i in range(draws):
        real = _moments(reference[rng.integers(len(reference), size=len(reference))], "features")
        sides = [
            _frechet(*real, *_moments(x[rng.integers(len(x), size=len(x))], "features"))
            for x in (a, b)
        ]
        found[i] = sides[0] - sides[1]
    low, high = np.percentile(found, [2.5, 97.5])
    return difference, float(low), float(high)


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T).clip(0)


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = 3, draws: int = 8, seed: int = 0
) -> tuple[float, float]:
    """Shares of fakes inside the real manifold, and of reals inside the fake one.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991): a set's manifold is the union of balls around its
    points that reach to their ``k``-th neighbour. Both sets are cut to the smaller one's size, at
    random, ``draws`` times, and the results averaged. Precision is quality, recall diversity.
    """
    size = min(len(real), len(fake))
    if size <= k:
        raise ValueError(f"sets of {len(real)} and {len(fake)} features, expected more than k={k}")
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(draws):
        x = np.asarray(real, np.float64)[rng.permutation(len(real))[:size]]
        y = np.asarray(fake, np.float64)[rng.permutation(len(fake))[:size]]
        # Column k: the nearest of all is the point itself.
        radius_x = np.partition(_squared_distances(x, x), k, axis=1)[:, k]
        radius_y = np.partition(_squared_distances(y, y), k, axis=1)[:, k]
        between = _squared_distances(x, y)
        results.append(
            (
                (between <= radius_x[:, None]).any(0).mean(),
                (between <= radius_y[None]).any(1).mean(),
            )
        )
    precision, recall = np.mean(results, 0)
    return float(precision), float(recall)


def entropy(log_g: np.ndarray) -> Estimate:
    """H(G) = E_G[-log G] from log G of G's own samples (N,): nats per canvas."""
    return Estimate.of(-np.asarray(log_g))


def reverse_kl(log_g: np.ndarray, log_oracle: np.ndarray) -> Estimate:
    """KL(G || oracle) = E_G[log G - log oracle] on G's own samples, nats per canvas.

    High where G writes what the oracle does not. Unlike E_G[-log oracle] alone (Eq. 7), it does
    not fall just because G gives up its diversity.
    """
    return Estimate.of(np.asarray(log_g, np.float64) - log_oracle)


def forward_kl(log_oracle: np.ndarray, log_g: np.ndarray) -> Estimate:
    """KL(oracle || G) = E_oracle[log oracle - log G] on the oracle's samples, nats per canvas.

    High where G does not write what the oracle does: missing modes.
    """
    return Estimate.of(np.asarray(log_oracle, np.float64) - log_g)


def matching_temperature(
    entropy_at: Callable[[float], float],
    target: float,
    low: float = 0.6,
    high: float = 1.3,
    steps: int = 8,
) -> float:
    """The sampling temperature at which a generator's entropy is ``target``, by bisection.

    Args:
        entropy_at: entropy (nats) of the generator whose logits are divided by a temperature,
            with its log-probs taken at that temperature too. It must rise with it.
    """
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy_at(middle) < target else (low, middle)
    return (low + high) / 2


# 97.5 % quantiles of Student's t for 1, 2, .. degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % Student-t interval (2 to 11 seeds)."""
    if not 2 <= len(values) <= len(_T) + 1:
        raise ValueError(f"{len(values)} values, expected 2 to {len(_T) + 1}")
    estimate = Estimate.of(np.asarray(values))
    return estimate.value, _T[len(values) - 2] * estimate.error


def nearest_distance(train: np.ndarray, codes: np.ndarray, batch: int = 256) -> float:
    """Median over canvases (N, length) of the fewest codes that differ from a training canvas.

    A generator that memorises comes near 0; compare with held-out real canvases.
    """
    nearest = [
        (part[:, None] != train[None]).sum(2).min(1)
        for part in np.array_split(codes, max(1, len(codes) // batch))
    ]
    return float(np.median(np.concatenate(nearest)))

"""A Gaussian process over schedules: what is known of those measured, guessed for the others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

LENGTH_SCALES = (1.0, 2.0, 4.0)
SIGNAL_SHARES = (0.5, 1.0, 2.0, 4.0)
"""Variances that are tried, as multiples of the spread of the means that is not noise."""

OWN_SHARE = 0.15
"""Share of the variance that a schedule has for itself, whatever schedules like it are worth."""

TREND_SHARE = 0.1
"""Variance of the linear trend at a distance of 1 from the centre, as a multiple of the variance.
Chosen on halves of the embedded model's search split, where 0.3 and 1 are as good; the synthetic
problem, whose optimum lies inside, suffers from these."""

_FEWEST = 6  # schedules from which on length scale and variance are fitted
_FALLBACK = (2.0, 2.0)
_MOST_FITTED = 200  # schedules that these are fitted on: the cost is cubic
_SMALLEST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Posterior:
    """What is believed of some candidates.

    Attributes:
        means: Expected values, `(candidates,)`.
        covariance: Their covariance, `(candidates, candidates)`.
    """

    means: Vector
    covariance: Matrix

    def draws(self, number: int, generator: np.random.Generator) -> Matrix:
        """Draw what the candidates' values may be, all together.

        Args:
            number: Draws.
            generator: Source of randomness.

        Returns:
            The values, `(number, candidates)`.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        normal = generator.standard_normal((number, len(self.means)))
        drawn: Matrix = self.means + normal @ root.T
        return drawn


class Surrogate:
    """A Gaussian process fitted to noisy means of schedules.

    Its covariance is a linear trend in the features, a Matern kernel (smoothness 3/2) of them, and
    a part that every schedule has for itself; the mean is constant and estimated by generalised
    least squares [Rasmussen2006, sections 2.7 and 4.2]. The trend is what few measurements suffice
    for: how much tokens matter at each depth, and how much the weight and the merged share do.
    Length scale and variance maximise the marginal likelihood on a grid. The noise is known.

    Args:
        features: Features of the schedules, `(schedules, features)`.
        means: Their measured means, `(schedules,)`.
        variances: Variances of these, `(schedules,)`.

    [Rasmussen2006] Rasmussen, Williams: Gaussian Processes for Machine Learning, 2006.
    """

    def __init__(self, features: Matrix, means: Vector, variances: Vector) -> None:
        from scipy.linalg import cho_factor  # imported late: it costs a quarter of a second

        self._centre = features.mean(axis=0)
        self._features = features - self._centre
        self.length_scale, self.variance = _hyperparameters(self._features, means, variances)
        own = self._covariance(self._features, self._features)
        own[np.diag_indices_from(own)] += OWN_SHARE * self.variance + variances
        self._factor = cho_factor(own, lower=True)
        self.mean, self._weights = _constant_mean(self._factor, means)

    def posterior(self, features: Matrix, measured: NDArray[np.intp]) -> Posterior:
        """Say what is believed of candidates.

        Args:
            features: Features of the candidates, `(candidates, features)`.
            measured: Which of the fitted schedules each candidate is, -1 for none, `(candidates,)`.

        Returns:
            The belief.
        """
        from scipy.linalg import cho_solve

        centred = features - self._centre
        across = self._across(centred, measured)
        prior = self._covariance(centred, centred)
        prior[np.diag_indices_from(prior)] += OWN_SHARE * self.variance
        covariance = prior - across @ cho_solve(self._factor, across.T)
        return Posterior(self.mean + across @ self._weights, covariance)

    def means(self, features: Matrix, measured: NDArray[np.intp]) -> Vector:
        """Return the means of `posterior`, whose covariance costs the cube of the candidates.

        Args:
            features: As for `posterior`.
            measured: As for `posterior`.

        Returns:
            The means, `(candidates,)`.
        """
        across = self._across(features - self._centre, measured)
        means: Vector = self.mean + across @ self._weights
        return means

    def _covariance(self, some: Matrix, others: Matrix) -> Matrix:
        return _covariance(some, others, self.length_scale, self.variance)

    def _across(self, centred: Matrix, measured: NDArray[np.intp]) -> Matrix:
        """Covariance of candidates with the fitted schedules, `(candidates, schedules)`."""
        across = self._covariance(centred, self._features)
        (places,) = np.nonzero(measured >= 0)
        across[places, measured[places]] += OWN_SHARE * self.variance
        return across

    def expected(self, features: Matrix) -> tuple[Vector, Vector]:
        """Return means and standard deviations of candidates that have not been measured.

        Args:
            features: Features of the candidates, `(candidates, features)`.

        Returns:
            Both, each `(candidates,)`; far cheaper than the whole belief.
        """
        from scipy.linalg import cho_solve

        centred = features - self._centre
        across = self._covariance(centred, self._features)
        explained = (across * cho_solve(self._factor, across.T).T).sum(axis=1)
        prior = self.variance * (1 + TREND_SHARE * (centred**2).sum(axis=1))
        deviations = np.sqrt(np.maximum(prior - explained, 0.0))
        return self.mean + across @ self._weights, deviations


def _covariance(some: Matrix, others: Matrix, length_scale: float, variance: float) -> Matrix:
    """Return the covariance that features, less their centre, explain."""
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
    distances = np.sqrt(3 * np.maximum(squares, 0.0)) / length_scale
    alike = (1 - OWN_SHARE) * (1 + distances) * np.exp(-distances)
    explained: Matrix = variance * (alike + TREND_SHARE * some @ others.T)
    return explained


def _constant_mean(factor: tuple[Matrix, bool], means: Vector) -> tuple[float, Vector]:
    """Return the best constant mean, and the weights of what remains."""
    from scipy.linalg import cho_solve

    ones = cho_solve(factor, np.ones(len(means)))
    mean = float(ones @ means / ones.sum())
    return mean, cho_solve(factor, means - mean)


def _hyperparameters(features: Matrix, means: Vector, variances: Vector) -> tuple[float, float]:
    """Return length scale and variance."""
    # Those tried last are the ones that decisions are between; of several budgets, whose schedules
    # come after each other, these are mostly the last one's.
    features, means, variances = (part[-_MOST_FITTED:] for part in (features, means, variances))
    spread = max(float(means.var() - variances.mean()), _SMALLEST_VARIANCE)
    if len(means) < _FEWEST:
        return _FALLBACK[0], _FALLBACK[1] * spread
    choices = [(scale, share * spread) for scale, share in product(LENGTH_SCALES, SIGNAL_SHARES)]
    return max(choices, key=lambda choice: _likelihood(features, means, variances, *choice))


def _likelihood(
    features: Matrix, means: Vector, variances: Vector, length_scale: float, variance: float
) -> float:
    """Return the logarithm of the marginal likelihood, but for a constant."""
    from scipy.linalg import cho_factor

    own = _covariance(features, features, length_scale, variance)
    own[np.diag_indices_from(own)] += OWN_SHARE * variance + variances
    factor = cho_factor(own, lower=True)
    mean, weights = _constant_mean(factor, means)
    return float(-0.5 * (means - mean) @ weights - np.log(np.diag(factor[0])).sum())

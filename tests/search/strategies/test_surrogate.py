"""The Gaussian process against scikit-learn's and SciPy's."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern

from search.strategies.surrogate import (
    LENGTH_SCALES,
    OWN_SHARE,
    SIGNAL_SHARES,
    TREND_SHARE,
    Posterior,
    Surrogate,
)


@pytest.fixture
def problem():
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 4, (30, 3))
    variances = generator.uniform(0.0005, 0.002, 30)
    values = 0.5 + 0.1 * np.sin(features).sum(axis=1)
    means = values + np.sqrt(variances) * generator.standard_normal(30)
    return features, means, variances, generator


def own_part():
    """A kernel that is 1 for equal features and 0 for all others."""
    return RBF(1e-6, "fixed")


def kernel_of(length_scale, variance):
    """What the surrogate assumes of features less their mean."""

    def share(part):
        return ConstantKernel(part * variance, "fixed")

    alike = share(1 - OWN_SHARE) * Matern(length_scale, "fixed", nu=1.5)
    trend = share(TREND_SHARE) * DotProduct(0.0, "fixed")
    return alike + trend + share(OWN_SHARE) * own_part()


def reference(surrogate, features, means, variances):
    kernel = kernel_of(surrogate.length_scale, surrogate.variance)
    process = GaussianProcessRegressor(kernel, alpha=variances, optimizer=None)
    return process.fit(features - features.mean(axis=0), means - surrogate.mean), kernel


def test_the_posterior_is_that_of_scikit_learn(problem):
    features, means, variances, generator = problem
    surrogate = Surrogate(features, means, variances)
    process, _ = reference(surrogate, features, means, variances)
    candidates = np.concatenate([features[[4, 17]], generator.uniform(0, 4, (5, 3))])
    measured = np.array([4, 17, -1, -1, -1, -1, -1])
    posterior = surrogate.posterior(candidates, measured)
    centred = candidates - features.mean(axis=0)
    expected, covariance = process.predict(centred, return_cov=True)
    np.testing.assert_allclose(posterior.means, expected + surrogate.mean, atol=1e-9)
    np.testing.assert_array_equal(surrogate.means(candidates, measured), posterior.means)
    np.testing.assert_allclose(posterior.covariance, covariance, atol=1e-9)
    fresh, deviations = surrogate.expected(candidates[2:])
    np.testing.assert_allclose(fresh, posterior.means[2:], atol=1e-12)
    variances = np.diag(posterior.covariance)[2:]
    np.testing.assert_allclose(deviations, np.sqrt(variances), atol=1e-9)


def test_the_mean_is_generalised_least_squares(problem):
    features, means, variances, _ = problem
    surrogate = Surrogate(features, means, variances)
    _, kernel = reference(surrogate, features, means, variances)
    inverse = np.linalg.inv(kernel(features - features.mean(axis=0)) + np.diag(variances))
    assert surrogate.mean == pytest.approx((inverse @ means).sum() / inverse.sum(), abs=1e-9)


def test_length_scale_and_variance_are_the_likeliest_of_the_grid(problem):
    features, means, variances, _ = problem
    spread = means.var() - variances.mean()

    def likelihood(scale, share):
        variance = share * spread
        kernel = kernel_of(scale, variance)(features - features.mean(axis=0))
        covariance = kernel + np.diag(variances)
        inverse = np.linalg.inv(covariance)
        mean = (inverse @ means).sum() / inverse.sum()
        return multivariate_normal(np.full(30, mean), covariance).logpdf(means)

    grid = [(scale, share) for scale in LENGTH_SCALES for share in SIGNAL_SHARES]
    scale, share = max(grid, key=lambda choice: likelihood(*choice))
    surrogate = Surrogate(features, means, variances)
    assert (surrogate.length_scale, surrogate.variance) == pytest.approx((scale, share * spread))


def test_draws_have_the_posteriors_moments():
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    posterior = Posterior(np.array([1.0, -3.0]), covariance)
    draws = posterior.draws(40_000, np.random.default_rng(0))
    # Standard errors at 40,000 draws are below 0.015.
    np.testing.assert_allclose(draws.mean(axis=0), posterior.means, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.06)


def test_few_or_equal_means_are_no_problem():
    features = np.array([[0.0], [1.0]])
    surrogate = Surrogate(features, np.array([0.5, 0.5]), np.array([0.01, 0.01]))
    posterior = surrogate.posterior(np.array([[0.0], [9.0]]), np.array([0, -1]))
    np.testing.assert_allclose(posterior.means, 0.5)
    assert posterior.covariance[0, 0] < posterior.covariance[1, 1]


def test_a_few_schedules_tell_a_trend():
    generator = np.random.default_rng(1)
    features = generator.uniform(0, 1, (12, 4))
    slopes = np.array([0.1, 0.2, 0.0, -0.1])
    surrogate = Surrogate(features, features @ slopes, np.full(12, 1e-4))
    # So far from all that was measured that nothing is alike any more; the trend alone is left,
    # smaller than it is, as what schedules have in common explains a part of what was measured.
    means, _ = surrogate.expected(0.5 + 20 * np.eye(4))
    np.testing.assert_array_equal(np.argsort(means), np.argsort(slopes))
    assert np.ptp(means) > 0.05 * 20 * np.ptp(slopes)

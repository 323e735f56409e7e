"""Block effects against ordinary least squares, and on simulated blocks."""

import numpy as np
import pytest

from search.strategies.block_effects import PRIOR_DEVIATION, adjust


def test_with_equal_blocks_the_means_are_the_plain_ones_but_for_a_constant():
    generator = np.random.default_rng(0)
    values = list(generator.uniform(0, 1, (6, 4)))
    adjusted = adjust(values, [10] * 4)
    plain = np.mean(values, axis=1)
    np.testing.assert_allclose(np.diff(adjusted.means), np.diff(plain), atol=1e-12)


def test_a_schedule_that_saw_easy_blocks_alone_is_not_preferred():
    # Block 0 is 0.3 easier; the second schedule is 0.05 worse and knows block 0 only.
    easy = np.array([0.3, 0.0, 0.0, 0.0])
    known = [0.5 + easy + offset for offset in (0.0, 0.01, -0.02, 0.02, -0.01)]
    adjusted = adjust([*known, 0.45 + easy[:1]], [25] * 4)
    assert adjusted.means[-1] < adjusted.means[0]
    assert 0.45 + easy[0] > known[0].mean()  # the plain means would say otherwise


def test_effects_and_noise_of_a_simulation_are_found():
    generator = np.random.default_rng(1)
    schedules, sizes, noise = 40, [25] * 12, 0.4
    worth = generator.normal(0.6, 0.05, schedules)
    blocks = generator.normal(0, 0.1, 12)
    values = [
        own + blocks[:known] + noise / 5 * generator.standard_normal(known)
        for own, known in zip(worth, generator.integers(1, 13, schedules), strict=True)
    ]
    adjusted = adjust(values, sizes)
    errors = adjusted.means - worth
    errors -= np.average(errors, weights=1 / adjusted.variances)
    standardised = errors / np.sqrt(adjusted.variances)
    assert np.mean(np.abs(standardised) < 1.96) > 0.8  # 95 % but for the blocks' own uncertainty
    plain = np.array([own.mean() for own in values]) - worth
    assert np.std(errors) < 0.8 * np.std(plain)


@pytest.mark.parametrize("size", [10, 50])
def test_the_variance_of_a_first_measurement_is_the_priors(size):
    adjusted = adjust([np.array([0.7])], [size])
    assert adjusted.means[0] == pytest.approx(0.7)
    assert adjusted.variances[0] == pytest.approx(PRIOR_DEVIATION**2 / size)

"""The mixed model against the general formulas of the theory, and against known truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from studies.schedule_levels import schedule_levels, variance_ratio

ROWS = st.lists(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=4), min_size=2, max_size=7)


def _design(rows):
    """Blocks and schedules of all observations as indicators, and the observations."""
    places = [(schedule, block) for schedule, row in enumerate(rows) for block in range(len(row))]
    fixed = np.zeros((len(places), max(map(len, rows))))
    random = np.zeros((len(places), len(rows)))
    for line, (schedule, block) in enumerate(places):
        fixed[line, block] = random[line, schedule] = 1
    return fixed, random, np.array([value for row in rows for value in row])


@given(ROWS, st.floats(0.01, 10))
def test_levels_solve_hendersons_equations(rows, ratio):
    fixed, random, values = _design(rows)
    design = np.hstack([fixed, random])
    penalty = np.diag([0.0] * fixed.shape[1] + [1 / ratio] * random.shape[1])
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ values)
    effects, schedules = np.split(solution, [fixed.shape[1]])
    levels = schedule_levels({str(n): row for n, row in enumerate(rows)}, ratio)
    for number, row in enumerate(rows):
        level = levels[str(number)]
        assert level.estimate == pytest.approx(effects.mean() + schedules[number], abs=1e-8)
        easier = effects[: len(row)].mean() - effects.mean()
        assert level.observed == pytest.approx(np.mean(row) - easier, abs=1e-8)


def test_the_ratio_has_the_highest_restricted_likelihood():
    rng = np.random.default_rng(1)
    rows = [
        (0.7 + 0.1 * rng.normal() + 0.1 * rng.normal(size=size)).tolist()
        for size in rng.integers(1, 6, size=25)
    ]
    fixed, random, values = _design(rows)
    # The likelihood of contrasts, which no effect of a block changes [Patterson, Thompson 1971].
    contrasts = np.linalg.svd(fixed.T)[2][fixed.shape[1] :]
    seen = contrasts @ values

    def likelihood(ratio):
        covariance = contrasts @ (np.eye(len(values)) + ratio * random @ random.T) @ contrasts.T
        scale = seen @ np.linalg.solve(covariance, seen) / len(seen)
        return multivariate_normal(cov=scale * covariance).logpdf(seen)

    found = variance_ratio({str(n): row for n, row in enumerate(rows)})
    assert likelihood(found) >= max(likelihood(found * step) for step in (0.6, 1.7))


def test_levels_are_nearer_to_the_truth_than_means():
    rng = np.random.default_rng(2)
    wins = 0
    for _ in range(20):
        truth = 0.7 + 0.05 * rng.normal(size=60)
        blocks = 0.08 * rng.normal(size=20)
        sizes = np.minimum(20, rng.geometric(0.5, size=60))
        rows = {
            str(n): (truth[n] + blocks[:size] + 0.1 * rng.normal(size=size)).tolist()
            for n, size in enumerate(sizes)
        }
        levels = schedule_levels(rows, variance_ratio(rows))
        estimates = np.array([level.estimate for level in levels.values()])
        means = np.array([np.mean(row) for row in rows.values()])
        # The level of all is told by the blocks, whose luck nobody knows: what counts is the order.
        errors = [np.std(each - truth) for each in (estimates, means)]
        wins += errors[0] < errors[1]
    assert wins >= 19


def test_equal_blocks_keep_the_order_of_the_means():
    rows = {"a": [0.5, 0.9], "b": [0.9, 0.7], "c": [0.1, 0.2]}
    levels = schedule_levels(rows, variance_ratio(rows))
    assert sorted(levels, key=lambda name: levels[name].estimate) == ["c", "a", "b"]
    for name, level in levels.items():
        assert level.observed == pytest.approx(np.mean(rows[name]))
    assert schedule_levels({"a": [0.5]}, variance_ratio({"a": [0.5]}))["a"].observed == 0.5

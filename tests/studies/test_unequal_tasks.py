"""Tasks that share no image, one of few images and one of many."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pruners.errors import DataError
from studies.statistics import paired_interval

MANY, FEW = 200, 8
TASKS = ["a"] * MANY + ["b"] * FEW


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_few_images_decide_how_wide_the_interval_is_as_in_welchs_test(seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=MANY + FEW)
    dense = np.ones(MANY + FEW)
    # The sum of two means is the difference of one and the negative of the other.
    test = stats.ttest_ind(scores[:MANY], -scores[MANY:], equal_var=False)
    low, high = test.confidence_interval()
    found = paired_interval(scores, dense, TASKS)
    assert found == pytest.approx((low / 2, high / 2), abs=0.06 * (high - low) / 2)


def test_too_few_right_answers_of_the_dense_model_are_said():
    # In a resample, three of four tasks have the image that dense knows: hardly ever all of 40.
    tasks = [f"task {number}" for number in range(40) for _ in range(2)]
    right = [1, 0] * 40
    with pytest.raises(DataError, match="no resample has one of every task; use more samples"):
        paired_interval(right, right, tasks, resamples=100)

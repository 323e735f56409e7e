"""Differences against the same bootstrap in whole numbers, which no rounding touches."""

from __future__ import annotations

import numpy as np
import pytest

from studies.bootstrap import resample
from studies.intervals import percentile_interval, two_sided_p_value
from studies.statistics import difference


def test_resamples_that_tie_are_no_difference_whatever_rounding_makes_of_them():
    # 3 tasks of 10 questions: wrong ones of the first schedule, and of the second.
    first, second = np.ones(30), np.ones(30)
    first[[14, 18, 25, 26, 27]] = 0
    second[[0, 1, 7, 9, 11, 12, 17, 18, 21, 22, 25, 26]] = 0
    tasks, dense = list("abc") * 10, np.ones(30)
    drawn = resample(np.stack([first, dense, second], axis=1), tasks, None, 2000, seed=0)
    # Of tasks of the same size, differences are whole numbers of answers.
    answers = drawn.totals[..., 0] - drawn.totals[..., 2]
    found = difference(first, second, dense, tasks, resamples=2000)
    assert found.p_value == two_sided_p_value(answers, drawn)
    assert found.interval == pytest.approx(
        [end / 10 for end in percentile_interval(answers, drawn)]
    )
    assert found.interval.low == 0
    assert not found.significant

"""Means over seeds with their intervals, for `search_quality.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from search_quality_records import Estimate

from studies.statistics import LEVEL


def estimate(values: ArrayLike) -> Estimate:
    """Mean of a value per seed, with the 95 % interval of Student's t.

    Args:
        values: One value per seed, at least two, `(seeds,)`.

    Returns:
        The estimate.
    """
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    half = float(reach(array[None])[0])
    return Estimate(mean=mean, interval_95=(mean - half, mean + half))


def reach(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say how far the intervals of means reach to either side.

    Args:
        values: One value per seed along the last axis, `(..., seeds)`.

    Returns:
        Half the width of each 95 % interval by Student's t, `(...,)`.
    """
    seeds = values.shape[-1]
    deviation = values.std(axis=-1, ddof=1)
    half: NDArray[np.float64] = student.ppf((1 + LEVEL) / 2, seeds - 1) * deviation / np.sqrt(seeds)
    return half

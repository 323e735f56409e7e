"""What schedules are worth apart from how easy the blocks were that they were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR_DEVIATION = 0.27
"""Standard deviation of one sample's signal beside the effects of schedule and block, before any is
known: typical of probabilities and of right answers alike."""

PRIOR_OBSERVATIONS = 20
"""How many block means that guess is worth."""

_ROUNDS = 10


class Adjusted(NamedTuple):
    """Schedules' means over blocks of average difficulty.

    Attributes:
        means: Mean of each schedule, `(schedules,)`.
        variances: Variance of each mean, `(schedules,)`.
    """

    means: NDArray[np.float64]
    variances: NDArray[np.float64]


def adjust(values: Sequence[NDArray[np.float64]], sizes: Sequence[int]) -> Adjusted:
    """Take the difficulty of blocks out of schedules' means.

    Schedules are measured on blocks in the same order, but not on equally many. Fitted is value =
    schedule + block + noise, by alternating least squares; effects of blocks that few schedules
    know shrink towards 0, as if one more schedule had found them average.

    Args:
        values: Block means of each schedule, from block 0 on, each `(blocks measured,)`.
        sizes: Samples of each block.

    Returns:
        The means with their variances. The variance of the noise is estimated from what remains,
        together with `PRIOR_OBSERVATIONS` of the prior's.
    """
    most = max(map(len, values))
    table = np.full((len(values), most), np.nan)
    for row, own in zip(table, values, strict=True):
        row[: len(own)] = own
    known = ~np.isnan(table)
    filled = np.where(known, table, 0.0)
    weights = known * np.asarray(sizes[:most], dtype=np.float64)
    totals = weights.sum(axis=1)
    effects = np.zeros(most)
    means = np.zeros(len(values))
    for _ in range(_ROUNDS):
        means = ((filled - effects) * weights).sum(axis=1) / totals
        residuals = (filled - means[:, None]) * known
        effects = residuals.sum(axis=0) / (known.sum(axis=0) + 1)
    residuals = (filled - means[:, None] - effects) * np.sqrt(weights)
    free = max(0, int(known.sum()) - len(values) - most)
    noise = (float((residuals**2).sum()) + PRIOR_OBSERVATIONS * PRIOR_DEVIATION**2) / (
        free + PRIOR_OBSERVATIONS
    )
    return Adjusted(means, noise / totals)

"""How good schedules are, estimated from trials that know them on different numbers of blocks.

All trials score the same blocks of samples in the same order, most of them only the first few. A
block may be easy or hard, and of many schedules known on few samples the best looks better than it
is. Both are undone by a linear mixed model: the accuracy of a schedule on a block is a fixed effect
of the block, plus a random effect of the schedule, plus noise. The ratio of the two variances is
that of the highest restricted likelihood; effects are best linear unbiased predictions
[Robinson1991], which are drawn towards the mean where little is known.

[Robinson1991] Robinson: That BLUP Is a Good Thing: The Estimation of Random Effects, 1991.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

_RATIOS = np.geomspace(1e-3, 1e2, 26)
"""Ratios of variances that are tried: from schedules that do not differ to no noise."""


class Level(NamedTuple):
    """What a schedule is worth on a block like those that were scored.

    Attributes:
        estimate: The prediction, drawn towards the mean of all schedules where little is known.
        observed: The mean on its blocks, less what these are easier than all on average.
    """

    estimate: float
    observed: float


def variance_ratio(blocks: Mapping[str, Sequence[float]]) -> float:
    """Estimate how much schedules differ, by the highest restricted likelihood.

    Args:
        blocks: Accuracies of each schedule on the first blocks, as many as are known of it, at
            least one.

    Returns:
        The variance between schedules over that of the noise on one block, from 0.001 to 100.
    """
    known, accuracies = _tables(blocks)
    return float(max(_RATIOS, key=lambda ratio: _Fit(known, accuracies, ratio).likelihood))


def schedule_levels(blocks: Mapping[str, Sequence[float]], ratio: float) -> dict[str, Level]:
    """Estimate what each schedule is worth.

    Args:
        blocks: As for `variance_ratio`.
        ratio: What that returned.

    Returns:
        The level of each schedule.
    """
    known, accuracies = _tables(blocks)
    fit = _Fit(known, accuracies, ratio)
    levels = zip(fit.estimates.tolist(), fit.observed.tolist(), strict=True)
    return {name: Level(*level) for name, level in zip(blocks, levels, strict=True)}


def _tables(blocks: Mapping[str, Sequence[float]]) -> tuple[_Floats, _Floats]:
    """Where a schedule is known on a block, and its accuracy there, `(schedules, blocks)`."""
    most = max(map(len, blocks.values()))
    known = np.array([[place < len(row) for place in range(most)] for row in blocks.values()])
    accuracies = np.zeros(known.shape)
    accuracies[known] = [value for row in blocks.values() for value in row]
    return known.astype(float), accuracies


class _Fit:
    """The model at one ratio of variances.

    A schedule's accuracies have the covariance I + ratio * 11', whose inverse is
    I - ratio / (1 + ratio * n) * 11' for n blocks: no matrix is larger than blocks by blocks.

    Args:
        known: 1 where a schedule is known on a block, else 0, `(schedules, blocks)`.
        accuracies: The accuracies, 0 where unknown.
        ratio: Variance between schedules over that of the noise.
    """

    def __init__(self, known: _Floats, accuracies: _Floats, ratio: float) -> None:
        counts = known.sum(axis=1)
        shrink = ratio / (1 + ratio * counts)
        information = np.diag(known.sum(axis=0)) - known.T @ (shrink[:, None] * known)
        weighted = accuracies.sum(axis=0) - known.T @ (shrink * accuracies.sum(axis=1))
        effects = np.linalg.solve(information, weighted)
        residuals = (accuracies - effects) * known
        totals = residuals.sum(axis=1)
        self.estimates: _Floats = effects.mean() + shrink * totals
        self.observed: _Floats = effects.mean() + totals / counts
        freedom = max(1.0, counts.sum() - len(effects))
        squares = max(float((residuals**2).sum() - (shrink * totals**2).sum()), 1e-12)
        self.likelihood = -0.5 * float(
            freedom * np.log(squares)
            + np.log1p(ratio * counts).sum()
            + np.linalg.slogdet(information)[1]
        )

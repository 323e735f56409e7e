"""Relative accuracy and what can be said of it: paired bootstrap intervals and differences.

Scores are one number per sample, the same samples in the same order for every schedule, so that all
comparisons are paired. Resampling draws images, each with all its questions: what a model makes of
one question tells of the others about the same image, so that they are fewer observations than they
seem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pruners.errors import DataError
from studies.bootstrap import Scores, paired_table, resample, strata
from studies.intervals import LEVEL, Interval, holm, percentile_interval, two_sided_p_value

RESAMPLES = 10_000
"""Bootstrap resamples; the interval's ends then move by about 0.01 of its width between seeds."""


@dataclass(frozen=True)
class Difference:
    """How much one schedule's relative accuracy exceeds another's on the same samples.

    Attributes:
        estimate: Relative accuracy of the first minus that of the second.
        interval: 95 % bootstrap interval of the difference.
        p_value: Two-sided bootstrap p-value of no difference, Holm-corrected within its family.
        significant: Whether the interval excludes 0 and the p-value is below 0.05.
    """

    estimate: float
    interval: Interval
    p_value: float
    significant: bool


def relative_accuracy(scores: ArrayLike, dense_scores: ArrayLike, tasks: Sequence[str]) -> float:
    """Mean over tasks of the pruned accuracy divided by the dense accuracy.

    Args:
        scores: Score per sample of the pruned model, `(samples,)`, usually 0 or 1.
        dense_scores: Score of the dense model on the same samples, `(samples,)`.
        tasks: Task of each sample; every task weighs the same, whatever its size.

    Returns:
        The relative accuracy; 1 is the dense model's own.

    Raises:
        DataError: Lengths differ, nothing was scored, a score is not finite, or the dense model
            scores 0 on a task.
    """
    table = paired_table([scores, dense_scores], tasks)
    means = np.stack([rows.mean(axis=0) for _, rows in strata(table, tasks)])  # tasks x 2
    _check_dense(means[:, 1], tasks)
    return float(np.mean(means[:, 0] / means[:, 1]))


def task_accuracies(scores: ArrayLike, tasks: Sequence[str]) -> dict[str, float]:
    """Mean score of each task.

    Args:
        scores: Score per sample, `(samples,)`.
        tasks: Task of each sample.

    Returns:
        The mean score by task, tasks in alphabetical order.

    Raises:
        DataError: Lengths differ, nothing was scored, or a score is not finite.
    """
    table = paired_table([scores], tasks)
    return {task: float(rows.mean()) for task, rows in strata(table, tasks)}


def paired_interval(
    scores: ArrayLike,
    dense_scores: ArrayLike,
    tasks: Sequence[str],
    *,
    images: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """95 % bootstrap interval of the relative accuracy.

    Images are drawn with replacement, an image's questions in all tasks always together, and so the
    pruned and the dense score of a question [Davison1997, section 3.8]. Its ends are percentiles of
    the resamples; `studies.intervals` says which.

    Args:
        scores: Score per sample of the pruned model, `(samples,)`.
        dense_scores: Score of the dense model on the same samples, `(samples,)`.
        tasks: Task of each sample.
        images: Image of each sample, the same name in every task; None where each has its own.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        The interval.

    Raises:
        DataError: As `relative_accuracy`, or the dense model is right so seldom that no resample
            has a right answer of every task.

    [Davison1997] Davison, Hinkley: Bootstrap Methods and their Application, 1997.
    """
    relative_accuracy(scores, dense_scores, tasks)  # refuses what has no relative accuracy
    table = paired_table([scores, dense_scores], tasks)
    drawn = resample(table, tasks, images, resamples, seed)
    return percentile_interval(_relative(drawn.totals[..., 0], drawn.totals[..., 1]), drawn)


def difference(
    scores: ArrayLike,
    other_scores: ArrayLike,
    dense_scores: ArrayLike,
    tasks: Sequence[str],
    *,
    images: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Paired difference of two schedules' relative accuracies.

    Args:
        scores: Score per sample of the first schedule, `(samples,)`.
        other_scores: Score of the second schedule; the dense model's own is allowed.
        dense_scores: Score of the dense model, by which both are divided.
        tasks: Task of each sample.
        images: Image of each sample, the same name in every task; None where each has its own.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        First minus second, with its interval.

    Raises:
        DataError: As `relative_accuracy`, or the dense model is right so seldom that no resample
            has a right answer of every task.
    """
    family = differences(
        scores,
        {"other": other_scores},
        dense_scores,
        tasks,
        images=images,
        resamples=resamples,
        seed=seed,
    )
    return family["other"]


def differences(
    scores: ArrayLike,
    others: Mapping[str, ArrayLike],
    dense_scores: ArrayLike,
    tasks: Sequence[str],
    *,
    images: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired differences of one schedule to several, called significant after Holm's correction.

    Args:
        scores: Score per sample of the schedule under test, `(samples,)`.
        others: Scores of the schedules it is compared with, each `(samples,)`; one family.
        dense_scores: Score of the dense model, by which all are divided.
        tasks: Task of each sample.
        images: Image of each sample, the same name in every task; None where each has its own.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        The difference to each of `others`, under its name.

    Raises:
        DataError: As `relative_accuracy`, or the dense model is right so seldom that no resample
            has a right answer of every task.
    """
    names = list(others)
    own = relative_accuracy(scores, dense_scores, tasks)
    estimates = [own - relative_accuracy(others[name], dense_scores, tasks) for name in names]
    columns = [scores, dense_scores, *(others[name] for name in names)]
    drawn = resample(paired_table(columns, tasks), tasks, images, resamples, seed)
    dense_totals = drawn.totals[..., 1]
    resampled_own = _relative(drawn.totals[..., 0], dense_totals)
    resampled = [
        resampled_own - _relative(drawn.totals[..., 2 + column], dense_totals)
        for column in range(len(names))
    ]
    p_values = holm([two_sided_p_value(values, drawn) for values in resampled])
    family = {}
    for name, estimate, values, p_value in zip(names, estimates, resampled, p_values, strict=True):
        interval = percentile_interval(values, drawn)
        excludes_zero = interval.low > 0 or interval.high < 0
        family[name] = Difference(
            estimate=estimate,
            interval=interval,
            p_value=p_value,
            significant=excludes_zero and p_value < 1 - LEVEL,
        )
    return family


def _check_dense(dense_means: Scores, tasks: Sequence[str]) -> None:
    failed = [task for task, mean in zip(sorted(set(tasks)), dense_means, strict=True) if mean <= 0]
    if failed:
        raise DataError(
            f"the dense model scores 0 on {', '.join(failed)}, so nothing is relative to it there; "
            "use more samples, or leave the task out"
        )


def _relative(totals: Scores, dense_totals: Scores) -> Scores:
    """Relative accuracy on each task, `(resamples, tasks)`; NaN without a dense success."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(dense_totals > 0, totals / dense_totals, np.nan)

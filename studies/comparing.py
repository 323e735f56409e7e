"""From scores to what a study found: the searched schedule beside all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from pruners.errors import DataError, StudyError
from pruners.schedule import Schedule, SplitEvidence
from studies.results import DENSE, SEARCHED, BudgetResult, Comparison, ScheduleResult
from studies.statistics import differences, paired_interval, relative_accuracy, task_accuracies

_TASK_RESAMPLES = 2_000
"""Bootstrap resamples of the intervals of single tasks, which are many."""


def split_evidence(
    scores: ArrayLike,
    dense_scores: ArrayLike,
    tasks: Sequence[str],
    images: Sequence[str] | None = None,
) -> SplitEvidence:
    """Sum up what was measured on one split.

    Args:
        scores: Score per sample of the pruned model, `(samples,)`, in [0, 1].
        dense_scores: Score of the dense model on the same samples, `(samples,)`.
        tasks: Task of each sample.
        images: Image of each sample; None where each has its own.

    Returns:
        Accuracies, relative accuracy and its 95 % interval.

    Raises:
        DataError: As `studies.statistics.relative_accuracy`.
    """
    accuracies = task_accuracies(scores, tasks)
    dense_accuracies = task_accuracies(dense_scores, tasks)
    return SplitEvidence(
        samples=len(tasks),
        accuracy=sum(accuracies.values()) / len(accuracies),
        dense_accuracy=sum(dense_accuracies.values()) / len(dense_accuracies),
        relative_accuracy=relative_accuracy(scores, dense_scores, tasks),
        interval_95=paired_interval(scores, dense_scores, tasks, images=images),
        tasks=accuracies,
    )


def compare(
    schedules: Mapping[str, Schedule],
    scores: Mapping[str, ArrayLike],
    tasks: Sequence[str],
    images: Sequence[str] | None = None,
    *,
    budget: str,
    measured_on: str,
    split: str = "report",
    trials: int,
    evaluations: int,
    seconds: float,
    measured_shares: Mapping[str, float] | None = None,
) -> BudgetResult:
    """Put the searched schedule beside all others that were scored on the same samples.

    Args:
        schedules: Schedules by name, each priced on the target: ``"searched"``, ``"dense"`` and
            the published ones at the same budget.
        scores: Score per sample by the same names, each `(samples,)`.
        tasks: Task of each sample.
        images: Image of each sample; None where each has its own.
        budget: The budget, with its unit and convention.
        measured_on: The model whose accuracy was measured.
        split: The split that the samples are of.
        trials: Trials that the search had finished.
        evaluations: Samples that the search had scored.
        seconds: Wall-clock time in which trials were under way.
        measured_shares: Visual tokens on the measured model as a share of its own, by name.

    Returns:
        Accuracies with intervals, and paired differences, Holm-corrected over the comparisons.

    Raises:
        DataError: Names are missing or do not match, or scores cannot be paired.
        StudyError: A schedule is not priced.
    """
    if schedules.keys() != scores.keys() or not {SEARCHED, DENSE} <= schedules.keys():
        raise DataError(
            f"schedules ({', '.join(schedules)}) and scores ({', '.join(scores)}) must have the "
            f"same names, {SEARCHED!r} and {DENSE!r} among them"
        )
    others = [DENSE, *(name for name in schedules if name not in (SEARCHED, DENSE))]
    dense_scores = scores[DENSE]
    compared = differences(
        scores[SEARCHED],
        {name: scores[name] for name in others},
        dense_scores,
        tasks,
        images=images,
    )
    return BudgetResult(
        budget=budget,
        priced_for=_priced_for(schedules[SEARCHED]),
        measured_on=measured_on,
        split=split,
        samples=len(tasks),
        trials=trials,
        evaluations=evaluations,
        seconds=seconds,
        schedules=tuple(
            _schedule_result(
                name,
                schedules[name],
                split_evidence(scores[name], dense_scores, tasks, images),
                (measured_shares or {}).get(name),
                _task_intervals(scores[name], dense_scores, tasks, images),
            )
            for name in (SEARCHED, *others)
        ),
        comparisons=tuple(Comparison.of(name, difference) for name, difference in compared.items()),
    )


def _priced_for(schedule: Schedule) -> str:
    if schedule.shape is None:
        raise StudyError("a schedule in a result must say which shape it is priced for")
    return schedule.shape.name


def _schedule_result(
    name: str,
    schedule: Schedule,
    evidence: SplitEvidence,
    measured_share: float | None,
    task_intervals: dict[str, tuple[float, float]],
) -> ScheduleResult:
    if schedule.cost is None:
        raise StudyError(f"the schedule {name!r} is not priced; price it before it is reported")
    return ScheduleResult(
        name=name,
        tflops=schedule.cost.tflops,
        mean_visual_tokens=schedule.cost.mean_visual_tokens,
        visual_tokens_per_layer=schedule.cost.visual_tokens_per_layer,
        evidence=evidence,
        measured_share=measured_share,
        task_intervals=task_intervals,
    )


def _task_intervals(
    scores: ArrayLike, dense_scores: ArrayLike, tasks: Sequence[str], images: Sequence[str] | None
) -> dict[str, tuple[float, float]]:
    """Interval of the relative accuracy on each task alone."""
    intervals = {}
    for task in sorted(set(tasks)):
        chosen = [place for place, each in enumerate(tasks) if each == task]
        low, high = paired_interval(
            np.asarray(scores)[chosen],
            np.asarray(dense_scores)[chosen],
            [task] * len(chosen),
            images=None if images is None else [images[place] for place in chosen],
            resamples=_TASK_RESAMPLES,
        )
        intervals[task] = (low, high)
    return intervals

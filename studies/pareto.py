"""Points of cost and accuracy, and which of them no other point dominates."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from studies.files import atomic_path
from studies.results import DENSE, BudgetResult


@dataclass(frozen=True)
class ParetoPoint:
    """A schedule's cost and relative accuracy.

    Attributes:
        budget: The budget it was made for; dense stands once, without one.
        schedule: ``"searched"``, ``"dense"``, or a published schedule's name.
        tflops: Cost on the target, in 10^12 FLOPs, convention `total`.
        mean_visual_tokens: Visual tokens alive, averaged over the target's decoder layers.
        relative_accuracy: Mean over tasks of pruned / dense accuracy.
        interval_low: Lower end of its 95 % interval.
        interval_high: Upper end of its 95 % interval.
        split: Split that it was measured on.
        samples: Samples of that split.
        on_front: Whether no other point is as cheap and as accurate, and better in one of them.
    """

    budget: str
    schedule: str
    tflops: float
    mean_visual_tokens: float
    relative_accuracy: float
    interval_low: float
    interval_high: float
    split: str
    samples: int
    on_front: bool


def non_dominated(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Mark the points that no other point dominates.

    A point is dominated by one that costs no more and is worth no less, and is strictly better in
    at least one of the two; equal points do not dominate each other.

    Args:
        costs: Cost per point, to be small.
        values: Value per point, to be large.

    Returns:
        True for each point on the front, in the order given.
    """
    front = [False] * len(costs)
    best, best_cost = float("-inf"), float("nan")
    for index in sorted(range(len(costs)), key=lambda index: (costs[index], -values[index])):
        if values[index] > best:
            best, best_cost = values[index], costs[index]
            front[index] = True
        elif values[index] == best and costs[index] == best_cost:
            front[index] = True
    return front


def pareto_points(results: Sequence[BudgetResult]) -> list[ParetoPoint]:
    """Collect the points of a study over its budgets.

    Args:
        results: One result per budget, of one study.

    Returns:
        The points by rising cost. The dense model, the same at every budget, is there once.
    """
    entries = [
        ("" if schedule.name == DENSE else result.budget, schedule, result)
        for number, result in enumerate(results)
        for schedule in result.schedules
        if schedule.name != DENSE or number == 0
    ]
    front = non_dominated(
        [schedule.tflops for _, schedule, _ in entries],
        [schedule.evidence.relative_accuracy for _, schedule, _ in entries],
    )
    points = [
        ParetoPoint(
            budget=budget,
            schedule=schedule.name,
            tflops=schedule.tflops,
            mean_visual_tokens=schedule.mean_visual_tokens,
            relative_accuracy=schedule.evidence.relative_accuracy,
            interval_low=schedule.evidence.interval_95[0],
            interval_high=schedule.evidence.interval_95[1],
            split=result.split,
            samples=result.samples,
            on_front=on_front,
        )
        for (budget, schedule, result), on_front in zip(entries, front, strict=True)
    ]
    return sorted(points, key=lambda point: (point.tflops, point.schedule))


def write_pareto(points: Sequence[ParetoPoint], path: Path) -> None:
    """Write ``pareto.csv``: a row per point, a column per attribute.

    Args:
        points: The points.
        path: The file to write or replace.

    Raises:
        StudyError: The file cannot be written.
    """
    columns = [field.name for field in fields(ParetoPoint)]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([getattr(point, column) for column in columns] for point in points)

"""What the figures show, as plain values; `studies.figures` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruners.errors import StudyError
from pruners.methods import METHODS
from studies.pareto import pareto_points
from studies.records import SAMPLED, TrialRecord
from studies.results import DENSE, SEARCHED, BudgetResult

LABELS = {
    SEARCHED: "searched",
    DENSE: "dense",
    **{name: method.label for name, method in METHODS.items()},
}
"""How schedules are called in figures and tables; others by their own name."""


@dataclass(frozen=True)
class Series:
    """One schedule's points over the budgets, by rising cost.

    Attributes:
        name: The schedule's name.
        tflops: Cost per point, in 10^12 FLOPs.
        percent: Relative accuracy per point, in percent of dense.
        low: Lower ends of the 95 % intervals, in percent.
        high: Upper ends of the 95 % intervals, in percent.
    """

    name: str
    tflops: tuple[float, ...]
    percent: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def label(self) -> str:
        """The schedule's name as readers know it."""
        return label(self.name)


@dataclass(frozen=True)
class ParetoFigure:
    """Relative accuracy against cost.

    Attributes:
        series: Searched first, then the published schedules, then dense.
        title: What was measured.
        cost_label: Label of the cost axis, with unit and convention.
        accuracy_label: Label of the accuracy axis, with unit and split.
    """

    series: tuple[Series, ...]
    title: str
    cost_label: str
    accuracy_label: str


@dataclass(frozen=True)
class HistoryFigure:
    """How a search at one budget went, on its search split.

    Attributes:
        numbers: Number of each trial that was scored and meets the budget.
        percent: Relative accuracy of each, in percent of dense.
        complete: Whether each was scored on as many samples as any; the others were stopped early,
            or not worth more.
        origins: ``"sampler"``, or the published schedule that each was or, after ``"near "``, was
            near to.
        incumbent: Best so far of the trials on the most samples, in percent; it may fall when a
            trial is scored on more than all before.
    """

    numbers: tuple[int, ...]
    percent: tuple[float, ...]
    complete: tuple[bool, ...]
    origins: tuple[str, ...]
    incumbent: tuple[float, ...]


@dataclass(frozen=True)
class SchedulePanel:
    """Visual tokens alive in each decoder layer, at one budget.

    Attributes:
        title: The budget.
        tokens: Visual tokens per decoder layer, by schedule; searched first, dense left out.
        dense_tokens: Visual tokens of the dense model.
        priced_for: Name of the shape whose layers these are.
    """

    title: str
    tokens: dict[str, tuple[int, ...]]
    dense_tokens: int
    priced_for: str


def label(name: str) -> str:
    """A schedule's name as readers know it.

    Args:
        name: The name in results.

    Returns:
        The label, the name itself when there is no other.
    """
    return LABELS.get(name, name)


def error_bars(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> tuple[list[float], list[float]]:
    """How far intervals reach from their estimates, as matplotlib wants it: never below 0.

    An interval without width can miss its estimate by a rounding error, which it would refuse.

    Args:
        values: The estimates.
        lows: Lower ends of their intervals.
        highs: Upper ends.

    Returns:
        Lengths below and above the estimates.
    """
    below = [max(0.0, value - low) for value, low in zip(values, lows, strict=True)]
    above = [max(0.0, high - value) for value, high in zip(values, highs, strict=True)]
    return below, above


def pareto_figure(results: Sequence[BudgetResult]) -> ParetoFigure:
    """Collect what the Pareto figure shows.

    Args:
        results: One result per budget.

    Returns:
        The series, the title and the axis labels.

    Raises:
        StudyError: There is no result.
    """
    if not results:
        raise StudyError("a figure needs the result of at least one budget")
    points = pareto_points(results)
    names = dict.fromkeys(
        name for result in results for name in (schedule.name for schedule in result.schedules)
    )
    ordered = [name for name in names if name != DENSE] + [DENSE]
    first = results[0]
    return ParetoFigure(
        series=tuple(
            Series(
                name=name,
                tflops=tuple(point.tflops for point in chosen),
                percent=tuple(100 * point.relative_accuracy for point in chosen),
                low=tuple(100 * point.interval_low for point in chosen),
                high=tuple(100 * point.interval_high for point in chosen),
            )
            for name in ordered
            for chosen in [[point for point in points if point.schedule == name]]
        ),
        title=f"Measured on {first.measured_on}, {first.samples} {first.split} samples",
        cost_label=f"Cost of a prefill of {first.priced_for}\n(TFLOPs, convention: total)",
        accuracy_label=f"Relative accuracy, {first.split} (% of dense)",
    )


def history_figure(records: Sequence[TrialRecord]) -> HistoryFigure:
    """Collect how a search went.

    Args:
        records: The trials of one budget.

    Returns:
        The scored trials within the budget, by number.
    """
    scored = [record for record in records if record.may_be_best]
    most = max((record.samples for record in scored), default=0)
    complete = [record.samples == most for record in scored]
    percent = [100 * (record.accuracy or 0.0) for record in scored]
    incumbent, best = [], (0, 0.0)
    for record, value in zip(scored, percent, strict=True):
        best = max(best, (record.samples, value))
        incumbent.append(best[1])
    return HistoryFigure(
        numbers=tuple(record.number for record in scored),
        percent=tuple(percent),
        complete=tuple(complete),
        origins=tuple(record.origin or SAMPLED for record in scored),
        incumbent=tuple(incumbent),
    )


def schedule_panels(results: Sequence[BudgetResult]) -> list[SchedulePanel]:
    """Collect what the schedule figure shows.

    Args:
        results: One result per budget.

    Returns:
        One panel per budget.
    """
    return [
        SchedulePanel(
            title=result.budget,
            tokens={
                schedule.name: schedule.visual_tokens_per_layer
                for schedule in result.schedules
                if schedule.name != DENSE
            },
            dense_tokens=max(result.schedule(DENSE).visual_tokens_per_layer),
            priced_for=result.priced_for,
        )
        for result in results
    ]

"""The task figure: how much of each task's accuracy schedules keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from space.budgets import budget_label
from studies.figure_data import error_bars
from studies.figure_style import (
    Width,
    color_of,
    hatch_of,
    inches,
    is_crowd,
    legend_label,
    unique_legend,
)
from studies.results import DENSE, SEARCHED, BudgetResult, ScheduleResult

_STANDING_OUT = (SEARCHED, "visiondrop", "desap")


@dataclass(frozen=True)
class TaskBar:
    """One schedule's accuracy on one task.

    Attributes:
        budget: The budget.
        schedule: The schedule's name.
        task: The task.
        percent: Accuracy in percent of the dense model's on the task.
        low: Lower end of its 95 % interval; None where it was not stored.
        high: Upper end.
    """

    budget: str
    schedule: str
    task: str
    percent: float
    low: float | None
    high: float | None


def task_bars(results: Sequence[BudgetResult]) -> list[TaskBar]:
    """Collect the bars.

    Args:
        results: One result per budget.

    Returns:
        The bars by budget, schedule and task; of more schedules than can be told apart, the
        searched one, VisionDrop and DeSAP.
    """
    return [
        _bar(result, schedule, task, accuracy)
        for result in results
        for schedule in _shown(result)
        for task, accuracy in schedule.evidence.tasks.items()
    ]


def task_points(bars: Sequence[TaskBar]) -> pd.DataFrame:
    """List the points.

    Args:
        bars: The bars.

    Returns:
        A row per bar.
    """
    columns = ["budget", "schedule", "task", "relative_accuracy_percent", "low", "high"]
    rows = [(bar.budget, bar.schedule, bar.task, bar.percent, bar.low, bar.high) for bar in bars]
    return pd.DataFrame(rows, columns=columns)


def draw_tasks(bars: Sequence[TaskBar], width: Width) -> Figure:
    """Draw groups of bars, a group per task, a panel per budget.

    Args:
        bars: The bars.
        width: How wide.

    Returns:
        The figure.
    """
    budgets = list(dict.fromkeys(bar.budget for bar in bars))
    columns = 1 if width == "column" or len(budgets) == 1 else 2
    rows = -(-len(budgets) // columns)
    figure = Figure(figsize=(inches(width), 0.9 + 1.05 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, budget in zip(axes, budgets, strict=False):
        _draw_panel(axis, [bar for bar in bars if bar.budget == budget])
        axis.set_title(budget_label(budget), fontsize="medium")
    for axis in axes[len(budgets) :]:
        axis.set_visible(False)
    # Names of tasks stand below the lowest panel of each column.
    for axis in axes[max(0, len(budgets) - columns) : len(budgets)]:
        axis.tick_params(labelbottom=True)
    unique_legend(figure, loc="outside upper center", ncols=3 if width == "column" else 6)
    figure.supylabel("Accuracy (% of dense)", fontsize="medium")
    return figure


def _draw_panel(axis: Axes, bars: Sequence[TaskBar]) -> None:
    names = list(dict.fromkeys(bar.schedule for bar in bars))
    tasks = list(dict.fromkeys(bar.task for bar in bars))
    wide = 0.8 / len(names)
    for place, name in enumerate(names):
        chosen = [bar for bar in bars if bar.schedule == name]
        heights = [bar.percent for bar in chosen]
        lows = [bar.low for bar in chosen if bar.low is not None]
        highs = [bar.high for bar in chosen if bar.high is not None]
        axis.bar(
            [tasks.index(bar.task) + (place - (len(names) - 1) / 2) * wide for bar in chosen],
            heights,
            width=0.92 * wide,
            yerr=error_bars(heights, lows, highs) if len(lows) == len(chosen) else None,
            color=color_of(name, names),
            hatch=hatch_of(name, names),
            edgecolor="white",
            linewidth=0.3,
            error_kw={"elinewidth": 0.8, "ecolor": "0.15", "capsize": 1.2},
            label=legend_label(name, names),
        )
    axis.axhline(100, color="0.25", linewidth=0.6, linestyle=":")
    axis.set_axisbelow(True)
    # Turned, so that long names of many tasks find room.
    axis.set_xticks(
        range(len(tasks)),
        [task.replace("_", " ") for task in tasks],
        rotation=25,
        ha="right",
        rotation_mode="anchor",
    )


def _shown(result: BudgetResult) -> list[ScheduleResult]:
    schedules = [schedule for schedule in result.schedules if schedule.name != DENSE]
    if is_crowd([schedule.name for schedule in schedules]):
        return [schedule for schedule in schedules if schedule.name in _STANDING_OUT]
    return schedules


def _bar(result: BudgetResult, schedule: ScheduleResult, task: str, accuracy: float) -> TaskBar:
    dense = result.schedule(DENSE).evidence.tasks[task]
    low, high = schedule.task_intervals.get(task, (None, None))
    return TaskBar(
        budget=result.budget,
        schedule=schedule.name,
        task=task,
        percent=100 * (accuracy / dense),
        low=None if low is None else 100 * low,
        high=None if high is None else 100 * high,
    )

"""The hypervolume figure: how much of the cost-accuracy plane a search dominates, over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from studies.figure_style import (
    Width,
    color_of,
    inches,
    legend_label,
    marker_of,
    samples_from_zero,
    unique_legend,
)
from studies.pareto import non_dominated
from studies.plots.incumbents import incumbent_steps, reported
from studies.reading import StoredStudy
from studies.results import DENSE, SEARCHED, BudgetResult


@dataclass(frozen=True)
class HypervolumeCurve:
    """How much a study's incumbents dominate, as its search goes on.

    Attributes:
        samples: Samples scored at all budgets, after each scored trial.
        percent: Hypervolume of the incumbents of all budgets, in percent of the rectangle between
            the reference point (the dense model's cost, no accuracy) and the ideal one (no cost,
            the dense model's accuracy). Valued as the anytime curves are, on the search split.
        reported: Hypervolume of each schedule over the budgets that have a result, on the report
            split; the searched one first, without the dense model, which adds nothing.
    """

    samples: tuple[int, ...]
    percent: tuple[float, ...]
    reported: dict[str, float]


def hypervolume(
    costs: Sequence[float], values: Sequence[float], reference: tuple[float, float]
) -> float:
    """Area that points dominate, cost to be small and value to be large.

    Args:
        costs: Cost per point.
        values: Value per point.
        reference: Cost and value beyond which nothing counts.

    Returns:
        The area between the front of the points and the reference point.
    """
    worst_cost, worst_value = reference
    front = sorted(
        {
            point
            for point, on_front in zip(
                zip(costs, values, strict=True), non_dominated(costs, values), strict=True
            )
            if on_front and point[0] < worst_cost and point[1] > worst_value
        }
    )
    area, below = 0.0, worst_value
    for cost, value in front:  # both rise along a front
        area += (worst_cost - cost) * (value - below)
        below = value
    return area


def hypervolume_curve(study: StoredStudy) -> HypervolumeCurve | None:
    """Collect the curve.

    Args:
        study: The study.

    Returns:
        The curve; None for fewer than two budgets with scored trials and a result, where there is
        no front.
    """
    results = reported(study)
    steps = incumbent_steps(trial for budget in study.budgets for trial in budget.trials)
    if len(results) < 2 or len(steps[-1:]) == 0 or len(steps[-1].incumbents) < 2:
        return None
    dense_tflops = results[0].schedule(DENSE).tflops
    names = [
        schedule.name
        for schedule in results[0].schedules
        if schedule.name != DENSE and all(_has(result, schedule.name) for result in results)
    ]
    return HypervolumeCurve(
        samples=tuple(step.samples for step in steps),
        percent=tuple(
            _share(
                [(incumbent.tflops, incumbent.accuracy) for incumbent in step.incumbents.values()],
                dense_tflops,
            )
            for step in steps
        ),
        reported={
            name: _share(
                [
                    (schedule.tflops, schedule.evidence.relative_accuracy)
                    for schedule in (result.schedule(name) for result in results)
                ],
                dense_tflops,
            )
            for name in names
        },
    )


def hypervolume_points(curve: HypervolumeCurve) -> pd.DataFrame:
    """List the points.

    Args:
        curve: The curve.

    Returns:
        A row per scored trial, and one per schedule that was reported.
    """
    rows = [
        (SEARCHED, "search", samples, percent)
        for samples, percent in zip(curve.samples, curve.percent, strict=True)
    ]
    rows += [
        (name, "report", curve.samples[-1], percent) for name, percent in curve.reported.items()
    ]
    return pd.DataFrame(rows, columns=["schedule", "split", "samples", "hypervolume_percent"])


def draw_hypervolume(curve: HypervolumeCurve, width: Width) -> Figure:
    """Draw the curve, and what was reported behind its end.

    Args:
        curve: The curve.
        width: How wide.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(inches(width), 2.4), layout="constrained")
    axis = figure.subplots()
    names = list(curve.reported)
    axis.step(
        curve.samples,
        curve.percent,
        where="post",
        color=color_of(SEARCHED, names),
        label="incumbents, search split",
    )
    for name, percent in curve.reported.items():
        axis.plot(
            [1.06 * curve.samples[-1]],
            [percent],
            linestyle="none",
            color=color_of(name, names),
            marker=marker_of(name, names),
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            label=f"{legend_label(name, names)}, reported",
        )
    samples_from_zero(axis, curve.percent[0])
    axis.set_xlabel("Samples scored at all budgets")
    axis.set_ylabel("Dominated hypervolume (%)")
    unique_legend(figure, loc="outside upper center", ncols=2 if width == "column" else 4)
    return figure


def _has(result: BudgetResult, name: str) -> bool:
    return any(schedule.name == name for schedule in result.schedules)


def _share(points: Sequence[tuple[float, float]], dense_tflops: float) -> float:
    costs, values = zip(*points, strict=True)
    return 100 * hypervolume(costs, values, (dense_tflops, 0.0)) / dense_tflops

"""The anytime figure: how good a search's answer is after so many samples."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from space.budgets import budget_label
from studies.figure_data import error_bars
from studies.figure_style import Width, budget_styles, inches, samples_from_zero, unique_legend
from studies.plots.incumbents import found, incumbent_steps, reported
from studies.reading import StoredStudy


@dataclass(frozen=True)
class AnytimeCurve:
    """How the search of one budget went.

    Attributes:
        budget: The budget.
        samples: Samples scored at this budget, after each scored trial.
        percent: What the incumbent at that time is worth, in percent of dense, as estimated from
            all trials on the search split.
        reported: What was reported of the searched schedule on samples that the search never saw,
            with both ends of its 95 % interval, in percent; None where nothing was reported yet.
    """

    budget: str
    samples: tuple[int, ...]
    percent: tuple[float, ...]
    reported: tuple[float, float, float] | None


def anytime_curves(study: StoredStudy) -> list[AnytimeCurve]:
    """Collect the curves.

    Args:
        study: The study.

    Returns:
        A curve for each budget at which a trial was scored.
    """
    curves = []
    results = reported(study)
    for stored in study.budgets:
        steps = incumbent_steps(stored.trials)
        if not steps:
            continue
        incumbents = [step.incumbents[stored.budget] for step in steps]
        curves.append(
            AnytimeCurve(
                budget=stored.budget,
                samples=tuple(step.samples for step in steps),
                percent=tuple(100 * incumbent.accuracy for incumbent in incumbents),
                reported=found(results, stored.budget),
            )
        )
    return curves


def anytime_points(curves: list[AnytimeCurve]) -> pd.DataFrame:
    """List the points.

    Args:
        curves: The curves.

    Returns:
        A row per budget and scored trial, and one per budget for what was reported.
    """
    rows: list[tuple[object, ...]] = []
    for curve in curves:
        rows += [
            (curve.budget, "search", samples, percent, None, None)
            for samples, percent in zip(curve.samples, curve.percent, strict=True)
        ]
        if curve.reported is not None:
            rows.append((curve.budget, "report", curve.samples[-1], *curve.reported))
    columns = ["budget", "split", "samples", "relative_accuracy_percent", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def anytime(curves: list[AnytimeCurve], width: Width) -> Figure:
    """Draw the curves, a step each, and what was reported behind their ends.

    Args:
        curves: The curves.
        width: How wide.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(inches(width), 2.6), layout="constrained")
    axis = figure.subplots()
    most = max(curve.samples[-1] for curve in curves)
    for curve, look in zip(curves, budget_styles(len(curves)), strict=True):
        axis.step(
            curve.samples,
            curve.percent,
            where="post",
            label=budget_label(curve.budget),
            markevery=max(1, len(curve.samples) // 6),
            markersize=3.5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            **look,
        )
        if curve.reported is not None:
            value, low, high = curve.reported
            axis.errorbar(
                # Those of several budgets stand beside each other.
                [most * (1.04 + 0.03 * curves.index(curve))],
                [value],
                yerr=error_bars([value], [low], [high]),
                color=look["color"],
                marker=look["marker"],
                markerfacecolor="white",
                markersize=4,
                elinewidth=0.9,
                capsize=1.5,
            )
    if any(curve.reported is not None for curve in curves):
        # An entry for all of them.
        look = {"color": "0.3", "marker": "o", "markerfacecolor": "white", "markersize": 4}
        label = "reported, 95 % interval"
        axis.errorbar([], [], yerr=[], linestyle="none", capsize=1.5, label=label, **look)
    samples_from_zero(axis, curves[0].percent[0])
    axis.set_xlabel("Samples scored at this budget")
    axis.set_ylabel("Relative accuracy of\nthe incumbent (% of dense)")
    unique_legend(figure, loc="outside upper center", ncols=2 if width == "column" else 6)
    return figure

"""The Pareto figure: relative accuracy against cost, searched beside published and dense."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from studies.figure_data import (
    HistoryFigure,
    ParetoFigure,
    Series,
    error_bars,
    history_figure,
    pareto_figure,
)
from studies.figure_style import (
    SMALL_POINTS,
    Width,
    color_of,
    in_crowd,
    inches,
    is_crowd,
    legend_label,
    marker_of,
    origin_label,
    unique_legend,
)
from studies.records import NEAR, SAMPLED, TrialRecord
from studies.results import DENSE, SEARCHED, BudgetResult

_DODGE_POINTS = 3.5  # markers at the same cost stand this far apart


def pareto(results: Sequence[BudgetResult], width: Width) -> Figure:
    """Draw relative accuracy against cost over several budgets.

    The searched schedules are a line, dense and the published schedules other markers, with 95 %
    intervals. Of more schedules than colours tell apart, the others are grey.

    Args:
        results: One result per budget.
        width: How wide.

    Returns:
        The figure.

    Raises:
        StudyError: There is no result.
    """
    content = pareto_figure(results)
    figure = Figure(figsize=(inches(width), 2.9), layout="constrained")
    _draw_front(figure.subplots(), content)
    # Above, as nothing is known of where in the axes the data leave room.
    unique_legend(figure, loc="outside upper center", ncols=3 if width == "column" else 6)
    return figure


def comparison(results: Sequence[BudgetResult], width: Width) -> Figure:
    """Draw the schedules of one budget, which cost the same, below each other.

    Args:
        results: The result of one budget.
        width: How wide.

    Returns:
        The figure.

    Raises:
        StudyError: There is no result.
    """
    content = pareto_figure(results)
    height = 1.2 + 0.18 * len(content.series)
    figure = Figure(figsize=(inches(width), height), layout="constrained")
    _draw_list(figure.subplots(), content)
    return figure


def comparison_and_search(
    results: Sequence[BudgetResult], records: Sequence[TrialRecord]
) -> Figure:
    """Draw the schedules of one budget beside the trials of its search, on both columns.

    Args:
        results: The result of one budget.
        records: Its trials.

    Returns:
        The figure.

    Raises:
        StudyError: There is no result.
    """
    content = pareto_figure(results)
    crowded = is_crowd([series.name for series in content.series])
    height = 1.2 + 0.18 * len(content.series) if crowded else 2.7
    figure = Figure(figsize=(inches("page"), height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=not crowded, width_ratios=(3, 2))
    _draw_history(left, history_figure(records), content)
    if crowded:
        _draw_list(right, content)
    else:
        _draw_side_by_side(right, content)
    right.set_title("Report split, with 95 % intervals", fontsize="medium")
    handles, labels = left.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower left", ncols=5, frameon=False)
    return figure


def _draw_front(axis: Axes, content: ParetoFigure) -> None:
    names = [series.name for series in content.series]
    for position, series in enumerate(content.series):
        offset = 0.0 if series.name in (SEARCHED, DENSE) else _DODGE_POINTS * (-1) ** position
        _draw_series(
            axis,
            series,
            names,
            offset_points=offset,
            without_interval=in_crowd(series.name, names),
        )
    axis.axhline(100, color="0.25", linewidth=0.6, linestyle=":", zorder=0)
    axis.set_xlim(left=0)
    axis.set_xlabel(content.cost_label)
    axis.set_ylabel(content.accuracy_label)


def _draw_series(
    axis: Axes,
    series: Series,
    names: Sequence[str],
    offset_points: float = 0.0,
    without_interval: bool = False,
) -> None:
    figure = axis.get_figure()
    assert figure is not None
    shift = ScaledTranslation(offset_points / 72, 0, figure.dpi_scale_trans)
    plain = series.name == DENSE or without_interval
    axis.errorbar(
        series.tflops,
        series.percent,
        yerr=None if plain else error_bars(series.percent, series.low, series.high),
        color=color_of(series.name, names),
        marker=marker_of(series.name, names),
        markersize=8 if series.name == DENSE else 4.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        linestyle="-" if series.name == SEARCHED else "none",
        linewidth=1.2,
        elinewidth=0.9,
        capsize=1.5,
        label=legend_label(series.name, names),
        transform=axis.transData + shift,
        zorder=3 if series.name == SEARCHED else 1 if in_crowd(series.name, names) else 2,
    )
    # A shifted transform is left out of the limits, so they are told.
    for ends in (series.low, series.high):
        axis.update_datalim(list(zip(series.tflops, ends, strict=True)))
    axis.autoscale_view()


def _draw_side_by_side(axis: Axes, content: ParetoFigure) -> None:
    names = [series.name for series in content.series]
    for position, series in enumerate(content.series):
        standing = Series(series.name, (position,), series.percent, series.low, series.high)
        _draw_series(axis, standing, names)
        axis.annotate(
            f"{series.percent[0]:.1f}",
            (position, series.percent[0]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL_POINTS,
        )
    axis.axhline(100, color="0.25", linewidth=0.6, linestyle=":", zorder=0)
    axis.set_xticks(
        range(len(names)),
        [f"{series.label}\n{series.tflops[0]:.2f}" for series in content.series],
    )
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_xlabel(content.cost_label)


def _draw_list(axis: Axes, content: ParetoFigure) -> None:
    """Draw schedules below each other, which leaves room for the names of many."""
    names = [series.name for series in content.series]
    for position, series in enumerate(content.series):
        ends = series.percent[:1], series.low[:1], series.high[:1]
        axis.errorbar(
            series.percent[:1],
            [position],
            xerr=None if series.name == DENSE else error_bars(*ends),
            color=color_of(series.name, names),
            marker=marker_of(series.name, names),
            markersize=8 if series.name == DENSE else 4.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=0.9,
            capsize=1.5,
        )
    axis.axvline(100, color="0.25", linewidth=0.6, linestyle=":", zorder=0)
    axis.grid(False)
    axis.set_yticks(
        range(len(names)), [f"{series.label}, {series.tflops[0]:.2f}" for series in content.series]
    )
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"{content.accuracy_label}\nBeside the names: TFLOPs of a prefill")


def _draw_history(axis: Axes, history: HistoryFigure, content: ParetoFigure) -> None:
    names = [series.name for series in content.series]
    trials = list(
        zip(history.numbers, history.percent, history.complete, history.origins, strict=True)
    )
    for complete in (True, False):
        chosen = [trial[:2] for trial in trials if trial[2] is complete and trial[3] == SAMPLED]
        axis.plot(
            [number for number, _ in chosen],
            [value for _, value in chosen],
            linestyle="none",
            marker="o",
            markersize=2.8,
            markerfacecolor="0.6" if complete else "none",
            markeredgecolor="0.6" if complete else "0.78",
            markeredgewidth=0.5,
            label="trial" if complete else "trial on fewer samples",
        )
    for number, value, _, origin in trials:
        method = origin.removeprefix(NEAR)
        if method in names:
            axis.plot(
                [number],
                [value],
                linestyle="none",
                marker=marker_of(method, names),
                # Hollow where the trial is only near to the method.
                markerfacecolor=color_of(method, names) if method == origin else "white",
                markersize=4.5,
                markeredgecolor="white" if method == origin else color_of(method, names),
                markeredgewidth=0.5 if method == origin else 1.0,
                label=origin_label(origin, names),
                zorder=3,
            )
    axis.step(
        history.numbers,
        history.incumbent,
        where="post",
        color=color_of(SEARCHED, names),
        label="best on the most samples",
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("Trial")
    axis.set_ylabel("Relative accuracy (% of dense)")
    axis.set_title("Search split", fontsize="medium")

"""The schedules themselves: a staircase of visual tokens alive in each decoder layer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from space.budgets import budget_label
from studies.figure_data import SchedulePanel, schedule_panels
from studies.figure_style import (
    Width,
    color_of,
    in_crowd,
    inches,
    legend_label,
    line_of,
    unique_legend,
    wrapped,
)
from studies.results import SEARCHED, BudgetResult


def staircase_points(results: Sequence[BudgetResult]) -> pd.DataFrame:
    """List the steps of the staircases.

    Args:
        results: One result per budget.

    Returns:
        A row per budget, schedule and decoder layer: visual tokens alive in the layer.
    """
    return pd.DataFrame(
        [
            (panel.title, name, layer, alive)
            for panel in schedule_panels(results)
            for name, tokens in panel.tokens.items()
            for layer, alive in enumerate(tokens)
        ],
        columns=["budget", "schedule", "layer", "visual_tokens"],
    )


def staircase(results: Sequence[BudgetResult], width: Width) -> Figure:
    """Draw the staircases, a panel per budget.

    Args:
        results: One result per budget.
        width: How wide.

    Returns:
        The figure.
    """
    panels = schedule_panels(results)
    columns = _columns(len(panels), width)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(inches(width), 0.75 + 1.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, inches(width) / columns)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    unique_legend(figure, loc="outside upper center", ncols=3 if width == "column" else 6)
    figure.supylabel("Visual tokens alive", fontsize="medium")
    dense = panels[0].dense_tokens
    text = f"Decoder layer of {panels[0].priced_for}\n(dense: {dense} visual tokens)"
    figure.supxlabel(text, fontsize="medium")
    return figure


def _columns(panels: int, width: Width) -> int:
    if width == "column":
        return min(panels, 2)
    return 2 if panels == 2 else 4 if panels % 4 == 0 else min(panels, 3)


def _draw_panel(axis: Axes, panel: SchedulePanel, width: float) -> None:
    names = list(panel.tokens)
    for name, tokens in panel.tokens.items():
        axis.stairs(
            tokens,
            range(len(tokens) + 1),
            baseline=None,
            color=color_of(name, names),
            # Thick and below, so that a schedule equal to it stays visible.
            linewidth=3 if name == SEARCHED else 0.7 if in_crowd(name, names) else 1.2,
            linestyle=line_of(name, names),
            label=legend_label(name, names),
            zorder=1 if in_crowd(name, names) else 2 if name == SEARCHED else 3,
        )
    layers = len(next(iter(panel.tokens.values())))
    axis.set_xlim(0, layers)
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 4, 8, 10]))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axis.set_title(wrapped(budget_label(panel.title), width), fontsize="medium")

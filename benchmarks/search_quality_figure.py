"""The figure of `search_quality.py`: a data step, then a thin drawing step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from search_quality_records import Curve, Result, Summary

from studies.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED_PEERS = 4
"""Peers with a line style of their own: the best ones; the rest are thin and grey."""

WIDTH_INCHES, HEIGHT_INCHES = 10.0, 6.0
DPI = 160


@dataclass(frozen=True)
class Line:
    """A strategy's curve.

    Attributes:
        label: Its name; None for a peer that is not told apart from others.
        ours: Whether it is ours.
        samples: Samples scored, rising.
        percent: Mean relative accuracy of the incumbent, in percent.
        low: Lower ends of the 95 % intervals.
        high: Upper ends.
    """

    label: str | None
    ours: bool
    samples: tuple[int, ...]
    percent: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One budget.

    Attributes:
        title: The budget.
        lines: Peers without a name first, ours last.
        optimum: What the schedule that is best on the search split has, in percent.
    """

    title: str
    lines: tuple[Line, ...]
    optimum: float


def panels(summary: Summary, dense_tokens: int) -> tuple[Panel, ...]:
    """Collect what the figure shows: the runs of the highest cost.

    Args:
        summary: The benchmark's results.
        dense_tokens: Visual tokens of the dense model.

    Returns:
        One panel per budget.
    """
    cost = max(result.cost for result in summary.results)
    shown = [result for result in summary.results if result.cost == cost]
    named = best_peers(shown, summary.ours)
    found = []
    for optimum in summary.optima:
        results = {
            result.strategy: result for result in shown if result.mean_tokens == optimum.mean_tokens
        }
        others = [name for name in results if name not in (*named, summary.ours)]
        order = [*others, *(name for name in named if name in results)]
        order += [summary.ours] if summary.ours in results else []
        found.append(
            Panel(
                title=f"{100 * optimum.mean_tokens / dense_tokens:.3g} % of the visual tokens",
                lines=tuple(
                    _line(results[name].curve, None if name in others else name, summary.ours)
                    for name in order
                ),
                optimum=100 * optimum.search_best,
            )
        )
    return tuple(found)


def best_peers(results: Sequence[Result], ours: str) -> list[str]:
    """Name the peers with the highest relative accuracy, mean over budgets, best first."""
    values: dict[str, list[float]] = {}
    for result in results:
        if result.strategy != ours:
            values.setdefault(result.strategy, []).append(result.relative_accuracy.mean)
    ranked = sorted(values, key=lambda name: -float(np.mean(values[name])))
    return ranked[:NAMED_PEERS]


def draw(content: Sequence[Panel], path: Path) -> None:
    """Draw the figure as a PNG.

    Args:
        content: What it shows, at most five panels; the sixth place has the legend.
        path: The file to write or replace.

    Raises:
        StudyError: The file cannot be written.
    """
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.figure import Figure

    style = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper", font_scale=1.0),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": "0.92",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
        axes = figure.subplots(2, 3, sharex=True).flatten()
        for axis, panel in zip(axes, content, strict=False):
            _draw_panel(axis, panel)
        for axis in axes[len(content) :]:
            axis.axis("off")
        handles, labels = axes[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        names = list(reversed(unique))  # ours first
        axes[-1].legend([unique[name] for name in names], names, loc="center", frameon=False)
        figure.supylabel("Relative accuracy of the incumbent, report split (% of dense)")
        figure.supxlabel("Samples scored at this budget")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DPI)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    import seaborn as sns
    from matplotlib.ticker import NullLocator

    palette = sns.color_palette("colorblind").as_hex()
    styles = [(palette[1], "--"), (palette[2], "-."), (palette[4], ":"), (palette[5], (0, (5, 1)))]
    axis.axhline(
        panel.optimum,
        color="0.3",
        linewidth=0.8,
        linestyle=(0, (1, 1)),
        label="best on the search split",
    )
    named = 0
    for line in panel.lines:
        color, linestyle, width, label = "0.75", "-", 0.8, "other peers"
        if line.ours:
            color, width, label = palette[0], 2.6, line.label
        elif line.label is not None:
            (color, linestyle), width, label = styles[named], 1.6, line.label
            named += 1
        axis.plot(
            line.samples,
            line.percent,
            color=color,
            linestyle=linestyle,
            linewidth=width,
            label=label,
        )
        if line.label is not None:
            axis.fill_between(
                line.samples,
                line.low,
                line.high,
                color=color,
                alpha=0.22 if line.ours else 0.1,
                linewidth=0,
            )
    axis.set_xscale("log")
    last = max(line.samples[-1] for line in panel.lines)
    ticks = [last / 4**power for power in reversed(range(4))]
    axis.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(ticks[0] / 2, last)
    axis.set_ylim(*_visible(panel, ticks[0] / 2))
    axis.tick_params(labelbottom=True)
    axis.set_title(panel.title, fontsize="medium")


def _visible(panel: Panel, start: float) -> tuple[float, float]:
    """Limits that hold every curve from its first tick on, and the optimum."""
    shown = [
        value
        for line in panel.lines
        for samples, value in zip(line.samples, line.percent, strict=True)
        if samples >= start
    ]
    low, high = min(shown), max([*shown, panel.optimum])
    return low - 0.04 * (high - low), high + 0.06 * (high - low)


def _line(curve: Curve, label: str | None, ours: str) -> Line:
    return Line(
        label=label,
        ours=label == ours,
        samples=curve.samples,
        percent=tuple(100 * value for value in curve.mean),
        low=tuple(100 * value for value in curve.low),
        high=tuple(100 * value for value in curve.high),
    )

"""The figure of `methods.py`: a data step, then a thin drawing step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from methods_summary import MethodResult, Summary

from studies.files import atomic_path
from studies.results import FAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IN_ENCODER = "All tokens leave before the decoder"
IN_DECODER = "Tokens leave in the decoder"

WIDTH_INCHES, HEIGHT_INCHES = 9.0, 4.6
DPI = 160
LABEL_GAP = 0.041
"""Least distance between two labels, as a share of the axis' height."""


@dataclass(frozen=True)
class Line:
    """A method's points, by rising cost.

    Attributes:
        label: What its authors call it.
        control: Whether it is a control, which all panels show.
        tflops: Cost per point, convention `total`.
        percent: Relative accuracy per point, in percent of dense.
        low: Lower ends of the 95 % intervals, in percent.
        high: Upper ends of the 95 % intervals, in percent.
        flattered: Whether the point keeps far more tokens when measured than it is priced for.
    """

    label: str
    control: bool
    tflops: tuple[float, ...]
    percent: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    flattered: tuple[bool, ...]


@dataclass(frozen=True)
class Panel:
    """Methods whose tokens leave at the same places, and the controls.

    Attributes:
        title: Where their tokens leave.
        lines: Methods by falling mean accuracy, then the controls.
    """

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class MethodsFigure:
    """What the figure shows.

    Attributes:
        panels: One per place where tokens leave.
        ticks: The budgets in TFLOPs, by rising cost, and how each is called.
        cost_label: Label of the cost axis.
        accuracy_label: Label of the accuracy axis.
    """

    panels: tuple[Panel, ...]
    ticks: dict[float, str]
    cost_label: str
    accuracy_label: str


@dataclass(frozen=True)
class LineStyle:
    """How a line is drawn."""

    color: str
    linestyle: str
    marker: str


def methods_figure(summary: Summary) -> MethodsFigure:
    """Collect what the figure shows.

    Args:
        summary: The benchmark's results.

    Returns:
        The panels and the labels.
    """
    points: dict[str, list[MethodResult]] = {}
    for budget in reversed(summary.budgets):
        for method in budget.methods:
            points.setdefault(method.name, []).append(method)
    panels = []
    for title, in_decoder in ((IN_ENCODER, False), (IN_DECODER, True)):
        lines = [
            _line(results)
            for results in points.values()
            if results[0].control or (max(results[0].layers) > 0) == in_decoder
        ]
        ordered = sorted(lines, key=lambda line: (line.control, -_mean(line.percent)))
        panels.append(Panel(title, tuple(ordered)))
    return MethodsFigure(
        panels=tuple(panels),
        ticks={
            budget.tflops: f"{budget.tflops:.2f}\n{100 * budget.llm_share_of_dense:.1f} %"
            for budget in reversed(summary.budgets)
        },
        cost_label=(
            f"Cost of a prefill of {summary.priced_for}: TFLOPs, convention total; below, share of "
            "the dense decoder's cost, convention llm-macs.\nHollow: the measured model keeps over "
            f"{FAR:g} times the share of tokens that is priced."
        ),
        accuracy_label="Relative accuracy (% of dense)",
    )


def spread_labels(heights: Sequence[float], gap: float) -> list[float]:
    """Move labels apart, no farther than needed, so that none covers another.

    Args:
        heights: Where the labels belong.
        gap: Least distance between two of them.

    Returns:
        Where they go, in the order given. Labels that touch form a block, whose mean stays.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    blocks: list[tuple[float, list[int]]] = []  # middle, and the labels from the lowest
    for index in order:
        middle, members = heights[index], [index]
        while blocks and (middle - blocks[-1][0] < gap * (len(members) + len(blocks[-1][1])) / 2):
            below, earlier = blocks.pop()
            total = below * len(earlier) + middle * len(members)
            members = earlier + members
            middle = total / len(members)
        blocks.append((middle, members))
    placed = [0.0] * len(heights)
    for middle, members in blocks:
        for rank, index in enumerate(members):
            placed[index] = middle + (rank - (len(members) - 1) / 2) * gap
    return placed


def draw(content: MethodsFigure, path: Path) -> None:
    """Draw the figure as a PNG.

    Args:
        content: What it shows.
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
        axes = figure.subplots(1, len(content.panels), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, content.panels, strict=True):
            _draw_panel(axis, panel, content)
        axes[0].set_ylabel(content.accuracy_label)
        for axis, panel in zip(axes, content.panels, strict=True):
            _label_lines(axis, panel)
        figure.supxlabel(content.cost_label, fontsize="medium")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DPI)


def _draw_panel(axis: Axes, panel: Panel, content: MethodsFigure) -> None:
    from matplotlib.ticker import NullLocator

    count = len(panel.lines)
    for number, (line, style) in enumerate(zip(panel.lines, _styles(panel), strict=True)):
        # Side by side, so that whiskers at one budget stay apart.
        dodge = 1.006 ** (number - (count - 1) / 2)
        axis.errorbar(
            [dodge * cost for cost in line.tflops],
            line.percent,
            yerr=(
                [value - low for value, low in zip(line.percent, line.low, strict=True)],
                [high - value for value, high in zip(line.percent, line.high, strict=True)],
            ),
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            linewidth=1.2,
            elinewidth=0.8,
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker,
        )
        axis.plot(
            [dodge * cost for cost, far in zip(line.tflops, line.flattered, strict=True) if far],
            [value for value, far in zip(line.percent, line.flattered, strict=True) if far],
            linestyle="none",
            marker=style.marker,
            markersize=4,
            markerfacecolor="white",
            markeredgecolor=style.color,
            zorder=3,
        )
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(list(content.ticks), list(content.ticks.values()))
    axis.set_title(panel.title, fontsize="medium")


def _label_lines(axis: Axes, panel: Panel) -> None:
    """Write each method's name beside its last point."""
    low, high = axis.get_ylim()
    last = [line.percent[-1] for line in panel.lines]
    heights = spread_labels(last, LABEL_GAP * (high - low))
    right = max(cost for line in panel.lines for cost in line.tflops)
    for line, style, value, height in zip(panel.lines, _styles(panel), last, heights, strict=True):
        color = style.color
        axis.plot(
            [right * 1.03, right * 1.07],
            [value, height],
            color=color,
            linewidth=0.6,
            clip_on=False,
            scalex=False,
            scaley=False,
        )
        axis.text(right * 1.08, height, line.label, color=color, va="center", fontsize="small")


def _styles(panel: Panel) -> list[LineStyle]:
    """Controls dashed and grey, methods in colours that colour-blind readers tell apart."""
    import seaborn as sns

    palette = sns.color_palette("colorblind").as_hex()
    methods = [
        LineStyle(palette[index], "-", marker)
        for index, marker in zip((0, 1, 2, 3, 4, 5, 9), "osD^v<>", strict=True)
    ]  # neither the palette's grey nor its pale yellow
    controls = [LineStyle("0.45", "--", marker) for marker in "sd"]
    ordinals = {True: 0, False: 0}
    styles = []
    for line in panel.lines:
        known = controls if line.control else methods
        styles.append(known[ordinals[line.control] % len(known)])
        ordinals[line.control] += 1
    return styles


def _line(results: Sequence[MethodResult]) -> Line:
    return Line(
        label=results[0].label,
        control=results[0].control,
        tflops=tuple(result.tflops for result in results),
        percent=tuple(100 * result.relative_accuracy for result in results),
        low=tuple(100 * result.interval_95[0] for result in results),
        high=tuple(100 * result.interval_95[1] for result in results),
        flattered=tuple(result.flattered for result in results),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""What the page's charts show, in percent of their plot area; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from space.budgets import budget_label
from studies.figure_data import label, schedule_panels
from studies.pareto import ParetoPoint, non_dominated, pareto_points
from studies.report_page.axes import (
    MOST_TICKS,
    Tick,
    line,
    linear_ticks,
    logarithmic_ticks,
    rounded,
    stairs,
)
from studies.results import DENSE, SEARCHED, BudgetResult, ScheduleResult

_NAMED = {SEARCHED: 0, DENSE: 1, "visiondrop": 2, "desap": 3}
"""Colours and markers that schedules have on every page; others take the next ones."""

_STYLES = 6  # colours that readers tell apart; more schedules than that share a grey


@dataclass(frozen=True)
class FrontPoint:
    """A schedule in the chart of the front.

    Attributes:
        x: Where it is from the left, in percent.
        y: Where it is from the top, in percent.
        low: Where the lower end of its interval is, from the top.
        high: Where the upper end is.
        shift: Pixels to draw it to the right, so that points of equal cost stand apart.
        series: Number of its series.
        budget: Number of its budget; None for dense.
        on_front: Whether no other point is as cheap and as accurate, and better in one of them.
        text: The point in words.
    """

    x: float
    y: float
    low: float
    high: float
    shift: float
    series: int
    budget: int | None
    on_front: bool
    text: str


@dataclass(frozen=True)
class Series:
    """A schedule's points, or steps, over the budgets.

    Attributes:
        label: What it is called.
        style: Number of its colour and marker; None for the grey of many.
        line: Its line through the chart as SVG's `points`, in percent; empty without one.
    """

    label: str
    style: int | None
    line: str = ""


@dataclass(frozen=True)
class FrontChart:
    """Relative accuracy against cost.

    Attributes:
        cost: What the horizontal axis shows, with its unit.
        across: Its ticks.
        up: Ticks of the vertical axis, from the bottom, in percent of dense.
        series: The schedules, the searched one first.
        points: Their points, by rising cost.
        front: The front as a staircase, as SVG's `points`.
    """

    cost: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    series: tuple[Series, ...]
    points: tuple[FrontPoint, ...]
    front: str


@dataclass(frozen=True)
class StairChart:
    """Visual tokens alive in each decoder layer, at one budget.

    Attributes:
        across: Ticks of the layers.
        up: Ticks of the tokens.
        series: The schedules, the searched one first.
        text: The searched schedule's staircase in words.
    """

    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    series: tuple[Series, ...]
    text: str


def style_of(name: str, names: Sequence[str]) -> int | None:
    """Return the number of a schedule's colour and marker beside some others.

    Args:
        name: The schedule.
        names: All schedules of the page.

    Returns:
        The number; None where there are too many to tell apart.
    """
    if name in _NAMED:
        return _NAMED[name]
    others = [other for other in names if other not in _NAMED]
    free = _STYLES - len(_NAMED)
    return len(_NAMED) + others.index(name) if len(others) <= free else None


def names_of(results: Sequence[BudgetResult]) -> list[str]:
    """List the schedules of a study: the searched one, dense, then the others as they come."""
    found = (schedule.name for result in results for schedule in result.schedules)
    return list(dict.fromkeys((SEARCHED, DENSE, *found)))


def front_chart(results: Sequence[BudgetResult], *, by_tokens: bool) -> FrontChart:
    """Lay out the chart of relative accuracy against cost.

    Args:
        results: The results of at least one budget.
        by_tokens: Whether cost is mean visual tokens instead of TFLOPs.

    Returns:
        The chart; cost has a logarithmic axis.
    """
    points = pareto_points(results)
    names = names_of(results)
    budgets = [result.budget for result in results]
    costs = [point.mean_visual_tokens if by_tokens else point.tflops for point in points]
    least, most = math.log(min(costs)) - 0.1, math.log(max(costs)) + 0.1
    ends = [end for point in points for end in (point.interval_low, point.interval_high)]
    up = linear_ticks(100 * min(ends), 100 * max(ends))
    floor, ceiling = float(up[0].text), float(up[-1].text)

    def across(cost: float) -> float:
        return rounded(100 * (math.log(cost) - least) / (most - least))

    def down(value: float) -> float:
        return rounded(100 * (ceiling - 100 * value) / (ceiling - floor))

    front = non_dominated(costs, [point.relative_accuracy for point in points])
    laid_out = [
        FrontPoint(
            x=across(cost),
            y=down(point.relative_accuracy),
            low=down(point.interval_low),
            high=down(point.interval_high),
            shift=_shift(point.schedule, names),
            series=names.index(point.schedule),
            budget=budgets.index(point.budget) if point.budget else None,
            on_front=on_front,
            text=_in_words(point),
        )
        for point, cost, on_front in zip(points, costs, front, strict=True)
    ]
    own = [point for point in laid_out if point.series == names.index(SEARCHED)]
    reached = sorted((point for point in laid_out if point.on_front), key=lambda point: point.x)
    return FrontChart(
        cost=(
            "Mean visual tokens per layer"
            if by_tokens
            else "Cost of a prefill, TFLOPs (convention total)"
        ),
        across=tuple(
            Tick(across(value), f"{value:.3g}")
            for value in logarithmic_ticks(math.exp(least), math.exp(most))
        ),
        up=tuple(Tick(down(float(tick.text) / 100), tick.text) for tick in up),
        series=tuple(
            Series(
                label(name),
                style_of(name, names),
                line([(point.x, point.y) for point in own]) if name == SEARCHED else "",
            )
            for name in names
        ),
        points=tuple(laid_out),
        front=stairs([(point.x, point.y) for point in reached]),
    )


def stair_chart(result: BudgetResult, names: Sequence[str]) -> StairChart:
    """Lay out the chart of visual tokens by decoder layer.

    Args:
        result: The result at one budget.
        names: All schedules of the page.

    Returns:
        The chart.
    """
    (panel,) = schedule_panels([result])
    most = max(max(tokens) for tokens in panel.tokens.values())
    up = linear_ticks(0, most)
    top = float(up[-1].text)
    layers = max(map(len, panel.tokens.values()))

    def steps(tokens: Sequence[int]) -> str:
        corners = [(100.0 * layer / len(tokens), count) for layer, count in enumerate(tokens)]
        corners.append((100.0, tokens[-1]))
        return stairs([(x, 100 * (top - count) / top) for x, count in corners])

    step = next(size for size in (1, 2, 4, 5, 8, 10, 16, 20, 50) if layers <= MOST_TICKS * size)
    return StairChart(
        across=tuple(
            Tick(rounded(100 * layer / layers), str(layer)) for layer in range(0, layers + 1, step)
        ),
        up=up,
        series=tuple(
            Series(label(name), style_of(name, names), steps(tokens))
            for name, tokens in panel.tokens.items()
        ),
        text=tokens_in_words(result.schedule(SEARCHED)),
    )


def tokens_in_words(schedule: ScheduleResult) -> str:
    """Say how many visual tokens are alive in which layers.

    Args:
        schedule: A schedule's result.

    Returns:
        For example ``"103 tokens in layers 0 to 3, 54 in layers 4 to 31"``.
    """
    tokens = schedule.visual_tokens_per_layer
    starts = [0, *(place + 1 for place, (a, b) in enumerate(pairwise(tokens)) if a != b)]
    parts = []
    for start, end in pairwise([*starts, len(tokens)]):
        where = f"layer {start}" if end == start + 1 else f"layers {start} to {end - 1}"
        parts.append(f"{tokens[start]}{' tokens' if start == 0 else ''} in {where}")
    return ", ".join(parts)


def _in_words(point: ParetoPoint) -> str:
    where = f" at {budget_label(point.budget)}" if point.budget else ""
    low, high = 100 * point.interval_low, 100 * point.interval_high
    accuracy = f"{100 * point.relative_accuracy:.1f} % of dense"
    if point.schedule != DENSE:
        accuracy += f" [{low:.1f}, {high:.1f}]"
    return (
        f"{label(point.schedule)}{where}: {accuracy}, {point.tflops:.3f} TFLOPs, "
        f"{point.mean_visual_tokens:.1f} mean visual tokens"
    )


def _shift(name: str, names: Sequence[str]) -> float:
    """Points of one budget cost the same: up to 7 pixels apart, the searched one in the middle."""
    others = [other for other in names if other not in (SEARCHED, DENSE)]
    if name not in others:
        return 0.0
    place = others.index(name)
    step = min(7.0, 28.0 / math.ceil(len(others) / 2))
    return rounded(step * (place // 2 + 1) * (1 if place % 2 else -1))

"""Axes of the page's charts, and lines between places on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST_TICKS = 8
"""Ticks that fit below a chart on a telephone."""

_MANTISSAS = ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))
_STEPS = (1, 2, 2.5, 5, 10, 20)


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis.

    Attributes:
        at: Where it is, in percent of the axis.
        text: Its label.
    """

    at: float
    text: str


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """List round numbers between two bounds, as many as fit.

    Args:
        low: The lower bound, above 0.
        high: The upper one.

    Returns:
        The numbers, rising; the bounds where there are no two round numbers between them.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in _MANTISSAS:
        ticks = [mantissa * 10.0**decade for decade in decades for mantissa in mantissas]
        inside = [tick for tick in ticks if low <= tick <= high]
        if 2 <= len(inside) <= MOST_TICKS:
            return inside
    return [low, high]


def linear_ticks(low: float, high: float) -> tuple[Tick, ...]:
    """List equally spaced round numbers around two bounds.

    Args:
        low: The lower bound, at least 0.
        high: The upper one.

    Returns:
        Ticks from the bottom up, placed in percent from the top.
    """
    span = max(high - low, 0.01 * high, 0.001)  # labels have six digits
    scale = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    step = next(size * scale for size in _STEPS if span / (size * scale) < MOST_TICKS)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return tuple(
        Tick(rounded(100 * (last - number) / (last - first)), f"{number * step:g}")
        for number in range(first, last + 1)
    )


def line(corners: Sequence[tuple[float, float]]) -> str:
    """Join places by a line.

    Args:
        corners: The places, in percent.

    Returns:
        SVG's `points`.
    """
    return " ".join(f"{rounded(x):g},{rounded(y):g}" for x, y in corners)


def stairs(corners: Sequence[tuple[float, float]]) -> str:
    """Join places by steps: level to the next one's place, then to its height.

    Args:
        corners: The places, in percent.

    Returns:
        SVG's `points`.
    """
    steps = list(corners[:1])
    for (_, height), (x, y) in pairwise(corners):
        if y != height:
            steps += [(x, height), (x, y)]
    return line([*steps, *corners[-1:]])


def rounded(value: float) -> float:
    """Round a place to a thousandth of a percent, which no screen shows."""
    return round(value, 3)

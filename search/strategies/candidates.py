"""Schedules that a search may measure next: published ones, random ones, and neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.first_trials import first_points
from space.coding import SearchSpace
from space.parameters import Dimension, Parameter, Value

_MOVED = 0.4
"""Probability that a neighbour differs in a dimension; it differs in one at least."""

_STEP = 0.15
"""Standard deviation of how far it moves there, as a share of the range."""


@dataclass(frozen=True)
class Candidate:
    """A point that may be measured.

    Attributes:
        point: The point.
        origin: The published schedule that it is or is near to; None for any other.
    """

    point: Mapping[str, Value]
    origin: str | None = None


def starting_candidates(space: SearchSpace, number: int, seed: int) -> list[Candidate]:
    """List the published schedules' points, and random ones.

    Args:
        space: The space.
        number: How many random ones.
        seed: Seed of these.

    Returns:
        The candidates; the published ones first, the one that prunes once behind the encoder (as
        DeSAP does) ahead of them.
    """
    generator = np.random.default_rng(seed)
    published = [Candidate(point, name) for name, point in first_points(space).items()]
    published.sort(key=lambda candidate: "desap" not in (candidate.origin or ""))
    dimensions = space.parameters
    drawn = [
        Candidate({dimension.name: _drawn(dimension, generator) for dimension in dimensions})
        for _ in range(number)
    ]
    return [*published, *drawn]


def neighbours(
    points: Sequence[Mapping[str, Value]],
    dimensions: Sequence[Dimension],
    number: int,
    generator: np.random.Generator,
) -> list[Candidate]:
    """Draw candidates near some points.

    Args:
        points: The points.
        dimensions: The space's dimensions.
        number: How many to draw, in turn near each point.
        generator: Source of randomness.

    Returns:
        The candidates; none without points.
    """
    if not points:
        return []
    return [
        Candidate(_moved(points[place % len(points)], dimensions, generator))
        for place in range(number)
    ]


def _drawn(dimension: Dimension, generator: np.random.Generator) -> Value:
    if isinstance(dimension, Parameter):
        return float(generator.uniform(dimension.low, dimension.high))
    return dimension.options[generator.integers(len(dimension.options))]


def _moved(
    point: Mapping[str, Value], dimensions: Sequence[Dimension], generator: np.random.Generator
) -> dict[str, Value]:
    moves = generator.random(len(dimensions)) < _MOVED
    moves[generator.integers(len(dimensions))] = True
    moved = dict(point)
    for dimension, moves_here in zip(dimensions, moves, strict=True):
        if not moves_here:
            continue
        value = point[dimension.name]
        if isinstance(dimension, Parameter) and not isinstance(value, str):
            step = _STEP * (dimension.high - dimension.low) * generator.standard_normal()
            moved[dimension.name] = float(np.clip(value + step, dimension.low, dimension.high))
        else:
            moved[dimension.name] = _drawn(dimension, generator)
    return moved

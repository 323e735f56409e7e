"""The exhaustive grid, coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from search.strategies.base import Proposal, SearchState, Strategy
from search.strategies.replay import Point, next_in_turn
from search.strategies.spending import afford
from space.coding import SearchSpace
from space.parameters import Choice, Dimension, Value

COARSEST = 2
"""Values per number that the first grid has; every further grid has one more."""


class Grid(Strategy):
    """Measures a grid over all of the space's dimensions, then the next finer one.

    A grid of n values per number has the centres of n equal intervals, and every option of every
    choice. Within a grid the order is shuffled by the seed, so that a search that ends early has
    seen an even part of it. Boundaries come in any order in the space; only rising ones are tried.

    Args:
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split,
            or for less where that is too much for the samples that may be scored.
    """

    name = "grid"

    def __init__(self, samples_per_trial: int | None = None) -> None:
        self.samples_per_trial = samples_per_trial

    def propose(self, state: SearchState) -> Proposal | None:
        """Propose the grid's next point."""
        point = next_in_turn(grid_points(state.space, state.seed), state)
        if point is None:
            return None
        blocks = afford(state, self.samples_per_trial, most_trials=2**31).blocks
        return Proposal(point, blocks)


def grid_points(space: SearchSpace, seed: int) -> Iterator[Point]:
    """List the points of ever finer grids over a space.

    Args:
        space: The space.
        seed: Seed of the order within each grid.

    Yields:
        Points whose boundaries rise; those of a coarser grid before those of a finer one.
    """
    dimensions = space.parameters
    boundaries = [each.name for each in dimensions if each.name.startswith("boundary_")]
    for fineness in count(COARSEST):
        values = [_values(dimension, fineness) for dimension in dimensions]
        for places in _shuffled_product([len(each) for each in values], seed):
            point = {
                dimension.name: options[place]
                for dimension, options, place in zip(dimensions, values, places, strict=True)
            }
            depths = [float(point[name]) for name in boundaries]
            if depths == sorted(depths):
                yield point


def _values(dimension: Dimension, fineness: int) -> Sequence[Value]:
    if isinstance(dimension, Choice):
        return dimension.options
    span = dimension.high - dimension.low
    return [dimension.low + span * (index + 0.5) / fineness for index in range(fineness)]


def _shuffled_product(sizes: Sequence[int], seed: int) -> Iterator[tuple[int, ...]]:
    """Yield every combination of indices once, in an order that the seed decides.

    The order is a walk around the combinations by a step that shares no divisor with their number:
    a list of them all could be too long to shuffle.
    """
    total = math.prod(sizes)
    generator = np.random.default_rng([seed, total])
    start = int(generator.integers(total))
    step = int(generator.integers(total))
    while math.gcd(step, total) != 1:
        step += 1
    for number in range(total):
        rest = (start + number * step) % total
        places = []
        for size in sizes:
            rest, place = divmod(rest, size)
            places.append(place)
        yield tuple(places)

"""G-Search, reconstructed: greedy bisection of each segment's retention, shallow to deep."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

from search.strategies.base import Proposal, SearchState
from search.strategies.free_space import FreeSpace
from search.strategies.off_budget import OffBudgetStrategy
from search.strategies.replay import Course, Point, next_point
from search.strategies.spending import afford
from search.strategies.staircases import Step, equal_segments, schedule_of_steps

MOST_BITS = 5
"""Bisections per segment; retentions are found to 1/32."""

TOLERANCES = (0.001, 0.9)
"""Least and largest share of the dense score that a search may give up."""

SWEEPS = 8
"""Tolerances that are tried; the last two then differ by less than 3 %."""

MOST_TRIALS = 200
"""About what all sweeps need together, with four segments."""


class GSearch(OffBudgetStrategy):
    """Finds how few tokens each segment needs at a tolerated loss, and the tolerance by budget.

    Source: Zhao et al., "Accelerating Multimodal LLMs by Searching Optimal Vision Token Reduction"
    (CVPR 2025, arXiv 2412.00556). Reconstructed from the abstract and a secondary summary; no code
    is published. The paper goes from shallow to deep layers and finds for each the smallest keep
    rate at which the score stays within a tolerance of the dense one, with all deeper layers at the
    same rate; rates never rise.

    What differs here: layers are grouped into the segments that a schedule of the space can have,
    equally deep; the first one includes layer 0, without which no small budget is met; a rate is
    found by bisection instead of Bayesian optimisation, which is the same where the score is
    monotone; and as the method has no budget of its own, the tolerance is bisected until its rates
    cost the budget, each time measuring the rates scaled to the budget together. Those
    schedules rank first.

    Args:
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split,
            or for less where that is too much for the samples that may be scored.
    """

    name = "g-search"

    def propose(self, state: SearchState) -> Proposal | None:
        """Propose the next schedule that a bisection asks for; None when the tolerance is found."""
        assert isinstance(state.space, FreeSpace)
        spending = afford(state, self.samples_per_trial, MOST_TRIALS)
        segments = equal_segments(state.space)
        # Besides the bisections, a sweep measures the dense model and the schedule at the budget.
        bits = max(1, min(MOST_BITS, (spending.trials - 2) // len(segments)))
        point = next_point(sweep(state.space, segments, bits), state)
        return None if point is None else Proposal(point, spending.blocks)


def sweep(space: FreeSpace, segments: Sequence[int], bits: int) -> Course:
    """Bisect the tolerance at which the rates that are found cost the budget.

    Args:
        space: The space that rates are tried in.
        segments: First layer of each segment.
        bits: Bisections per segment.

    Yields:
        Points to measure: for each tolerance those that the search asks for, then the one at the
        budget.
    """
    dense = yield point_of_rates(space, segments, [1.0] * len(segments))
    low, high = TOLERANCES
    for _ in range(SWEEPS):
        tolerance = math.sqrt(low * high)
        rates = yield from search_rates(
            space, segments, floor=dense * (1 - tolerance), resolution=2.0**-bits
        )
        point = point_of_rates(space, segments, rates)
        yield space.at_budget(point)
        if space.meets_budget(space.decode(point)):
            high = tolerance
        else:
            low = tolerance


def search_rates(
    space: FreeSpace, segments: Sequence[int], floor: float, resolution: float
) -> Generator[Point, float, list[float]]:
    """Find the smallest rate of each segment in turn, as G-Search does for layers.

    Args:
        space: The space that rates are tried in.
        segments: First layer of each segment.
        floor: Score that must be kept.
        resolution: How closely rates are found.

    Yields:
        Points to measure.

    Returns:
        A rate per segment, never rising.
    """
    rates = [1.0] * len(segments)
    for number in range(len(segments)):
        low, high = 0.0, rates[number]
        while high - low > resolution:
            middle = (low + high) / 2
            trial = [*rates[:number], *[middle] * (len(segments) - number)]
            score = yield point_of_rates(space, segments, trial)
            if score >= floor:
                high = middle
            else:
                low = middle
        rates[number:] = [high] * (len(segments) - number)
    return rates


def point_of_rates(space: FreeSpace, segments: Sequence[int], rates: Sequence[float]) -> Point:
    """Find the point at which each segment keeps its rate of the dense model's tokens."""
    steps = [Step(layer, rate) for layer, rate in zip(segments, rates, strict=True)]
    return space.encode(schedule_of_steps(space, steps))

"""G-Search finds the rates at which a monotone score stays within the tolerance."""

from __future__ import annotations

import numpy as np
import pytest

from pruners.schedule import Schedule
from search.analytic import ANALYTIC_SHAPE
from search.strategies.base import Strategy
from search.strategies.free_space import FreeSpace
from search.strategies.g_search import GSearch, point_of_rates, search_rates
from search.strategies.replay import Point
from search.strategies.staircases import equal_segments
from space import SearchSpace, parse_budget

SPACE = SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens"))
FREE = FreeSpace(SPACE)
SEGMENTS = equal_segments(SPACE)
NEEDED = (0.5, 0.3125, 0.25, 0.0625)
"""Share of the tokens that each segment needs."""


def tokens(schedule: Schedule) -> np.ndarray:
    assert schedule.cost is not None
    return np.array(schedule.cost.visual_tokens_per_layer)


def score(schedule: Schedule) -> float:
    """A segment loses as much of 0.1 as it misses of its needed tokens."""
    kept = tokens(schedule)[list(SEGMENTS)] / 144
    return 1 - 0.1 * float(np.clip(np.array(NEEDED) - kept, 0, None).sum())


def searched(floor: float, resolution: float) -> tuple[list[float], int]:
    """Rates found, and how many points were asked for."""
    course = search_rates(FREE, SEGMENTS, floor, resolution)
    asked = 0
    try:
        point: Point = next(course)
        while True:
            asked += 1
            point = course.send(score(FREE.decode(point)))
    except StopIteration as end:
        return end.value, asked


def test_thresholds_are_found() -> None:
    rates, asked = searched(floor=1.0, resolution=1 / 64)
    for rate, needed in zip(rates, NEEDED, strict=True):
        assert needed - 0.5 / 144 <= rate <= needed + 1 / 64 + 0.5 / 144
    assert asked <= 4 * 6


def test_rates_never_rise_and_fall_with_the_tolerance() -> None:
    previous = np.ones(4)
    for floor in (1.0, 0.99, 0.97, 0.9):
        rates = np.array(searched(floor, 1 / 32)[0])
        assert (np.diff(rates) <= 0).all()
        assert (rates <= previous).all()
        assert score(FREE.decode(point_of_rates(FREE, SEGMENTS, rates.tolist()))) >= floor
        previous = rates


@pytest.mark.parametrize("budget", ["16 tokens", "32 tokens", "48 tokens"])
def test_the_tolerance_is_swept_to_the_budget(play, budget: str) -> None:  # type: ignore[no-untyped-def]
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget(budget))
    strategy: Strategy = GSearch(25)
    played = play(strategy, space, score, limit=25 * 300)
    assert len(tokens(played[0].schedule)) == 8
    assert not played[0].schedule.stages  # the dense model, which tolerances refer to
    limit = int(budget.split()[0])
    within = [each for each in played if limit - 1 < tokens(each.schedule).mean() <= limit]
    assert within
    # Of all staircases of these segments at the budget, none is much better.
    best = max(
        1 - 0.1 * float(np.clip(np.array(NEEDED) - rates, 0, None).sum())
        for rates in np.random.default_rng(0).dirichlet(np.ones(4), 4000) * 4 * limit / 144
        if (np.diff(rates) <= 0).all() and rates[0] <= 1
    )
    assert max(each.value for each in within) >= best - 0.01


def test_few_trials_are_enough_for_one_schedule_at_the_budget(play) -> None:  # type: ignore[no-untyped-def]
    played = play(GSearch(25), SPACE, score, limit=250)
    assert len({each.schedule.content_hash for each in played}) <= 10
    assert sum(31 < tokens(each.schedule).mean() <= 32 for each in played) >= 1

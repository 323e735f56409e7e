"""GSOP's order, against deleting by brute force, and the schedules that it gives."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest

from pruners.schedule import Schedule
from search.analytic import ANALYTIC_SHAPE
from search.strategies.free_space import FreeSpace
from search.strategies.gsop import Deletion, Deletions, Gsop
from search.strategies.replay import Point
from space import SearchSpace, parse_budget

SPACE = SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens"))
FREE = FreeSpace(SPACE)
GROUPS = 4


def tokens(schedule: Schedule) -> np.ndarray:
    assert schedule.cost is not None
    return np.array(schedule.cost.visual_tokens_per_layer)


def separable(seed: int):  # type: ignore[no-untyped-def]
    """A score that loses in every layer as much as tokens that were there are gone."""
    generator = np.random.default_rng(seed)
    worth = generator.random((8, 144))

    def score(schedule: Schedule) -> float:
        return (
            1
            - sum(float(worth[layer, alive:].sum()) for layer, alive in enumerate(tokens(schedule)))
            / worth.sum()
        )

    return score


def measured(deletions: Deletions, score, counts: list[int]) -> np.ndarray:  # type: ignore[no-untyped-def]
    course = deletions.losses(counts)
    try:
        point: Point = next(course)
        while True:
            point = course.send(score(FREE.decode(point)))
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [0, 1, 1, 3]])
def test_the_order_is_that_of_deleting_one_after_the_other(seed: int, counts: list[int]) -> None:
    score, deletions = separable(seed), Deletions(FREE, GROUPS)
    order = deletions.sorted(measured(deletions, score, counts), counts)

    def schedule(done: list[int]) -> Schedule:
        return FREE.decode(deletions.point(done))

    done = list(counts)
    for given in order:
        options = {}
        for segment in range(4):
            after = [count + (number == segment) for number, count in enumerate(done)]
            if after[segment] <= GROUPS and after == sorted(after):
                lost = score(schedule(done)) - score(schedule(after))
                # Groups are shares of the tokens; a saved share counts in each layer.
                levels = deletions.levels[done[segment]] - deletions.levels[after[segment]]
                options[segment] = lost / (levels * deletions.layers[segment])
        best = min(options, key=options.__getitem__)
        assert options[given.segment] == pytest.approx(options[best])
        assert given == Deletion(given.segment, done[given.segment])
        done[given.segment] += 1
    assert done == [GROUPS] * 4


def test_every_prefix_is_a_schedule_and_the_shortest_within_the_budget_is_taken() -> None:
    deletions = Deletions(FREE, GROUPS)
    order = deletions.sorted(np.random.default_rng(0).random((4, GROUPS)), [0] * 4)
    means = [
        tokens(FREE.decode(deletions.point(deletions.counts(order[:length])))).mean()
        for length in range(len(order) + 1)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] == 144
    length = len(deletions.prefix(order))
    assert means[length] <= 32 < means[length - 1]


@pytest.mark.parametrize("seed", range(2))
def test_where_losses_are_separable_the_schedule_is_near_the_best_one(play, seed: int) -> None:  # type: ignore[no-untyped-def]
    score = separable(seed)
    played = play(Gsop(25), SPACE, score, limit=25 * 200)
    found = max(each.value for each in played if tokens(each.schedule).mean() <= 32)
    deletions = Deletions(FREE, 6)
    best = 0.0
    for counts in combinations_with_replacement(range(7), 4):
        schedule = FREE.decode(FREE.at_budget(deletions.point(list(counts))))
        best = max(best, score(schedule))
    assert found >= best - 0.01


def test_it_ends_by_itself_and_re_sorts_half_of_what_is_left(play) -> None:  # type: ignore[no-untyped-def]
    played = play(Gsop(25), SPACE, separable(0), limit=None, trials=1000)
    assert len(played) < 1000
    at_budget = {
        each.schedule.content_hash for each in played if 31 < tokens(each.schedule).mean() <= 32
    }
    assert at_budget
    one_sort = 4 * 8 + 1
    assert one_sort < len({each.schedule.content_hash for each in played}) < 6 * (one_sort + 1)


def test_few_trials_are_enough_for_one_schedule_at_the_budget(play) -> None:  # type: ignore[no-untyped-def]
    played = play(Gsop(25), SPACE, separable(0), limit=250)
    assert len({each.schedule.content_hash for each in played}) <= 10
    assert any(31 < tokens(each.schedule).mean() <= 32 for each in played)

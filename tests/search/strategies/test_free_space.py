"""The space without a budget says what schedules cost, and finds those that meet it."""

from __future__ import annotations

import numpy as np
import pytest

from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B, Shape
from search.strategies.free_space import FreeSpace
from space import PRESETS, SearchSpace, parse_budget, price
from space.parameters import Parameter, Value

TILED = next(shape for shape in PRESETS.values() if shape.tiles > 1)
SHAPES = [LLAVA_1_5_7B, TILED]


def points(space: SearchSpace, number: int) -> list[dict[str, Value]]:
    generator = np.random.default_rng(0)
    return [
        {
            dimension.name: float(generator.uniform(dimension.low, dimension.high))
            for dimension in space.parameters
            if isinstance(dimension, Parameter)
        }
        for _ in range(number)
    ]


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.name)
def space(request: pytest.FixtureRequest) -> FreeSpace:
    shape: Shape = request.param
    return FreeSpace(SearchSpace(shape, parse_budget("33%")))


def test_points_come_back_and_schedules_are_priced(space: FreeSpace) -> None:
    costs = []
    for point in points(space, 200):
        schedule = space.decode(point)
        assert schedule.cost == price(schedule, space.shape)
        assert space.decode(space.encode(schedule)).content_hash == schedule.content_hash
        over = schedule.cost.tflops / schedule.cost.dense_tflops / 0.33 - 1
        assert space.excess(schedule) == pytest.approx(over)
        assert space.meets_budget(schedule) == (over <= 0)
        costs.append(over)
    assert min(costs) < 0 < max(costs)


def test_dense_and_one_token_are_points(space: FreeSpace) -> None:
    point = points(space, 1)[0]
    ratios = {name: 1.0 for name in point if name.startswith("ratio")}
    dense = space.decode({**point, **ratios, "retention": 1.0})
    assert dense.stages == Schedule().stages
    least = space.decode({**point, **ratios, "retention": 0.0})
    assert least.counts(space.shape.visual_tokens, space.shape.tokens_per_tile)[-1].alive == (
        space.shape.tiles
    )


def test_at_budget_is_the_schedule_of_the_projected_space(space: FreeSpace) -> None:
    for point in points(space, 50):
        moved = space.decode(space.at_budget(point))
        within = {name: value for name, value in point.items() if name != "retention"}
        assert moved.content_hash == space.within.decode(within).content_hash
        assert space.meets_budget(moved)

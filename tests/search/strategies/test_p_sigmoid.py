"""Sigmoid curves spend the budget, and their shape is searched."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE
from search.strategies.p_sigmoid import PSigmoid, Sigmoid, SigmoidSpace
from space import PRESETS, SearchSpace, parse_budget


def macs(curve: Sequence[float]) -> float:
    """PyramidDrop's formula for LLaVA-1.5-7B with 64 tokens of text."""
    width, inner = 4096, 11008
    return sum(
        4 * tokens * width**2 + 2 * tokens**2 * width + 3 * tokens * width * inner
        for tokens in (576 * share + 64 for share in curve)
    )


@pytest.mark.parametrize(
    ("steepness", "middle"), [(0.2, 6.83), (0.5, 7.75), (1.5, 7.75), (10, 7.89)]
)
def test_midpoints_at_a_third_of_the_dense_cost(steepness: float, middle: float) -> None:
    """Worked out once, apart from this code."""
    dense = macs([1.0] * 32)
    sigmoid = Sigmoid(steepness)
    midpoint = sigmoid.midpoint(macs, 0.33 * dense, 32)
    assert midpoint == pytest.approx(middle, abs=0.005)
    assert macs(sigmoid.curve(midpoint, 32)) / dense == pytest.approx(0.33, abs=1e-6)


def test_the_curve_is_the_published_one_between_cap_and_floor() -> None:
    # AutoPrune's fitted default: A / (1 + exp(k(x - x0))).
    curve = Sigmoid(0.3642, cap=0.7032).curve(14.8895, 32)
    for layer, share in enumerate(curve):
        assert share == pytest.approx(0.7032 / (1 + math.exp(0.3642 * (layer - 14.8895))))
    raised = Sigmoid(0.3642, cap=0.7032, floor=0.5).curve(14.8895, 32)
    np.testing.assert_allclose(raised, 0.7032 * (0.5 + 0.5 * np.array(curve) / 0.7032))


def test_steepness_is_carried_over_to_other_depths() -> None:
    deep, shallow = Sigmoid(0.8).curve(16, 32), Sigmoid(0.8).curve(4, 8)
    np.testing.assert_allclose(deep[::4], shallow)


def test_where_no_midpoint_meets_the_budget_the_curve_is_flat() -> None:
    low = Sigmoid(1.0, cap=0.1)
    assert low.curve(low.midpoint(sum, 16.0, 32), 32) == pytest.approx([0.1] * 32)
    high = Sigmoid(1.0, cap=1.0, floor=0.9)
    assert high.curve(high.midpoint(sum, 16.0, 32), 32) == pytest.approx([0.9] * 32)


@pytest.mark.parametrize("shape", [LLAVA_1_5_7B, *list(PRESETS.values())[-2:]])
@pytest.mark.parametrize("budget", ["60%", "40%"])
def test_every_point_spends_the_budget(budget: str, shape: object) -> None:
    space = SigmoidSpace(SearchSpace(shape, parse_budget(budget)))
    generator = np.random.default_rng(0)
    for values in [*generator.random((10, 3)).tolist(), [0, 0, 0], [1, 1, 1], [1, 0, 1]]:
        schedule = space.decode(dict(zip(("steepness", "cap", "floor"), values, strict=True)))
        assert schedule.cost is not None
        spent = schedule.cost.tflops / schedule.cost.dense_tflops
        assert 0.95 * parse_budget(budget).value < spent <= parse_budget(budget).value


def test_a_schedules_nearest_point_has_a_similar_curve() -> None:
    space = SigmoidSpace(SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens")))
    for point in (
        {"steepness": 0.0, "cap": 0.5, "floor": 0.0},
        dict.fromkeys(("steepness", "cap", "floor"), 1.0),
    ):
        schedule = space.decode(point)
        assert space.decode(space.encode(schedule)).stages == schedule.stages


def test_the_search_finds_the_best_curve_of_its_family(play) -> None:  # type: ignore[no-untyped-def]
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens"))
    wanted = np.array([72, 72, 60, 30, 10, 4, 4, 4])

    def value(schedule) -> float:  # type: ignore[no-untyped-def]
        return -float(np.abs(np.array(schedule.cost.visual_tokens_per_layer) - wanted).mean())

    searched = play(PSigmoid(25), space, value, limit=25 * 25, trials=25)
    own = SigmoidSpace(space)
    grid = np.linspace(0, 1, 6)
    best = max(
        value(own.decode({"steepness": steepness, "cap": cap, "floor": floor}))
        for steepness in grid
        for cap in grid
        for floor in grid
    )
    assert max(each.value for each in searched) >= best - 0.5
    assert {each.blocks for each in searched} == {1}

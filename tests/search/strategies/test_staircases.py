"""Curves over depth in few steps, against all the ways to choose them."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, BEST_TOKENS
from search.strategies.staircases import (
    Step,
    boundaries_of,
    curve_cost,
    equal_segments,
    nearest_steps,
    point_of_curve,
    schedule_of_steps,
)
from space import SearchSpace, breakdown, parse_budget
from space.full_vocabulary import FullVocabulary


def heights(steps: tuple[Step, ...], layers: int) -> list[float]:
    """The height of each layer."""
    ends = [step.layer for step in steps[1:]] + [layers]
    return [
        step.retention
        for step, end in zip(steps, ends, strict=True)
        for _ in range(end - step.layer)
    ]


@pytest.mark.parametrize("stages", range(5))
@pytest.mark.parametrize("boundaries", [range(1, 9), (2, 3, 7), ()])
def test_no_other_staircase_is_nearer(boundaries: tuple[int, ...], stages: int) -> None:
    curve = np.sort(np.random.default_rng(stages).random(9))[::-1]
    errors = []
    for number in range(min(stages, len(boundaries)) + 1):
        for chosen in combinations(boundaries, number):
            edges = [0, *chosen, 9]
            pieces = [curve[first:last] for first, last in pairwise(edges)]
            errors.append(sum(((piece - piece.mean()) ** 2).sum() for piece in pieces))
    steps = nearest_steps(curve.tolist(), boundaries, stages)
    assert ((heights(steps, 9) - curve) ** 2).sum() == pytest.approx(min(errors))
    assert len(steps) <= stages + 1
    assert {step.layer for step in steps} <= {0, *boundaries}


def test_a_staircase_of_the_space_is_found_exactly() -> None:
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget("34.5 tokens"))
    schedule = space.decode(point_of_curve(space, [tokens / 144 for tokens in BEST_TOKENS]))
    assert schedule.cost is not None
    assert schedule.cost.visual_tokens_per_layer == BEST_TOKENS


@pytest.mark.parametrize("vocabulary", [None, FullVocabulary()])
def test_curves_meet_any_budget_in_any_vocabulary(vocabulary: FullVocabulary | None) -> None:
    for budget in ("50%", "1.3 TFLOPs", "8 tokens"):
        space = SearchSpace(LLAVA_1_5_7B, parse_budget(budget), vocabulary=vocabulary)
        for curve in ([1.0] * 32, [0.0] * 32, np.linspace(1, 0, 32).tolist()):
            cost = space.decode(point_of_curve(space, curve)).cost
            assert cost is not None
            assert space.budget.amount(cost) <= space.budget.limit(space.shape)


def test_a_schedule_of_steps_keeps_their_tokens() -> None:
    space = SearchSpace(LLAVA_1_5_7B, parse_budget("2"))
    schedule = schedule_of_steps(space, [Step(0, 0.5), Step(7, 0.5), Step(9, 0.25), Step(20, 0.0)])
    assert [(count.layer, count.alive) for count in schedule.counts(576)] == [
        (0, 288),
        (9, 144),
        (20, 0),
    ]


@pytest.mark.parametrize("layer_step", [1, 2, 4])
@pytest.mark.parametrize("stages", range(5))
def test_segments_are_distinct_and_even(stages: int, layer_step: int) -> None:
    space = SearchSpace(LLAVA_1_5_7B, parse_budget("2"), stages, layer_step)
    segments = equal_segments(space)
    assert len(segments) == stages + 1
    assert set(segments[1:]) <= set(boundaries_of(space))
    widths = np.diff([*segments, 32])
    assert widths.min() > 0
    assert widths.max() - widths.min() <= 2 * layer_step


def test_a_curves_cost_is_that_of_its_layers_without_scoring() -> None:
    for budget in ("2", "64 tokens", "100MB"):
        space = SearchSpace(LLAVA_1_5_7B, parse_budget(budget))
        steps = (Step(0, 0.5), Step(8, 0.25))
        schedule = schedule_of_steps(space, steps)
        parts = breakdown(schedule, LLAVA_1_5_7B)
        expected = {
            "2": (parts.total - parts.scoring - parts.merging) / 1e12,
            "64 tokens": (8 * 288 + 24 * 144) / 32,
            # 64 tokens of text; keys and values of 4,096 numbers in 16 bits.
            "100MB": (8 * 288 + 24 * 144 + 32 * LLAVA_1_5_7B.text_tokens) * 2 * 4096 * 2,
        }
        assert curve_cost(space)(heights(steps, 32)) == pytest.approx(expected[budget])

"""The lattice holds what it says, each schedule once, none above its budget."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import pytest

from search.analytic import ANALYTIC_SHAPE
from search.measured_form import as_measured

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from lattice import CONTEXTUAL, OFF_BUDGET_SHARES, WEIGHTS, lattice, off_budget_lattice, staircases

LAYERS, TOKENS = ANALYTIC_SHAPE.decoder_layers, ANALYTIC_SHAPE.visual_tokens
BUDGETS = (72, 48, 32, 16, 8)


@pytest.mark.parametrize("budget", BUDGETS)
def test_staircases_fall_and_use_their_budget_up(budget):
    found = staircases(budget, LAYERS, TOKENS)
    assert len(set(found)) == len(found) > 50
    for tokens in found:
        assert len(tokens) == LAYERS
        assert list(tokens) == sorted(tokens, reverse=True)
        assert 1 <= tokens[-1] <= tokens[0] <= TOKENS
        last_stage = tokens.count(tokens[-1])
        assert sum(tokens) <= budget * LAYERS < sum(tokens) + last_stage


def test_staircases_of_a_small_case_are_those_found_by_trying_all():
    budget, layers, dense = 4, 4, 12
    starts = {min(dense, round(start * budget)) for start in (1.2, 1.5, 2.0, 3.0)}

    def steps(before):
        return {max(1, round(0.75 * before)), max(1, round(0.4 * before))}

    expected = {(budget,) * layers}
    for tokens in product(range(dense, 0, -1), repeat=layers):
        drops = [layer for layer in range(1, layers) if tokens[layer] != tokens[layer - 1]]
        inner = [tokens[layer] in steps(tokens[layer - 1]) for layer in drops[:-1]]
        room = budget * layers - sum(tokens)
        if (
            tokens[0] in starts
            and 1 <= len(drops) <= 3
            and list(tokens) == sorted(tokens, reverse=True)
            and all(inner)
            and 0 <= room < tokens.count(tokens[-1])
        ):
            expected.add(tokens)
    assert set(staircases(budget, layers, dense)) == expected


@pytest.mark.parametrize("budget", [72, 8])
def test_points_are_schedules_of_the_budget_that_all_behave_differently(budget):
    points = list(lattice(ANALYTIC_SHAPE, budget))
    schedules = [point.schedule(ANALYTIC_SHAPE) for point in points]
    assert len({schedule.content_hash for schedule in schedules}) == len(schedules)
    assert {point.weight for point in points} == set(WEIGHTS)
    assert {point.contextual for point in points} == set(CONTEXTUAL)
    assert {point.tokens for point in points} == set(staircases(budget, LAYERS, TOKENS))
    for point, schedule in zip(points, schedules, strict=True):
        assert schedule.visual_tokens_per_layer(LAYERS, TOKENS) == point.tokens
        assert as_measured(schedule, ANALYTIC_SHAPE) == schedule


def test_the_lattice_of_no_budget_holds_every_falling_choice_once():
    points = list(off_budget_lattice(ANALYTIC_SHAPE))
    counts = {round(share * TOKENS) for share in OFF_BUDGET_SHARES}
    quarters = {point.tokens[:: LAYERS // 4] for point in points}
    expected = {
        chosen
        for chosen in product(counts, repeat=4)
        if list(chosen) == sorted(chosen, reverse=True) and min(chosen) < TOKENS
    }
    assert len(points) == len(quarters)
    assert quarters == expected
    for point in points:
        schedule = point.schedule(ANALYTIC_SHAPE)
        assert schedule.visual_tokens_per_layer(LAYERS, TOKENS) == point.tokens

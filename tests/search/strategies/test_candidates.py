"""Candidates lie in the space, published ones first."""

import numpy as np
import pytest

from search.first_trials import first_points
from search.strategies.candidates import neighbours, starting_candidates
from space.budgets import parse_budget
from space.coding import SearchSpace
from space.full_vocabulary import FullVocabulary
from space.parameters import check_point
from space.shapes import preset


@pytest.fixture(scope="module", params=["mission", "full"])
def space(request):
    vocabulary = FullVocabulary() if request.param == "full" else None
    return SearchSpace(
        preset("llava-1.5-7b"), parse_budget("2 TFLOPs"), layer_step=4, vocabulary=vocabulary
    )


def test_published_schedules_come_first_and_the_one_stage_one_leads(space):
    candidates = starting_candidates(space, 5, seed=0)
    published = first_points(space)
    assert {each.origin: each.point for each in candidates[: len(published)]} == published
    assert "desap" in candidates[0].origin
    assert [each.origin for each in candidates[len(published) :]] == [None] * 5


def test_all_candidates_are_points_of_the_space(space):
    drawn = starting_candidates(space, 20, seed=1)
    near = neighbours(
        [each.point for each in drawn[:3]], space.parameters, 30, np.random.default_rng(0)
    )
    assert len(near) == 30
    for candidate in (*drawn, *near):
        check_point(candidate.point, space.parameters)


def test_neighbours_differ_from_their_parent_but_not_in_everything(space):
    parent = starting_candidates(space, 0, seed=0)[0].point
    changed = [
        sum(candidate.point[name] != parent[name] for name in parent)
        for candidate in neighbours([parent], space.parameters, 200, np.random.default_rng(0))
    ]
    # A move may end where it began: at the end of a range, or at the same option.
    assert 0.2 * len(parent) < np.mean(changed) < 0.6 * len(parent)


def test_the_same_seed_draws_the_same(space):
    some, same, others = (starting_candidates(space, 3, seed) for seed in (4, 4, 5))
    assert some == same
    assert some != others

"""The grid has every combination once, coarse ones first."""

from __future__ import annotations

from itertools import islice, product

from search.analytic import ANALYTIC_SHAPE
from search.strategies.grid import Grid, grid_points
from space import SearchSpace, parse_budget
from space.full_vocabulary import FullVocabulary

SPACE = SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens"), decoder_stages=2)


def test_a_grid_has_every_combination_once_before_the_next_finer_one() -> None:
    halves, thirds = (0.25, 0.75), (1 / 6, 3 / 6, 5 / 6)
    expected = []
    for values in (halves, thirds):
        shares = tuple(value / 2 for value in values)  # the contextual share ends at 1/2
        expected.append(
            {
                tuple(round(value, 12) for value in point)
                for point in product(values, values, values, values, shares, values)
                if point[0] <= point[1]
            }
        )
    count = len(expected[0]) + len(expected[1])
    names = [dimension.name for dimension in SPACE.parameters]
    listed = [
        tuple(round(float(point[name]), 12) for name in names)
        for point in islice(grid_points(SPACE, seed=0), count)
    ]
    assert len(set(listed)) == count
    assert set(listed[: len(expected[0])]) == expected[0]
    assert set(listed[len(expected[0]) :]) == expected[1]


def test_the_seed_decides_the_order() -> None:
    first, again, other = (list(islice(grid_points(SPACE, seed), 48)) for seed in (0, 0, 1))
    assert first == again != other
    for point in first:
        assert first.count(point) == 1
        assert point in other


def test_grids_of_spaces_with_choices_begin_at_once() -> None:
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget("8 tokens"), vocabulary=FullVocabulary())
    for point in islice(grid_points(space, 0), 20):
        assert space.decode(point).stages


def test_the_best_of_a_grid_is_found(play) -> None:  # type: ignore[no-untyped-def]
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens"), decoder_stages=1)
    wanted = space.decode(
        {"boundary_1": 0.75, "ratio_1": 0.25, "contextual": 0.125, "similarity_weight": 0.75}
    )
    played = play(
        Grid(25), space, lambda each: float(each.stages == wanted.stages), limit=25 * 16, trials=16
    )
    assert [each.value for each in played].count(1.0) == 1
    assert {each.blocks for each in played} == {1}

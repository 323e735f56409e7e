"""Choosing tokens, against sorting in plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruners.schedule import split_budget
from pruners.selection import (
    gather_tokens,
    remaining_tokens,
    top_tokens,
    top_tokens_of_two,
)

# Few distinct values, so that ties are common.
SCORES = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def best(scores: list[int], count: int) -> list[int]:
    ranked = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return sorted(ranked[:count])


@given(scores=SCORES, data=st.data())
def test_the_highest_scores_are_chosen_and_ties_go_to_the_earlier_token(
    scores: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(scores)))
    chosen = top_tokens(torch.tensor([scores], dtype=torch.float32), count)
    assert chosen[0].tolist() == best(scores, count)


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1), data=st.data())
def test_the_second_score_chooses_among_what_the_first_left(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    by_first = data.draw(st.integers(0, len(pairs)))
    by_second = data.draw(st.integers(0, len(pairs) - by_first))
    expected = best(first, by_first)
    rest = [index for index in range(len(pairs)) if index not in expected]
    expected += [rest[i] for i in best([second[index] for index in rest], by_second)]
    chosen = top_tokens_of_two(
        torch.tensor([first]).float(), torch.tensor([second]).float(), by_first, by_second
    )
    assert chosen[0].tolist() == sorted(expected)


@given(total=st.integers(1, 20), data=st.data())
def test_remaining_tokens_are_the_complement(total: int, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, total - 1), unique=True))
    rest = remaining_tokens(torch.tensor([chosen], dtype=torch.long), total)
    assert rest[0].tolist() == sorted(set(range(total)) - set(chosen))


@pytest.mark.parametrize(
    ("count", "weight", "expected"),
    [(64, 0.5, (32, 32)), (5, 0.5, (3, 2)), (7, 0.0, (0, 7)), (7, 1.0, (7, 0)), (10, 0.25, (3, 7))],
)
def test_the_budget_is_split_rounding_half_up(
    count: int, weight: float, expected: tuple[int, int]
) -> None:
    assert split_budget(count, weight) == expected


def test_samples_choose_for_themselves() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [3.0, 1.0, 2.0]])
    chosen = top_tokens(scores, 2)
    assert chosen.tolist() == [[1, 2], [0, 2]]
    picked = gather_tokens(scores.unsqueeze(-1), chosen)
    assert picked.squeeze(-1).tolist() == [[3.0, 2.0], [3.0, 2.0]]

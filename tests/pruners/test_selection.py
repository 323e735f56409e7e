"""Choosing tokens, against sorting in plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruners.counting import split_budget
from pruners.selection import (
    add_top_tokens,
    gather_tokens,
    random_scores,
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


def test_two_scores_share_the_tokens_by_hand() -> None:
    # The first score takes tokens 2 and 4; of the others the second takes 0, and 3 before 5: its
    # favourite, 4, is taken.
    first = torch.tensor([[1.0, 0.0, 9.0, 2.0, 8.0, 3.0]])
    second = torch.tensor([[7.0, 0.0, 1.0, 5.0, 9.0, 5.0]])
    assert top_tokens_of_two(first, second, 2, 2).tolist() == [[0, 2, 3, 4]]
    # Were the second to choose first, it would take 0 and 4, and leave 2 and 5 to the first.
    assert top_tokens_of_two(second, first, 2, 2).tolist() == [[0, 2, 4, 5]]


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


@given(scores=SCORES, data=st.data())
def test_tokens_are_added_by_score_to_those_already_chosen(
    scores: list[int], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(scores) - 1), unique=True))
    rest = [index for index in range(len(scores)) if index not in chosen]
    count = data.draw(st.integers(0, len(rest)))
    added = [rest[place] for place in best([scores[index] for index in rest], count)]
    result = add_top_tokens(
        torch.tensor([chosen], dtype=torch.long), torch.tensor([scores]).float(), count
    )
    assert result[0].tolist() == sorted(chosen + added)


@pytest.mark.parametrize("tokens", [1, 2, 576])
def test_random_scores_are_an_order_without_ties(tokens: int) -> None:
    scores = random_scores(tokens, 0, "cpu")
    assert scores.dtype == torch.float32
    assert sorted(scores.tolist()) == list(range(tokens))


def test_random_scores_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first = random_scores(576, 5, "cpu")
    torch.rand(3)
    assert random_scores(576, 5, torch.device("cpu")).tolist() == first.tolist()
    assert random_scores(576, 2**32 - 1, "cpu").tolist() != first.tolist()
    # The caller's own random numbers go on as if nothing had been drawn.
    torch.set_rng_state(state)
    random_scores(576, 5, "cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_random_scores_prefer_no_place() -> None:
    # Over 400 seeds the top eighth of 64 tokens falls on each place 50 times on average, with a
    # standard deviation of 6.6.
    hits = torch.zeros(64)
    for seed in range(400):
        hits[top_tokens(random_scores(64, seed, "cpu").unsqueeze(0), 8)[0]] += 1
    assert hits.mean().item() == 50
    assert hits.min() > 50 - 5 * 6.6
    assert hits.max() < 50 + 5 * 6.6

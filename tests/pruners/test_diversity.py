"""Selectors of diverse tokens, against loops, brute force and examples worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruners.diversity import (
    deduplicated_tokens,
    determinantal_tokens,
    least_duplicated_tokens,
    most_distant_tokens,
)

Vector = Sequence[float]

# Vectors along axes, either way, and zero vectors: their cosines are exact, so ties are common and
# the same in any precision.
AXES = [(1.0, 0.0, 0.0), (-2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 4.0), (0.0, 0.0, 0.0)]
TOKENS = st.lists(st.sampled_from(AXES), min_size=1, max_size=9)


def cosine(a: Vector, b: Vector) -> float:
    norms = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def falling(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def random_inputs(batch: int, tokens: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(batch, tokens, width, generator=generator)
    return vectors, torch.rand(batch, tokens, generator=generator)


# DivPrune


def most_distant_by_loop(tokens: Sequence[Vector], count: int) -> list[int]:
    def distance_to_nearest(index: int, others: Sequence[int]) -> float:
        distances = [1 - cosine(tokens[index], tokens[i]) for i in others if i != index]
        return min(distances, default=math.inf)

    everyone = list(range(len(tokens)))
    chosen: list[int] = []
    for _ in range(count):
        free = [index for index in everyone if index not in chosen]
        against = chosen or everyone
        chosen.append(max(free, key=lambda index: distance_to_nearest(index, against)))
    return sorted(chosen)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 5, 10, 11])
def test_most_distant_tokens_equal_a_loop(seed: int, count: int) -> None:
    tokens, _ = random_inputs(2, 11, 4, seed)
    chosen = most_distant_tokens(tokens, count)
    for row in range(2):
        assert chosen[row].tolist() == most_distant_by_loop(tokens[row].tolist(), count)


@given(tokens=TOKENS, data=st.data())
def test_of_equally_distant_tokens_the_earlier_is_chosen(
    tokens: list[Vector], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(tokens)))
    chosen = most_distant_tokens(torch.tensor([tokens]), count)
    assert chosen[0].tolist() == most_distant_by_loop(tokens, count)


def test_most_distant_tokens_by_hand() -> None:
    # Distances 1 - cosine: ab 0.4, ac 1, ad 2, bc 0.2, bd 1.6, cd 1. To its nearest, d is farthest
    # (1); from d, a is farthest (2); from both, c (1) is farther than b (0.4).
    tokens = torch.tensor([[[2.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]]])
    assert most_distant_tokens(tokens, 1).tolist() == [[3]]
    assert most_distant_tokens(tokens, 2).tolist() == [[0, 3]]
    assert most_distant_tokens(tokens, 3).tolist() == [[0, 2, 3]]


def test_no_token_is_its_own_nearest() -> None:
    # At 0, 100 and 220 degrees, cosines are -0.17 (0 and 100), -0.5 (100 and 220) and -0.77 (220
    # and 0): all are more than 1 apart, and the last is farthest from its nearest, 1.5.
    angles = torch.tensor([0.0, 100.0, 220.0]).deg2rad()
    tokens = torch.stack([angles.cos(), angles.sin()], dim=-1).unsqueeze(0)
    assert most_distant_tokens(tokens, 1).tolist() == [[2]]
    assert most_distant_tokens(tokens, 2).tolist() == [[0, 2]]


# CDPruner


def kernel_by_loop(tokens: Sequence[Vector], scores: Sequence[float]) -> list[list[float]]:
    low, high = min(scores), max(scores)
    r = [(score - low) / (high - low) + 1e-6 if high > low else 1e-6 for score in scores]
    return [
        [r[i] * cosine(tokens[i], tokens[j]) * r[j] for j in range(len(tokens))]
        for i in range(len(tokens))
    ]


def most_probable_by_determinants(kernel: list[list[float]], count: int) -> list[int]:
    """Greedy search that computes the determinant of every candidate set anew."""
    matrix = torch.tensor(kernel, dtype=torch.float64)
    chosen: list[int] = []
    for _ in range(count):

        def log_volume(index: int) -> float:
            members = torch.tensor([*chosen, index])
            sign, log = torch.linalg.slogdet(matrix[members][:, members])
            assert sign > 0
            return float(log)

        chosen.append(max((i for i in range(len(kernel)) if i not in chosen), key=log_volume))
    return sorted(chosen)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 6, 9, 10])
def test_determinantal_tokens_equal_greedy_search_by_determinants(seed: int, count: int) -> None:
    tokens, scores = random_inputs(3, 10, 16, seed)
    # Scales that differ between samples: each sample's scores are scaled by themselves.
    scores = scores * torch.tensor([[1.0], [10.0], [0.1]]) + torch.tensor([[0.0], [-5.0], [2.0]])
    chosen = determinantal_tokens(tokens, scores, count)
    for row in range(3):
        kernel = kernel_by_loop(tokens[row].tolist(), scores[row].tolist())
        assert chosen[row].tolist() == most_probable_by_determinants(kernel, count)


def test_determinantal_tokens_equal_greedy_search_among_many() -> None:
    tokens, scores = random_inputs(1, 64, 96, seed=7)
    kernel = kernel_by_loop(tokens[0].tolist(), scores[0].tolist())
    chosen = determinantal_tokens(tokens, scores, 20)
    assert chosen[0].tolist() == most_probable_by_determinants(kernel, 20)


def test_determinantal_tokens_by_hand() -> None:
    # Scores 4, 3.8, 2 and 0 scale to 1, 0.95, 0.5 and 0. The first token is chosen first. The
    # second nearly repeats it: its residual is 0.95² (1 - 0.96²) = 0.07, the third's 0.5² = 0.25.
    tokens = torch.tensor([[[1.0, 0.0], [0.96, 0.28], [0.0, 1.0], [-1.0, 0.0]]])
    scores = torch.tensor([[4.0, 3.8, 2.0, 0.0]])
    assert determinantal_tokens(tokens, scores, 1).tolist() == [[0]]
    assert determinantal_tokens(tokens, scores, 2).tolist() == [[0, 2]]


@given(tokens=TOKENS, data=st.data())
def test_tokens_without_residual_follow_in_their_order(
    tokens: list[Vector], data: st.DataObject
) -> None:
    # With equal scores, each first token along an axis has a residual; all that follow along it and
    # zero vectors have none.
    count = data.draw(st.integers(1, len(tokens)))
    fresh, stale, seen = [], [], set()
    for index, token in enumerate(tokens):
        axis = tuple(value != 0 for value in token)
        (fresh if any(token) and axis not in seen else stale).append(index)
        seen.add(axis)
    chosen = determinantal_tokens(torch.tensor([tokens]), torch.ones(1, len(tokens)), count)
    assert chosen[0].tolist() == sorted((fresh + stale)[:count])


@pytest.mark.parametrize("seed", range(3))
def test_more_tokens_than_the_kernel_has_rank_are_distinct(seed: int) -> None:
    tokens, scores = random_inputs(2, 40, 3, seed)
    few, many = (determinantal_tokens(tokens, scores, count) for count in (3, 30))
    for row in range(2):
        kernel = kernel_by_loop(tokens[row].tolist(), scores[row].tolist())
        assert few[row].tolist() == most_probable_by_determinants(kernel, 3)
        assert len(set(many[row].tolist())) == 30
        assert set(few[row].tolist()) <= set(many[row].tolist())


# VisPruner


def deduplicated_by_loop(
    tokens: Sequence[Vector], scores: Sequence[float], count: int, share: float, step: int
) -> list[int]:
    order = falling(scores)
    important = int(share * count)
    if important == count:
        return sorted(order[:count])
    rest = order[important:]
    while len(rest) > count - important:
        even, odd = rest[::2], rest[1::2]
        leaving = min(step, len(rest) - (count - important), len(even))
        likeness = [max(cosine(tokens[i], tokens[j]) for j in odd) for i in even]
        rising = sorted(range(len(even)), key=lambda place: (likeness[place], place))
        staying = rising[: len(even) - leaving]
        rest = [even[place] for place in reversed(staying)] + odd
    return sorted(order[:important] + rest)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("count", "share", "step"), [(1, 0.5, 8), (9, 0.5, 1), (9, 0.3, 3), (20, 0.0, 8), (22, 1.0, 2)]
)
def test_deduplicated_tokens_equal_a_loop(seed: int, count: int, share: float, step: int) -> None:
    tokens, scores = random_inputs(2, 23, 4, seed)
    chosen = deduplicated_tokens(tokens, scores, count, share=share, step=step)
    for row in range(2):
        expected = deduplicated_by_loop(
            tokens[row].tolist(), scores[row].tolist(), count, share, step
        )
        assert chosen[row].tolist() == expected


@given(tokens=TOKENS, data=st.data())
def test_of_equally_similar_tokens_the_later_leaves(
    tokens: list[Vector], data: st.DataObject
) -> None:
    scores = data.draw(st.lists(st.integers(0, 2), min_size=len(tokens), max_size=len(tokens)))
    count = data.draw(st.integers(1, len(tokens)))
    share, step = data.draw(st.sampled_from([0.0, 0.5, 1.0])), data.draw(st.integers(1, 4))
    chosen = deduplicated_tokens(
        torch.tensor([tokens]), torch.tensor([scores]).float(), count, share=share, step=step
    )
    assert chosen[0].tolist() == deduplicated_by_loop(tokens, scores, count, share, step)


def test_deduplicated_tokens_by_hand() -> None:
    # One important token, the first. Of the others b, c, d and e, by falling score, b and d are at
    # even places: b has cosine 0 with c and -0.8 with e, d 0.8 with c and 0 with e, so d leaves.
    # Then, of b, c and e, b and e are at even places: e has cosine 0.6 with c and leaves.
    tokens = torch.tensor([[[5.0, 5.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]]])
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0]])
    chosen = deduplicated_tokens(tokens, scores, 4, share=0.25, step=1)
    assert chosen.tolist() == [[0, 1, 2, 4]]
    chosen = deduplicated_tokens(tokens, scores, 3, share=0.34, step=1)
    assert chosen.tolist() == [[0, 1, 2]]


# DART


def least_duplicated_by_loop(
    tokens: Sequence[Vector],
    scores: Sequence[float],
    count: int,
    image_pivots: int,
    text: Sequence[Vector],
) -> list[int]:
    chosen = falling(scores)[: min(image_pivots, count)]
    pivots = [tokens[index] for index in chosen] + list(text)
    missing = count - len(chosen)
    for place, pivot in enumerate(pivots):
        share = math.ceil(missing / (len(pivots) - place))
        free = [index for index in range(len(tokens)) if index not in chosen]
        free.sort(key=lambda index: (cosine(tokens[index], pivot), index))
        chosen += free[:share]
        missing -= share
    return sorted(chosen)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("count", "image_pivots", "text_pivots"), [(1, 4, 4), (3, 4, 2), (10, 4, 4), (16, 1, 0)]
)
def test_least_duplicated_tokens_equal_a_loop(
    seed: int, count: int, image_pivots: int, text_pivots: int
) -> None:
    tokens, scores = random_inputs(2, 17, 4, seed)
    text, _ = random_inputs(2, text_pivots, 4, seed + 100)
    chosen = least_duplicated_tokens(tokens, scores, count, image_pivots=image_pivots, text=text)
    for row in range(2):
        expected = least_duplicated_by_loop(
            tokens[row].tolist(), scores[row].tolist(), count, image_pivots, text[row].tolist()
        )
        assert chosen[row].tolist() == expected


@given(tokens=TOKENS, data=st.data())
def test_of_equally_dissimilar_tokens_the_earlier_is_chosen(
    tokens: list[Vector], data: st.DataObject
) -> None:
    scores = data.draw(st.lists(st.integers(0, 2), min_size=len(tokens), max_size=len(tokens)))
    count = data.draw(st.integers(1, len(tokens)))
    pivots = data.draw(st.integers(1, 4))
    chosen = least_duplicated_tokens(
        torch.tensor([tokens]),
        torch.tensor([scores]).float(),
        count,
        image_pivots=pivots,
        text=None,
    )
    assert chosen[0].tolist() == least_duplicated_by_loop(tokens, scores, count, pivots, [])


def test_least_duplicated_tokens_by_hand() -> None:
    # Pivots are a and b; three tokens are left to choose, one for each pivot. c is opposite to a,
    # d to b. The text points to the right like a: of e (cosine 0.8) and f (0.6) f is less like it.
    a, b, c, d = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)
    e, f = (0.8, 0.6), (0.6, -0.8)
    tokens = torch.tensor([[a, b, c, d, e, f]])
    scores = torch.tensor([[5.0, 4.0, 1.0, 2.0, 3.0, 0.0]])
    text = torch.tensor([[(2.0, 0.0)]])
    chosen = least_duplicated_tokens(tokens, scores, 5, image_pivots=2, text=text)
    assert chosen.tolist() == [[0, 1, 2, 3, 5]]
    # Two tokens for three pivots: the text has none to choose.
    chosen = least_duplicated_tokens(tokens, scores, 4, image_pivots=2, text=text)
    assert chosen.tolist() == [[0, 1, 2, 3]]


# All of them

SELECTORS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "most distant": lambda tokens, scores, count: most_distant_tokens(tokens, count),
    "determinantal": determinantal_tokens,
    "deduplicated": partial(deduplicated_tokens, share=0.5, step=2),
    "least duplicated": lambda tokens, scores, count: least_duplicated_tokens(
        tokens, scores, count, image_pivots=4, text=tokens[:, :2]
    ),
}
each_selector = pytest.mark.parametrize("name", SELECTORS)


@each_selector
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_chooses_what_its_samples_choose(name: str, dtype: torch.dtype) -> None:
    tokens, scores = (part.to(dtype) for part in random_inputs(3, 49, 32, seed=3))
    chosen = SELECTORS[name](tokens, scores, 20)
    for row in range(3):
        alone = SELECTORS[name](tokens[row : row + 1], scores[row : row + 1], 20)
        assert alone[0].tolist() == chosen[row].tolist()


@each_selector
def test_half_precision_is_compared_in_single_precision(name: str) -> None:
    tokens, scores = (part.bfloat16() for part in random_inputs(2, 30, 8, seed=4))
    chosen = SELECTORS[name](tokens, scores, 12)
    assert chosen.tolist() == SELECTORS[name](tokens.float(), scores.float(), 12).tolist()


@each_selector
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_tokens_leave_the_earliest(name: str, value: float, dtype: torch.dtype) -> None:
    tokens = torch.full((2, 8, 4), value, dtype=dtype)
    scores = torch.full((2, 8), 0.25, dtype=dtype)
    for count in (1, 7, 8):
        chosen = SELECTORS[name](tokens, scores, count).tolist()
        if name == "deduplicated":  # what leaves depends on places here, see its loop
            expected = deduplicated_by_loop(tokens[0].tolist(), scores[0].tolist(), count, 0.5, 2)
        else:
            expected = list(range(count))
        assert chosen == [expected, expected]


@each_selector
def test_a_single_token_is_chosen(name: str) -> None:
    assert SELECTORS[name](torch.randn(2, 1, 4), torch.rand(2, 1), 1).tolist() == [[0], [0]]

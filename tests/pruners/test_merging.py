"""Merge rules, against loops over tokens and examples worked out by hand."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruners.merging import average_clusters, merge_into_references, reference_indices


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def nearest(key: Tensor, centres: list[Tensor]) -> int:
    similarities = [cosine(key, centre) for centre in centres]
    return similarities.index(max(similarities))


def test_references_are_the_first_multiples_of_the_stride() -> None:
    # VisionDrop's released 32-token setting: 535 patches are left beside 41 kept ones.
    assert list(reference_indices(535, 6)) == [0, 89, 178, 267, 356, 445]
    assert list(reference_indices(5, 3)) == [0, 1, 2]


@given(
    total=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    combine=st.sampled_from(["sum", "mean"]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_merging_into_references_equals_a_loop(
    total: int, seed: int, combine: Literal["sum", "mean"], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, total))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, total, 5, generator=generator)
    keys = torch.randn(2, total, 3, generator=generator)
    merged = merge_into_references(tokens, keys, count, combine)
    assert merged.shape == (2, count, 5)
    step = total // count
    references = [step * index for index in range(count)]
    for row in range(2):
        groups: list[list[Tensor]] = [[] for _ in references]
        for index in range(total):
            if index not in references:
                centres = [keys[row, reference] for reference in references]
                groups[nearest(keys[row, index], centres)].append(tokens[row, index])
        for place, reference in enumerate(references):
            own, joined = tokens[row, reference], groups[place]
            if not joined:
                expected = own
            elif combine == "sum":
                expected = own + torch.stack(joined).mean(dim=0)
            else:
                expected = torch.stack([own, *joined]).mean(dim=0)
            torch.testing.assert_close(merged[row, place], expected)


@pytest.mark.parametrize(("combine", "expected"), [("sum", 3.5), ("mean", 2.0)])
def test_merging_by_hand(combine: Literal["sum", "mean"], expected: float) -> None:
    # References are tokens 0 and 2 (stride 2); both others point the way of token 0. The mean of
    # those two is 2.5, and 2 with the reference.
    tokens = torch.tensor([[[1.0], [2.0], [20.0], [3.0]]])
    keys = torch.tensor([[[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [5.0, 1.0]]])
    merged = merge_into_references(tokens, keys, 2, combine)
    assert merged[0].tolist() == [[expected], [20.0]]


@given(total=st.integers(2, 12), seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_averaging_clusters_equals_a_loop(total: int, seed: int, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.integers(0, total - 1), unique=True, min_size=1).map(sorted))
    dropped = [index for index in range(total) if index not in kept]
    tokens = torch.randn(1, total, 4, generator=torch.Generator().manual_seed(seed))
    clusters = average_clusters(
        tokens, torch.tensor([kept]), torch.tensor([dropped], dtype=torch.long)
    )
    members = {index: [tokens[0, index]] for index in kept}
    for index in dropped:
        place = nearest(tokens[0, index], [tokens[0, centre] for centre in kept])
        members[kept[place]].append(tokens[0, index])
    for place, index in enumerate(kept):
        torch.testing.assert_close(clusters[0, place], torch.stack(members[index]).mean(dim=0))


def test_averaging_by_hand() -> None:
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 4.0], [4.0, 1.0], [0.0, 8.0]]])
    clusters = average_clusters(tokens, torch.tensor([[0, 1]]), torch.tensor([[2, 3]]))
    assert clusters[0].tolist() == [[3.0, 0.5], [0.0, 6.0]]


def test_merging_keeps_the_dtype() -> None:
    tokens = torch.randn(1, 6, 4, dtype=torch.bfloat16)
    assert merge_into_references(tokens, tokens, 2, "sum").dtype == torch.bfloat16
    kept, dropped = torch.tensor([[0, 1]]), torch.tensor([[2, 3, 4, 5]])
    assert average_clusters(tokens, kept, dropped).dtype == torch.bfloat16

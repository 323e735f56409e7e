"""Merge rules, against loops over tokens and examples worked out by hand."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruners.merging import (
    average_by_size,
    average_clusters,
    merge_into_references,
    strided_references,
    weigh_by_similarity,
)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def nearest(key: Tensor, centres: list[Tensor]) -> int:
    similarities = [cosine(key, centre) for centre in centres]
    return similarities.index(max(similarities))


def test_references_are_the_first_multiples_of_the_stride() -> None:
    # VisionDrop's released 32-token setting: 535 patches are left beside 41 kept ones.
    references, others = strided_references(torch.arange(535)[None], 6)
    assert references[0].tolist() == [0, 89, 178, 267, 356, 445]
    assert others[0].tolist() == sorted(set(range(535)) - {0, 89, 178, 267, 356, 445})
    references, others = strided_references(torch.arange(5)[None], 3)
    assert references[0].tolist() == [0, 1, 2]
    assert others[0].tolist() == [3, 4]


@given(total=st.integers(1, 12), data=st.data())
def test_every_token_is_a_reference_or_another(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    tokens = torch.arange(2 * total * 3).view(2, total, 3)
    references, others = strided_references(tokens, count)
    wanted = [place * (total // count) for place in range(count)]
    assert torch.equal(references, tokens[:, wanted])
    assert torch.equal(others, tokens[:, [place for place in range(total) if place not in wanted]])


@given(
    total=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    combine=st.sampled_from(["sum", "mean"]),
    data=st.data(),
)
@settings(max_examples=60)
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
@settings(max_examples=60)
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


def random_choice(total: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens to keep and to drop, for two samples each."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(total, generator=generator) for _ in range(2)]
    kept = torch.stack([order[:count].sort().values for order in orders])
    dropped = torch.stack([order[count:].sort().values for order in orders])
    return kept, dropped


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("total", "count"), [(1, 1), (8, 1), (12, 5), (12, 11), (6, 6)])
def test_weighing_by_similarity_equals_a_loop(seed: int, total: int, count: int) -> None:
    kept, dropped = random_choice(total, count, seed)
    tokens = torch.randn(2, total, 4, generator=torch.Generator().manual_seed(seed))
    merged = weigh_by_similarity(tokens, kept, dropped)
    assert merged.shape == (2, count, 4)
    for row in range(2):
        centres = [tokens[row, index] for index in kept[row]]
        members = [[(1.0, centre)] for centre in centres]
        for index in dropped[row]:
            place = nearest(tokens[row, index], centres)
            weight = max(0.0, cosine(tokens[row, index], centres[place]))
            members[place].append((weight, tokens[row, index]))
        for place, parts in enumerate(members):
            weights = sum(weight for weight, _ in parts)
            for column in range(4):
                mean = sum(weight * float(token[column]) for weight, token in parts) / weights
                assert merged[row, place, column].item() == pytest.approx(mean, abs=1e-5)


def test_weighing_by_similarity_by_hand() -> None:
    # Kept: a = (2, 0) and b = (0, 4). (3, 4) has cosine 0.6 with a and 0.8 with b, and joins b:
    # ((0, 4) + 0.8 (3, 4)) / 1.8 = (4/3, 4). (1, 0) joins a with weight 1: ((2, 0) + (1, 0)) / 2.
    # (-3, -4) has cosine -0.6 with a, -0.8 with b: it joins a and weighs nothing.
    tokens = torch.tensor([[[2.0, 0.0], [3.0, 4.0], [0.0, 4.0], [1.0, 0.0], [-3.0, -4.0]]])
    merged = weigh_by_similarity(tokens, torch.tensor([[0, 2]]), torch.tensor([[1, 3, 4]]))
    assert merged[0, 0].tolist() == pytest.approx([1.5, 0.0])
    assert merged[0, 1].tolist() == pytest.approx([4 / 3, 4.0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("total", "count"), [(1, 1), (8, 1), (12, 5), (12, 11), (6, 6)])
def test_averaging_by_size_equals_a_loop(seed: int, total: int, count: int) -> None:
    kept, dropped = random_choice(total, count, seed)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, total, 4, generator=generator)
    keys = torch.randn(2, total, 3, generator=generator)
    sizes = torch.randint(1, 9, (2, total), generator=generator).float()
    merged, merged_sizes = average_by_size(tokens, keys, sizes, kept, dropped)
    assert merged_sizes.sum(dim=-1).tolist() == sizes.sum(dim=-1).tolist()
    for row in range(2):
        # A token of size s is s patches, all alike.
        patches = [[tokens[row, i].tolist()] * int(sizes[row, i]) for i in kept[row]]
        for index in dropped[row]:
            place = nearest(keys[row, index], [keys[row, centre] for centre in kept[row]])
            patches[place] += [tokens[row, index].tolist()] * int(sizes[row, index])
        for place, members in enumerate(patches):
            assert merged_sizes[row, place].item() == len(members)
            mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
            assert merged[row, place].tolist() == pytest.approx(mean, abs=1e-5)


def test_averaging_by_size_by_hand() -> None:
    # The dropped token's key points the way of the second kept one's, whatever the tokens are:
    # (3 * 4 + 1 * 8) / (3 + 1) = 5. The first keeps its size of 2.
    tokens = torch.tensor([[[7.0], [8.0], [4.0]]])
    keys = torch.tensor([[[1.0, 0.0], [0.1, 5.0], [0.0, 1.0]]])
    sizes = torch.tensor([[2.0, 1.0, 3.0]])
    merged, merged_sizes = average_by_size(
        tokens, keys, sizes, torch.tensor([[0, 2]]), torch.tensor([[1]])
    )
    assert merged.tolist() == [[[7.0], [5.0]]]
    assert merged_sizes.tolist() == [[2.0, 4.0]]


def test_of_equally_similar_kept_tokens_the_earlier_is_joined() -> None:
    tokens = torch.ones(1, 4, 2)
    kept, dropped = torch.tensor([[1, 2]]), torch.tensor([[0, 3]])
    merged, sizes = average_by_size(tokens, tokens, torch.ones(1, 4), kept, dropped)
    assert sizes.tolist() == [[3.0, 1.0]]
    assert merged.tolist() == tokens[:, :2].tolist()
    # Zero vectors are similar to nothing: cosine 0, weight 0.
    nothing = torch.zeros(1, 4, 2)
    assert weigh_by_similarity(nothing, kept, dropped).tolist() == nothing[:, :2].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_merges_as_its_samples_do(dtype: torch.dtype) -> None:
    tokens = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    sizes = torch.arange(80).view(2, 40) % 5 + 1
    kept, dropped = random_choice(40, 12, seed=1)
    weighed = weigh_by_similarity(tokens, kept, dropped)
    averaged = average_by_size(tokens, tokens, sizes, kept, dropped)
    for row in range(2):
        own = slice(row, row + 1)
        alone = weigh_by_similarity(tokens[own], kept[own], dropped[own])
        assert torch.equal(alone[0], weighed[row])
        parts = average_by_size(tokens[own], tokens[own], sizes[own], kept[own], dropped[own])
        assert all(torch.equal(a[0], b[row]) for a, b in zip(parts, averaged, strict=True))


def test_merging_keeps_the_dtype() -> None:
    tokens = torch.randn(1, 6, 4, dtype=torch.bfloat16)
    assert merge_into_references(tokens, tokens, 2, "sum").dtype == torch.bfloat16
    kept, dropped = torch.tensor([[0, 1]]), torch.tensor([[2, 3, 4, 5]])
    assert average_clusters(tokens, kept, dropped).dtype == torch.bfloat16
    assert weigh_by_similarity(tokens, kept, dropped).dtype == torch.bfloat16
    merged, sizes = average_by_size(tokens, tokens, torch.ones(1, 6), kept, dropped)
    assert merged.dtype == torch.bfloat16
    assert sizes.dtype == torch.float32  # whole numbers above 256 have no place in bfloat16

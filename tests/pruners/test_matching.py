"""ToMe's matching: one example worked by hand, and a plain-loop version."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pruners.matching import match_tokens, merge_matched

# Tokens 0, 2, 4 are one set, 1 and 3 the other. Cosines: 1 with 0: 0.8; 3 with 2: 0.96.
KEYS = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 2.0], [0.28, 0.96], [-1.0, 0.0]]])
TOKENS = torch.tensor([[[4.0], [8.0], [1.0], [5.0], [9.0]]])


def test_worked_by_hand() -> None:
    matching = match_tokens(KEYS, 1)
    assert matching.merged.tolist() == [[3]]
    assert matching.into.tolist() == [[2]]
    assert matching.kept.tolist() == [[0, 1, 2, 4]]
    tokens, sizes = merge_matched(TOKENS, torch.tensor([[2.0, 1.0, 3.0, 1.0, 1.0]]), matching)
    # Three patches of 1 and one of 5.
    assert tokens.squeeze(-1).tolist() == [[4.0, 8.0, 2.0, 9.0]]
    assert sizes.tolist() == [[2.0, 1.0, 4.0, 1.0]]

    matching = match_tokens(KEYS, 2)
    assert matching.merged.tolist() == [[3, 1]]
    assert matching.into.tolist() == [[2, 0]]
    tokens, sizes = merge_matched(TOKENS, torch.ones(1, 5), matching)
    assert tokens.squeeze(-1).tolist() == [[6.0, 3.0, 9.0]]
    assert sizes.tolist() == [[2.0, 2.0, 1.0]]


def test_equals_merge_into_the_first_and_from_the_first() -> None:
    matching = match_tokens(torch.ones(1, 7, 3), 2)
    assert matching.merged.tolist() == [[1, 3]]
    assert matching.into.tolist() == [[0, 0]]
    tokens, sizes = merge_matched(torch.arange(7.0).view(1, 7, 1), torch.ones(1, 7), matching)
    torch.testing.assert_close(tokens.squeeze(-1), torch.tensor([[4 / 3, 2.0, 4.0, 5.0, 6.0]]))
    assert sizes.tolist() == [[3.0, 1.0, 1.0, 1.0, 1.0]]


def plain_merge(
    tokens: list[Tensor], sizes: list[float], keys: list[Tensor], count: int
) -> tuple[list[Tensor], list[float], list[int]]:
    """Merge one sample's tokens pair by pair."""
    edges = []
    for source in range(1, len(tokens), 2):
        cosines = [
            (torch.cosine_similarity(keys[source], keys[target], dim=0).item(), -target)
            for target in range(0, len(tokens), 2)
        ]
        cosine, target = max(cosines)
        edges.append((-cosine, source, -target))
    members = {place: [place] for place in range(len(tokens))}
    for _, source, target in sorted(edges)[:count]:
        members[target] += members.pop(source)
    merged = [
        sum(sizes[member] * tokens[member] for member in group)
        / sum(sizes[member] for member in group)
        for group in members.values()
    ]
    totals = [sum(sizes[member] for member in group) for group in members.values()]
    return merged, totals, list(members)


@pytest.mark.parametrize(("total", "count"), [(2, 1), (9, 4), (12, 6), (12, 1), (7, 0)])
def test_equals_plain_loops(total: int, count: int) -> None:
    generator = torch.Generator().manual_seed(total)
    tokens = torch.randn(3, total, 5, generator=generator)
    keys = torch.randn(3, total, 4, generator=generator)
    sizes = torch.randint(1, 9, (3, total), generator=generator).float()
    matching = match_tokens(keys, count)
    merged, totals = merge_matched(tokens, sizes, matching)
    for sample in range(3):
        expected, expected_totals, kept = plain_merge(
            list(tokens[sample]), sizes[sample].tolist(), list(keys[sample]), count
        )
        assert matching.kept[sample].tolist() == kept
        torch.testing.assert_close(merged[sample], torch.stack(expected))
        assert totals[sample].tolist() == expected_totals


def test_the_mean_over_patches_is_kept_in_any_dtype() -> None:
    tokens = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(1))
    sizes = torch.ones(2, 10)
    for _ in range(3):
        matching = match_tokens(tokens, tokens.shape[1] // 2)
        half, _ = merge_matched(tokens.bfloat16(), sizes, matching)
        assert half.dtype == torch.bfloat16
        mean = (tokens * sizes.unsqueeze(-1)).sum(dim=1) / 10
        tokens, sizes = merge_matched(tokens, sizes, matching)
        torch.testing.assert_close((tokens * sizes.unsqueeze(-1)).sum(dim=1) / 10, mean)
    assert sizes.sum(dim=1).tolist() == [10.0, 10.0]

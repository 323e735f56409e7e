"""Rows of the decoder's attention (FastV, PyramidDrop, SparseVLM), and which text tokens rate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pruners.saliency import key_norms, patch_saliency, rater_mask, row_saliency, visual_saliency
from tests.pruners.saliency.by_hand import dot, softmax


def rows_by_loop(
    queries: list[list[list[float]]],
    keys: list[list[list[float]]],
    visual: list[int],
    rows: list[int],
    weights: list[float],
    is_token: list[bool],
    scale: float,
) -> list[float]:
    """One sample; queries by head and row, keys by key-value head and position."""
    scores = [0.0] * len(visual)
    for head, of_head in enumerate(queries):
        own = keys[head * len(keys) // len(queries)]
        for query, row, weight in zip(of_head, rows, weights, strict=True):
            if weight == 0:
                continue
            seen = [p for p in range(len(own)) if p <= row and is_token[p]]
            attention = dict(
                zip(seen, softmax([scale * dot(query, own[p]) for p in seen]), strict=True)
            )
            for place, position in enumerate(visual):
                share = weight / sum(weights) / len(queries)
                scores[place] += share * attention.get(position, 0.0)
    return scores


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_row_saliency_equals_a_loop(seed: int, padding: str | None, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    length, size = 9, 6
    rows = torch.tensor([[6, 7, 8, 0], [5, 8, 2, 4]])
    weights = torch.rand(2, 4, generator=generator)
    weights[0, 3] = 0  # position 0, which is padding if it is on the left
    visual = torch.tensor([[2, 3, 4], [1, 3, 6]])  # some rows stand before some visual tokens
    mask = torch.ones(2, length, dtype=torch.bool)
    if padding == "left":
        mask[0, :2] = False
    elif padding == "right":
        rows[0], weights[0] = torch.tensor([5, 6, 7, 8]), torch.tensor([1.0, 0.5, 0.0, 0.0])
        mask[0, 7:] = False
    queries = torch.randn(2, 4, 4, size, generator=generator)
    keys = torch.randn(2, kv_heads, length, size, generator=generator)
    scores = row_saliency(
        queries, keys, visual, rows, weights, None if padding is None else mask, scale=0.4
    )
    for row in range(2):
        parts = (part[row].tolist() for part in (queries, keys, visual, rows, weights, mask))
        assert scores[row].tolist() == pytest.approx(rows_by_loop(*parts, 0.4), abs=1e-6)


def test_row_saliency_by_hand() -> None:
    # Text, visual, visual, text with logits ln 1, ln 2, ln 5 and ln 8: the last token sees shares
    # of (1, 2, 5, 8) / 16, the one before it (1, 2, 5) / 8. The first may weigh 3, the second 1.
    keys = torch.tensor([1.0, 2.0, 5.0, 8.0]).log()[None, None, :, None]
    queries, visual = torch.ones(1, 1, 2, 1), torch.tensor([[1, 2]])
    rows = torch.tensor([[3, 2]])
    last = torch.tensor([[1.0, 0.0]])
    scores = row_saliency(queries, keys, visual, rows, last, None, scale=1.0)
    assert scores[0].tolist() == pytest.approx([2 / 16, 5 / 16])
    both = torch.tensor([[3.0, 1.0]])
    scores = row_saliency(queries, keys, visual, rows, both, None, scale=1.0)
    expected = [(3 * 2 / 16 + 2 / 8) / 4, (3 * 5 / 16 + 5 / 8) / 4]
    assert scores[0].tolist() == pytest.approx(expected)


def test_rows_of_padding_and_rows_without_weight_make_no_nan() -> None:
    # Left padding at 0 and 1: a row there sees nothing. No weights at all: scores are zero.
    queries, keys = torch.randn(2, 2, 2, 4), torch.randn(2, 1, 5, 4)
    mask = torch.tensor([[False, False, True, True, True]]).expand(2, -1)
    visual, rows = torch.tensor([[2, 3], [2, 3]]), torch.tensor([[0, 4], [1, 4]])
    weights = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    scores = row_saliency(queries, keys, visual, rows, weights, mask, scale=0.5)
    alone = row_saliency(
        queries[:1, :, 1:], keys[:1], visual[:1], rows[:1, 1:], weights[:1, 1:], mask[:1], scale=0.5
    )
    assert scores[0].tolist() == pytest.approx(alone[0].tolist())
    assert scores[1].tolist() == [0.0, 0.0]


def test_all_visual_rows_alike_are_the_causal_visual_saliency() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 4, 3, 8, generator=generator)
    keys = torch.randn(2, 2, 7, 8, generator=generator)
    visual = torch.tensor([[1, 2, 4], [2, 3, 5]])
    weights = torch.ones(2, 3)
    by_rows = row_saliency(queries, keys, visual, visual, weights, None, scale=0.5)
    torch.testing.assert_close(by_rows, visual_saliency(queries, keys, visual, None, scale=0.5))


def raters_by_loop(visual: list[list[float]], text: list[list[float]]) -> list[bool]:
    received = [0.0] * len(text)
    for token in visual:
        for place, share in enumerate(softmax([dot(token, other) for other in text])):
            received[place] += share / len(visual)
    mean = sum(received) / len(received)
    return [value > mean for value in received]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("side", ["left", "right"])
def test_raters_equal_a_loop(seed: int, side: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(3, 6, 5, generator=generator)
    text = torch.randn(3, 8, 5, generator=generator)
    lengths = torch.tensor([8, 5, 2])
    mask = torch.arange(8) < lengths[:, None]
    mask = mask.flip(-1) if side == "left" else mask
    raters = rater_mask(visual, text, mask)
    for row in range(3):
        expected = raters_by_loop(visual[row].tolist(), text[row, mask[row]].tolist())
        assert any(expected)
        assert raters[row, mask[row]].tolist() == expected
        assert not raters[row, ~mask[row]].any()


def test_raters_by_hand() -> None:
    # Text tokens ln 1, ln 2 and ln 5. A visual token 1 spreads (1, 2, 5) / 8 over them, -1 spreads
    # (1, 1/2, 1/5) / 1.7 = (10, 5, 2) / 17. The means are 0.36, 0.27 and 0.37: two
    # of them are above 1/3.
    visual = torch.tensor([[[1.0], [-1.0]]])
    text = torch.tensor([1.0, 2.0, 5.0]).log()[None, :, None]
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert rater_mask(visual, text, mask).tolist() == [[True, False, True]]
    # With 1 alone: 0.125, 0.25 and 0.625.
    assert rater_mask(visual[:, :1], text, mask).tolist() == [[False, False, True]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_text_tokens_are_all_raters(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    visual = (10 * torch.randn(2, 576, 64, generator=generator)).to(dtype)
    text = torch.randn(1, 1, 64, generator=generator).expand(2, 7, -1).to(dtype)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    assert torch.equal(rater_mask(visual, text, mask), mask)


def test_a_single_text_token_rates_and_without_text_none_does() -> None:
    visual, text = torch.randn(2, 3, 4), torch.randn(2, 2, 4)
    mask = torch.tensor([[False, True], [False, False]])
    assert torch.equal(rater_mask(visual, text, mask), mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_a_batch_are_those_of_its_samples(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 4, 20, 8, generator=generator).to(dtype)
    keys = torch.randn(3, 4, 20, 8, generator=generator).to(dtype)
    visual = torch.arange(2, 12).expand(3, -1)
    rows = torch.arange(20).expand(3, -1)
    weights = torch.rand(3, 20, generator=generator)
    mask = torch.arange(20) >= torch.tensor([[0], [1], [2]])

    def scores(own: slice, dtype: torch.dtype) -> list[Tensor]:
        states = queries[own].to(dtype), keys[own].to(dtype)
        places = visual[own], rows[own], weights[own], mask[own]
        text = states[1][:, 0], mask[own]
        return [
            row_saliency(*states, *places, scale=0.5),
            patch_saliency(*states, 0.5),
            key_norms(states[1]),
            rater_mask(states[0][:, 0], *text),
        ]

    batch = scores(slice(None), dtype)
    assert [part.dtype for part in batch] == [torch.float32] * 3 + [torch.bool]
    # Half precision is computed in single precision.
    assert all(map(torch.equal, batch, scores(slice(None), torch.float32)))
    for row in range(3):
        alone = scores(slice(row, row + 1), dtype)
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, batch, strict=True))

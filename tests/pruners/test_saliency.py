"""Saliency, against the attention maps of the models themselves and by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pruners.attention_rows import LayerAttention, cls_attention, decoupled_output
from pruners.saliency import (
    cls_saliency,
    key_norms,
    patch_saliency,
    rater_mask,
    row_saliency,
    visual_saliency,
)

QUESTIONS = ("w1 w2 w3", "w4")


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(logits: Sequence[float]) -> list[float]:
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def test_cls_saliency_by_hand() -> None:
    # Keys with logits 0, ln 2 and ln 5: the softmax is (1, 2, 5) / 8, the CLS token's own first.
    keys = torch.tensor([1.0, 2.0, 5.0]).log()[None, None, :, None]
    query = torch.ones(1, 1, 1, 1)
    assert cls_saliency(query, keys, scale=1.0)[0].tolist() == pytest.approx([2 / 8, 5 / 8])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("patches", [1, 6])
def test_cls_saliency_equals_a_loop(seed: int, patches: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 3, 1, 4, generator=generator)
    keys = torch.randn(2, 3, 1 + patches, 4, generator=generator)
    scores = cls_saliency(query, keys, scale=0.7)
    for row in range(2):
        expected = [0.0] * patches
        for head in range(3):
            own = keys[row, head].tolist()
            attention = softmax([0.7 * dot(query[row, head, 0].tolist(), key) for key in own])
            for patch in range(patches):
                expected[patch] += attention[1 + patch] / 3
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("layer", [-1, -2, -4])
def test_cls_saliency_equals_the_towers_own_attention(tiny: Any, layer: int) -> None:
    tower = tiny.load("eager").model.vision_tower
    with torch.no_grad():
        output = tower(tiny.images(2), output_attentions=True, output_hidden_states=True)
        scores = cls_attention(tower.encoder.layers[layer], output.hidden_states[layer - 1])
    expected = output.attentions[layer].mean(dim=1)[:, 0, 1:]
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


def test_plain_encoding_equals_the_towers_own_attention_output(tiny: Any) -> None:
    tower = tiny.load("eager").model.vision_tower
    layer = tower.encoder.layers[-1]
    seen: list[Any] = []
    hook = layer.self_attn.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        with torch.no_grad():
            output = tower(tiny.images(2), output_hidden_states=True)
    finally:
        hook.remove()
    with torch.no_grad():
        result = decoupled_output(layer, output.hidden_states[-2], "qk")
    torch.testing.assert_close(result, seen[0][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoding", ["qq", "kk", "vv"])
def test_decoupled_encoding_equals_a_loop_over_heads(tiny: Any, encoding: str) -> None:
    layer = tiny.model.model.vision_tower.encoder.layers[-1]
    attention = layer.self_attn
    hidden = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        normed = layer.layer_norm1(hidden)[0]
        states = {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj}
        same, values = states[encoding[0]](normed), attention.v_proj(normed)
        heads = []
        for head in range(2):
            columns = slice(8 * head, 8 * head + 8)
            logits = same[:, columns] @ same[:, columns].T / 8**0.5
            heads.append(logits.softmax(dim=-1) @ values[:, columns])
        expected = attention.out_proj(torch.cat(heads, dim=-1))
        result = decoupled_output(layer, hidden, encoding)[0]  # type: ignore[arg-type]
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("index", [1, 4])
def test_visual_saliency_equals_the_decoders_own_attention(
    family: Any, padding: str, index: int
) -> None:
    model = family.load("eager")
    decoder, image = model.model.language_model, model.config.image_token_id
    inputs = family.inputs(QUESTIONS, padding)
    seen: list[Any] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0], kwargs["position_embeddings"]))

    layer = decoder.layers[index]
    hook = layer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            attention = model(**inputs, output_attentions=True).attentions[index]
    finally:
        hook.remove()
    visual = torch.stack([row.nonzero()[:, 0] for row in inputs["input_ids"] == image])
    with torch.no_grad():
        rows = LayerAttention(layer, *seen[0])
        queries, keys = rows.queries(visual), rows.keys
        torch.testing.assert_close(
            rows.keys_of(visual), torch.stack([k[:, v] for k, v in zip(keys, visual, strict=True)])
        )
    key_mask = inputs["attention_mask"].bool()
    scale = rows.scale
    assert scale == layer.self_attn.scaling
    causal = visual_saliency(queries, keys, visual, key_mask, scale=scale, window=rows.window)
    attending = visual_saliency(
        queries,
        keys,
        visual,
        key_mask,
        scale=scale,
        window=rows.window,
        mean="attending-queries",
    )
    count = visual.shape[1]
    for row in range(len(QUESTIONS)):
        for place, position in enumerate(visual[row].tolist()):
            received = attention[row, :, visual[row], position].mean(dim=0)
            assert causal[row, place].item() == pytest.approx(received.mean().item(), abs=1e-6)
            # Queries before the token cannot see it, and none that is further than the window.
            behind = visual[row, place:] - position
            seeing = received[place:][behind < (rows.window or behind[-1] + 1)]
            assert rows.window is not None or len(seeing) == count - place
            assert attending[row, place].item() == pytest.approx(seeing.mean().item(), abs=1e-6)


def test_causal_saliency_by_hand() -> None:
    # Text, visual, visual, text; all logits equal, so a query spreads evenly over what it sees:
    # the first visual query gives 1/2, the second 1/3 to either visual token.
    queries, keys = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 2)
    visual = torch.tensor([[1, 2]])
    causal = visual_saliency(queries, keys, visual, None, scale=1.0)
    assert causal[0].tolist() == pytest.approx([(1 / 2 + 1 / 3) / 2, (1 / 3) / 2])
    attending = visual_saliency(queries, keys, visual, None, scale=1.0, mean="attending-queries")
    assert attending[0].tolist() == pytest.approx([(1 / 2 + 1 / 3) / 2, 1 / 3])
    both = visual_saliency(queries, keys, visual, None, scale=1.0, mean="bidirectional")
    assert both[0].tolist() == pytest.approx([1 / 2, 1 / 2])


def test_visual_saliency_by_hand() -> None:
    # Text, visual, visual, visual with keys ln 1, ln 2, ln 3 and ln 4; the queries 1, 0 and 1 take
    # them as logits or spread evenly. Under the causal mask the visual tokens receive
    # (2/3), (1/3, 1/3) and (2/10, 3/10, 4/10); among themselves (2, 3, 4) / 9, thirds, and
    # (2, 3, 4) / 9 again.
    keys = torch.tensor([1.0, 2.0, 3.0, 4.0]).log()[None, None, :, None]
    queries = torch.tensor([1.0, 0.0, 1.0])[None, None, :, None]
    visual = torch.tensor([[1, 2, 3]])
    sums = [2 / 3 + 1 / 3 + 2 / 10, 1 / 3 + 3 / 10, 4 / 10]
    expected: dict[Any, list[float]] = {
        "causal": [received / 3 for received in sums],
        "attending-queries": [sums[0] / 3, sums[1] / 2, sums[2] / 1],
        "bidirectional": [(2 * own / 9 + 1 / 3) / 3 for own in (2, 3, 4)],
    }
    for mean, scores in expected.items():
        found = visual_saliency(queries, keys, visual, None, scale=1.0, mean=mean)
        assert found[0].tolist() == pytest.approx(scores)


@pytest.mark.parametrize("mean", ["causal", "attending-queries", "bidirectional"])
@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_visual_saliency_equals_a_loop(mean: Any, padding: str | None, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(kv_heads)
    queries = torch.randn(2, 4, 3, 5, generator=generator)
    keys = torch.randn(2, kv_heads, 8, 5, generator=generator)
    visual = torch.tensor([[2, 3, 4], [1, 3, 5]])
    mask = torch.ones(2, 8, dtype=torch.bool)
    if padding == "left":
        mask[0, :2] = False
    elif padding == "right":
        mask[1, 6:] = False
    found = visual_saliency(
        queries, keys, visual, None if padding is None else mask, scale=0.6, mean=mean
    )
    for row in range(2):
        places = visual[row].tolist()
        expected = [0.0] * 3
        for head in range(4):
            own = keys[row, head * kv_heads // 4].tolist()
            for place, query in zip(places, queries[row, head].tolist(), strict=True):
                seen = [p for p in range(8) if p <= place and mask[row, p]]
                if mean == "bidirectional":
                    seen = places
                attention = softmax([0.6 * dot(query, own[p]) for p in seen])
                for share, p in zip(attention, seen, strict=True):
                    if p in places:
                        expected[places.index(p)] += share / 4
        # Three visual queries; the first token is seen by all of them, the last by itself.
        queried = [3, 2, 1] if mean == "attending-queries" else [3, 3, 3]
        expected = [total / count for total, count in zip(expected, queried, strict=True)]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6)


# Rows of the decoder's attention (FastV, PyramidDrop, SparseVLM)


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


# Raters


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


# Key norms and the vision tower's own attention


@pytest.mark.parametrize("seed", range(3))
def test_key_norms_equal_a_loop(seed: int) -> None:
    keys = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed))
    norms = key_norms(keys)
    for row in range(2):
        for token in range(5):
            heads = keys[row, :, token].tolist()
            expected = sum(abs(value) for head in heads for value in head)
            assert norms[row, token].item() == pytest.approx(expected, abs=1e-5)


def test_key_norms_by_hand() -> None:
    # Two heads, two tokens: |1| + |-2| + |0.5| + |0| and |3| + |0| + |-1| + |-1|.
    keys = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]], [[0.5, 0.0], [-1.0, -1.0]]]])
    assert key_norms(keys).tolist() == [[3.5, 5.0]]
    assert key_norms(torch.ones(1, 2, 1, 3)).tolist() == [[6.0]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("others", [0, 1, 2])
def test_patch_saliency_equals_a_loop(seed: int, others: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(2, 3, 4, 5, generator=generator)
    keys = torch.randn(2, 3, others + 4, 5, generator=generator)
    scores = patch_saliency(queries, keys, 0.3)
    for row in range(2):
        expected = [0.0] * 4
        for head in range(3):
            own = keys[row, head].tolist()
            for query in queries[row, head].tolist():
                attention = softmax([0.3 * dot(query, key) for key in own])
                for patch in range(4):
                    expected[patch] += attention[others + patch] / 12
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-6)


def test_patch_saliency_by_hand() -> None:
    # A CLS token and two patches with keys ln 1, ln 2 and ln 5: a query 1 spreads (1, 2, 5) / 8, a
    # query 0 a third to each.
    keys = torch.tensor([1.0, 2.0, 5.0]).log()[None, None, :, None]
    queries = torch.tensor([1.0, 0.0])[None, None, :, None]
    expected = [(2 / 8 + 1 / 3) / 2, (5 / 8 + 1 / 3) / 2]
    assert patch_saliency(queries, keys, 1.0)[0].tolist() == pytest.approx(expected)
    # A tower of one patch and nothing else has all the attention.
    assert patch_saliency(torch.randn(2, 2, 1, 3), torch.randn(2, 2, 1, 3), 1.0).tolist() == [
        [pytest.approx(1.0)],
        [pytest.approx(1.0)],
    ]


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

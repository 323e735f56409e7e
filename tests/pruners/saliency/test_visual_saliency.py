"""What visual tokens receive from each other in the decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruners.attention_rows import LayerAttention
from pruners.saliency import visual_saliency
from tests.pruners.saliency.by_hand import dot, softmax

QUESTIONS = ("w1 w2 w3", "w4")


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

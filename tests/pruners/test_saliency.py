"""Saliency, against the attention maps of the models themselves and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruners.attention_rows import cls_attention, decoder_queries_and_keys, decoupled_output
from pruners.saliency import cls_saliency, visual_saliency

QUESTIONS = ("w1 w2 w3", "w4")


def test_cls_saliency_by_hand() -> None:
    # Keys with logits 0, ln 2 and ln 5: the softmax is (1, 2, 5) / 8, the CLS token's own first.
    keys = torch.tensor([1.0, 2.0, 5.0]).log()[None, None, :, None]
    query = torch.ones(1, 1, 1, 1)
    assert cls_saliency(query, keys, scale=1.0)[0].tolist() == pytest.approx([2 / 8, 5 / 8])


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
    decoder = model.model.language_model
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
    visual = torch.stack([row.nonzero()[:, 0] for row in inputs["input_ids"] == 4])
    with torch.no_grad():
        queries, keys = decoder_queries_and_keys(layer, *seen[0], visual)
    key_mask = inputs["attention_mask"].bool()
    scale = layer.self_attn.scaling
    causal = visual_saliency(queries, keys, visual, key_mask, scale=scale)
    attending = visual_saliency(
        queries, keys, visual, key_mask, scale=scale, mean="attending-queries"
    )
    count = visual.shape[1]
    for row in range(len(QUESTIONS)):
        for place, position in enumerate(visual[row].tolist()):
            received = attention[row, :, visual[row], position].mean(dim=0)
            assert causal[row, place].item() == pytest.approx(received.mean().item(), abs=1e-6)
            # Queries before the token cannot see it.
            seeing = received[place:]
            assert len(seeing) == count - place
            assert attending[row, place].item() == pytest.approx(seeing.mean().item(), abs=1e-6)


def test_bidirectional_saliency_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, 4, 3, 8, generator=generator)
    keys = torch.randn(1, 2, 6, 8, generator=generator)
    visual = torch.tensor([[1, 2, 4]])
    scores = visual_saliency(queries, keys, visual, None, scale=0.5, mean="bidirectional")
    expected = torch.zeros(3)
    for head in range(4):
        for query in range(3):
            row = torch.tensor(
                [
                    0.5 * float(queries[0, head, query] @ keys[0, head // 2, key])
                    for key in (1, 2, 4)
                ]
            )
            expected += row.softmax(dim=0) / 12
    torch.testing.assert_close(scores[0], expected)


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

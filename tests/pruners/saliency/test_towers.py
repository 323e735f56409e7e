"""What is read of vision towers: attention of CLS tokens and patches, key norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruners.attention_rows import cls_attention, decoupled_output
from pruners.saliency import cls_saliency, key_norms, patch_saliency
from tests.pruners.saliency.by_hand import dot, softmax


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

"""Rows of decoders' attention, against the maps that the decoders themselves return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLTextConfig,
    Qwen3VLTextModel,
)

from pruners.attention_rows import LayerAttention
from pruners.saliency import row_saliency, visual_saliency

LENGTH, WINDOW, PADDED = 12, 5, 2
VISUAL = torch.tensor([[2, 3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8, 9]])
SIZES: dict[str, Any] = {
    "vocab_size": 20, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "eager",
}  # fmt: skip
SLIDING: dict[str, Any] = {
    "use_sliding_window": True,
    "sliding_window": WINDOW,
    "max_window_layers": 1,
}
AXES = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}

DECODERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaModel(LlamaConfig(**SIZES)),
    "mistral": lambda: MistralModel(MistralConfig(**SIZES, sliding_window=WINDOW)),
    "mistral, all": lambda: MistralModel(MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": lambda: Qwen2Model(Qwen2Config(**SIZES, **SLIDING)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**SIZES, head_dim=8, attention_bias=True, **SLIDING)),
    "qwen2.5-vl": lambda: Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(**SIZES, **SLIDING, rope_parameters=AXES)
    ),
    "qwen3-vl": lambda: Qwen3VLTextModel(
        Qwen3VLTextConfig(**SIZES, head_dim=8, attention_bias=True, rope_parameters=AXES)
    ),
}
WINDOWS = {
    "llama": (None, None),
    "mistral": (WINDOW, WINDOW),
    "mistral, all": (None, None),
    "qwen2": (None, WINDOW),
    "qwen3": (None, WINDOW),
    "qwen2.5-vl": (None, WINDOW),
    "qwen3-vl": (None, None),
}
"""Windows of the first and of the last layer."""


@dataclass
class Seen:
    """One layer of a decoder that has run.

    Attributes:
        rows: What is under test.
        attention: The layer's attention, (batch, heads, length, length).
        cached: Keys in the layer's cache, or None where it holds the last ones only.
        mask: True for tokens, (batch, length).
    """

    rows: LayerAttention
    attention: Tensor
    cached: Tensor
    mask: Tensor


def run(name: str, index: int) -> Seen:
    decoder = DECODERS[name]().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in decoder.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * (1.5 / parameter.shape[1:].numel() ** 0.5)
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, :PADDED] = 0
    positions = torch.randint(0, LENGTH, (3, 2, LENGTH), generator=generator)
    seen: list[Any] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0], kwargs["position_embeddings"]))

    hook = decoder.layers[index].register_forward_pre_hook(keep, with_kwargs=True)
    cache = DynamicCache()
    try:
        with torch.no_grad():
            output = decoder(
                inputs_embeds=torch.randn(2, LENGTH, 32, generator=generator),
                attention_mask=mask,
                position_ids=positions if name.endswith("vl") else positions[0],
                past_key_values=cache,
                output_attentions=True,
            )
    finally:
        hook.remove()
    return Seen(
        rows=LayerAttention(decoder.layers[index], *seen[0]),
        attention=output.attentions[index],
        cached=cache.layers[index].keys,
        mask=mask.bool(),
    )


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_rows_are_those_of_the_decoder(name: str, index: int) -> None:
    seen = run(name, index)
    rows = seen.rows
    assert rows.window == WINDOWS[name][index // 2]
    torch.testing.assert_close(rows.keys, seen.cached, atol=1e-5, rtol=0)
    columns = VISUAL[:, None, :, None].expand(-1, 2, -1, 8)
    torch.testing.assert_close(
        rows.keys_of(VISUAL), seen.cached.gather(2, columns), atol=1e-5, rtol=0
    )
    last = torch.full((2, 2), LENGTH - 1) - torch.tensor([3, 0])
    weights = torch.tensor([[0.5, 1.0], [0.0, 2.0]])
    scores = row_saliency(
        rows.queries(last),
        rows.keys,
        VISUAL,
        last,
        weights,
        seen.mask,
        scale=rows.scale,
        window=rows.window,
    )
    for row in range(2):
        own = seen.attention[row].mean(dim=0)[last[row]][:, VISUAL[row]]  # rows x visual
        expected = (weights[row, :, None] * own).sum(dim=0) / weights[row].sum()
        torch.testing.assert_close(scores[row], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mean", ["causal", "attending-queries"])
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_visual_saliency_is_that_of_the_decoder(
    name: str, mean: Literal["causal", "attending-queries"]
) -> None:
    seen = run(name, 2)
    rows = seen.rows
    scores = visual_saliency(
        rows.queries(VISUAL),
        rows.keys,
        VISUAL,
        seen.mask,
        scale=rows.scale,
        window=rows.window,
        mean=mean,
    )
    for row in range(2):
        for place, position in enumerate(VISUAL[row].tolist()):
            received = seen.attention[row].mean(dim=0)[VISUAL[row], position]
            if mean == "causal":
                expected = received.mean()
            else:
                behind = VISUAL[row] - position
                within = LENGTH if rows.window is None else rows.window
                expected = received[(behind >= 0) & (behind < within)].mean()
            assert scores[row, place].item() == pytest.approx(expected.item(), abs=1e-6)


@torch.no_grad()
def test_keys_of_the_cache_are_taken_over() -> None:
    seen = run("qwen3", 2)
    marked = torch.full_like(seen.cached, 7.0)
    assert seen.rows.with_keys(marked).keys is marked
    # A sliding-window layer's cache holds the last keys only, once it is full.
    assert seen.rows.with_keys(marked[:, :, 1:]) is seen.rows


@torch.no_grad()
def test_queries_a_few_at_a_time_give_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (seen := run("mistral", 1)).rows
    last = torch.arange(LENGTH).expand(2, -1)

    def scores() -> list[Tensor]:
        queries, keys = rows.queries(VISUAL), rows.keys
        found = [
            visual_saliency(
                queries, keys, VISUAL, seen.mask, scale=rows.scale, window=WINDOW, mean=mean
            )
            for mean in ("causal", "attending-queries", "bidirectional")
        ]
        weights = torch.rand(2, LENGTH, generator=torch.Generator().manual_seed(0))
        of_rows = row_saliency(
            rows.queries(last), keys, VISUAL, last, weights, seen.mask, scale=rows.scale
        )
        return [*found, of_rows]

    whole = scores()
    for at_once in (1, 3):
        monkeypatch.setattr("pruners.saliency.QUERIES_AT_ONCE", at_once)
        for found, expected in zip(scores(), whole, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

"""Whole methods, retold in plain code for one sample and compared with the hooked model's logits.

The retelling follows the papers and the released scripts step by step: full attention maps, loops
over tokens, the decoder's layers called one after the other.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from transformers import AutoTokenizer, CLIPModel

from pruners import (
    ClsAttention,
    ClusterAverage,
    NearestReference,
    Schedule,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    apply_schedule,
)

QUESTION = "w1 w7 w2"


def highest(scores: list[float], count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda index: -scores[index])[:count])


def merge_like_visiondrop(vectors: Tensor, keys: Tensor, count: int) -> list[Tensor]:
    """Strided references, each plus the mean of the tokens whose key is nearest."""
    step = max(1, len(vectors) // count)
    references = [step * place for place in range(count)]
    groups: dict[int, list[Tensor]] = {reference: [] for reference in references}
    for index in range(len(vectors)):
        if index not in groups:
            nearest = max(references, key=lambda r: float(keys[index] @ keys[r]))
            groups[nearest].append(vectors[index])
    return [
        vectors[reference] + (torch.stack(joined).mean(dim=0) if joined else 0)
        for reference, joined in groups.items()
    ]


def key_heads(attention: Any, normed: Tensor, head_size: int) -> Tensor:
    """Keys, (heads, tokens, head size)."""
    return attention.k_proj(normed).unflatten(-1, (-1, head_size)).transpose(0, 1)  # type: ignore


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = states.shape[-1] // 2
    turned = torch.cat([-states[..., half:], states[..., :half]], dim=-1)
    return states * cos + turned * sin


def tower_outputs(model: Any, pixel_values: Tensor) -> Any:
    return model.model.vision_tower(pixel_values, output_attentions=True, output_hidden_states=True)


def decode(
    model: Any, sequence: Tensor, visual: range, stages: dict[int, tuple[int, int]]
) -> Tensor:
    """Run the decoder layer by layer, pruning like VisionDrop's released code.

    Args:
        model: The dense model, with eager attention.
        sequence: Token embeddings after the encoder stage, (length, width).
        visual: Where the visual tokens are.
        stages: Dominant and contextual counts by layer.

    Returns:
        Logits, (length, vocabulary).
    """
    decoder = model.model.language_model
    hidden = sequence
    for index, layer in enumerate(decoder.layers):
        if index in stages:
            hidden, visual = prune_like_visiondrop(layer, decoder, hidden, visual, *stages[index])
        length = len(hidden)
        positions = torch.arange(length)[None]
        mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
        hidden = layer(
            hidden[None],
            attention_mask=mask[None, None],
            position_embeddings=decoder.rotary_emb(hidden[None], position_ids=positions),
        )[0]
    return model.lm_head(decoder.norm(hidden))  # type: ignore[no-any-return]


def prune_like_visiondrop(
    layer: Any, decoder: Any, hidden: Tensor, visual: range, dominant: int, contextual: int
) -> tuple[Tensor, range]:
    attention = layer.self_attn
    size = attention.head_dim
    normed = layer.input_layernorm(hidden)
    cos, sin = decoder.rotary_emb(hidden[None], position_ids=torch.arange(len(hidden))[None])
    queries = attention.q_proj(normed).unflatten(-1, (-1, size)).transpose(0, 1)
    queries = rotate(queries, cos[0], sin[0])
    keys = rotate(key_heads(attention, normed, size), cos[0], sin[0])
    maps = []
    for head, query in enumerate(queries):
        logits = query @ keys[head * len(keys) // len(queries)].T / math.sqrt(size)
        later = torch.ones_like(logits, dtype=torch.bool).triu(1)
        maps.append(logits.masked_fill(later, -torch.inf).softmax(dim=-1))
    mean = torch.stack(maps).mean(dim=0)
    start, stop = visual.start, visual.stop
    scores = mean[start:stop, start:stop].mean(dim=0).tolist()
    tokens = hidden[start:stop]
    kept = highest(scores, dominant)
    rest = [place for place in range(len(tokens)) if place not in kept]
    compared = normalize(keys.mean(dim=0), dim=-1)[start:stop]
    made = merge_like_visiondrop(tokens[rest], compared[rest], contextual)
    alive = torch.cat([tokens[kept], torch.stack(made)])
    return (
        torch.cat([hidden[:start], alive, hidden[stop:]]),
        range(start, start + dominant + contextual),
    )


def check(tiny: Any, schedule: Schedule, features: Tensor, stages: Any) -> None:
    """Compare the hooked model's logits with the retelling, given the projector's input."""
    model = tiny.load("eager")
    inputs = tiny.inputs([QUESTION])
    start = int((inputs["input_ids"][0] == 4).nonzero()[0])
    embeds = model.get_input_embeddings()(inputs["input_ids"])[0]
    image = model.model.multi_modal_projector(features)
    sequence = torch.cat([embeds[:start], image, embeds[start + tiny.visual_tokens :]])
    expected = decode(model, sequence, range(start, start + len(image)), stages)
    settings = {"processor": tiny.tokenizer, "text_tower": tiny.text_tower}
    with apply_schedule(tiny.model, schedule, **settings):
        logits = tiny.model(**inputs).logits[0]
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_visiondrop(tiny: Any) -> None:
    # 25 patches become 15 = 13 + 2 (one of the 13 is the CLS token), 10 = 8 + 2 and 5 = 4 + 1.
    output = tower_outputs(tiny.load("eager"), tiny.images(1))
    scores = output.attentions[-2][0].sum(dim=0)[0, 1:].tolist()
    layer = tiny.model.model.vision_tower.encoder.layers[-2]
    normed = layer.layer_norm1(output.hidden_states[-3][0])
    keys = normalize(key_heads(layer.self_attn, normed, 8).mean(dim=0), dim=-1)[1:]
    hidden = output.hidden_states[-2][0]
    kept = highest(scores, 12)
    rest = [patch for patch in range(25) if patch not in kept]
    made = merge_like_visiondrop(hidden[1:][rest], keys[rest], 2)
    features = torch.cat([hidden[:1], hidden[1:][kept], torch.stack(made)])

    def stage(layer: int, retention: float, scorer: Any) -> Stage:
        return Stage(
            layer=layer,
            retention=retention,
            contextual=0.125,
            scorer=scorer,
            merge=NearestReference(),
        )

    schedule = Schedule(
        stages=(
            stage(0, 0.6, ClsAttention()),
            stage(2, 0.4, VisualSelfAttention()),
            stage(4, 0.2, VisualSelfAttention()),
        )
    )
    check(tiny, schedule, features, {2: (8, 2), 4: (4, 1)})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight": 0.0},
        {"weight": 1.0},
        {"order": "saliency-first", "weight": 0.3},
        {"alignment": False},
        {"keep_cls": True, "saliency_layer": -2},
    ],
)
@torch.no_grad()
def test_desap(tiny: Any, settings: dict[str, Any]) -> None:
    scorer = SimilarityFusion(text_tower="given", **settings)
    model = tiny.load("eager")
    output = tower_outputs(model, tiny.images(1))
    hidden = output.hidden_states[-2][0]
    saliency = output.attentions[scorer.saliency_layer][0].mean(dim=0)[0, 1:].tolist()
    similarity = question_similarity(tiny, model, hidden, scorer.alignment)
    count = 9 if scorer.keep_cls else 10
    by_similarity = math.floor(scorer.weight * count + 0.5)
    order = [(similarity, by_similarity), (saliency, count - by_similarity)]
    chosen: list[int] = []
    for scores, share in order if scorer.order == "similarity-first" else reversed(order):
        ranked = sorted(range(25), key=lambda patch: -scores[patch])
        chosen += [patch for patch in ranked if patch not in chosen][:share]
    # Token 0 is CLS, which is a centre like any other when it is kept.
    centres = [0] * scorer.keep_cls + [patch + 1 for patch in sorted(chosen)]
    clusters = {centre: [hidden[centre]] for centre in centres}
    for token in range(1, 26):
        if token not in clusters:
            near = [float(cosine_similarity(hidden[token], hidden[c], dim=0)) for c in centres]
            clusters[centres[near.index(max(near))]].append(hidden[token])
    features = torch.stack([torch.stack(members).mean(dim=0) for members in clusters.values()])
    stage = Stage(layer=0, retention=0.4, scorer=scorer, merge=ClusterAverage())
    check(tiny, Schedule(stages=(stage,)), features, {})


def question_similarity(tiny: Any, model: Any, hidden: Tensor, alignment: bool) -> list[float]:
    """DeSAP's equations 2 and 3 for the test's question."""
    clip = CLIPModel.from_pretrained(tiny.clip_folder)
    layer = model.model.vision_tower.encoder.layers[-1]
    normed = layer.layer_norm1(hidden)
    heads = []
    for head in range(2):
        columns = slice(8 * head, 8 * head + 8)
        query = layer.self_attn.q_proj(normed)[:, columns]
        value = layer.self_attn.v_proj(normed)[:, columns]
        heads.append((query @ query.T / math.sqrt(8)).softmax(dim=-1) @ value)
    decoupled = layer.self_attn.out_proj(torch.cat(heads, dim=-1))
    decoupled = clip.visual_projection(model.model.vision_tower.post_layernorm(decoupled))
    decoupled = normalize(decoupled, dim=-1)
    ids = AutoTokenizer.from_pretrained(tiny.clip_folder)(QUESTION, return_tensors="pt").input_ids
    assert ids.tolist() == [[1, 8, 14, 9, 3]]
    text = normalize(clip.text_projection(clip.text_model(ids).last_hidden_state[0]), dim=-1)
    patches, image, end = decoupled[1:], decoupled[0], text[-1]
    m = patches @ text.T
    if not alignment:
        return m.mean(dim=1).tolist()  # type: ignore[no-any-return]
    alpha, beta = patches @ end, text @ image
    n, t = m.shape
    scores = []
    for i in range(n):
        total = 0.0
        for j in range(t):
            mv = alpha[i] * math.exp(0.1 * beta[j] * m[i, j])
            mv /= n * sum(math.exp(0.1 * beta[k] * m[i, k]) for k in range(t))
            mt = beta[j] * math.exp(0.1 * alpha[i] * m[i, j])
            mt /= t * sum(math.exp(0.1 * alpha[k] * m[k, j]) for k in range(n))
            total += float((mv + mt) * m[i, j])
        scores.append(total / t)
    return scores

"""Scorers inside models, against full attention maps that the dense model gives out itself.

The runtime recomputes a few rows of attention. Here the dense model runs with eager attention and
`output_attentions`, scores are read off its maps in plain loops, and the chosen tokens compared.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from pruners import Schedule, Stage, apply_schedule
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    LastTokenAttention,
    QuestionRelevance,
    Random,
    RaterAttention,
    Scorer,
    SimilarityFusion,
    Uniform,
    VisualSelfAttention,
)
from pruners.selectors import (
    Determinantal,
    LeastDuplication,
    LocalWindows,
    Selector,
    TopScores,
)

QUESTION = "w5 w1 w7 w2"
KEPT = 10
BOUNDARY = 3


@pytest.fixture(scope="module")
def inputs(tiny: Any) -> dict[str, Tensor]:
    return tiny.inputs([QUESTION], seed=3)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def dense(tiny: Any, inputs: dict[str, Tensor]) -> Any:
    model = tiny.load("eager")
    with torch.no_grad():
        return model(**inputs, output_attentions=True, output_hidden_states=True, use_cache=True)


@pytest.fixture(scope="module")
def tower(tiny: Any, inputs: dict[str, Tensor]) -> Any:
    tower = tiny.load("eager").model.vision_tower
    with torch.no_grad():
        return tower(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)


@pytest.fixture(scope="module")
def visual(tiny: Any, inputs: dict[str, Tensor]) -> list[int]:
    image = tiny.model.config.image_token_id
    return [place for place, token in enumerate(inputs["input_ids"][0].tolist()) if token == image]


def highest(scores: list[float], count: int = KEPT) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda index: -scores[index])[:count])


def kept(
    tiny: Any,
    inputs: dict[str, Tensor],
    scorer: Scorer,
    layer: int = BOUNDARY,
    selector: Selector | None = None,
) -> list[int]:
    """Tokens that a model keeps, of the dense model's patches."""
    stage = Stage(
        layer=layer,
        retention=KEPT / tiny.visual_tokens,
        scorer=scorer,
        selector=selector or TopScores(),
    )
    with (
        apply_schedule(
            tiny.model,
            Schedule(stages=(stage,)),
            processor=tiny.tokenizer,
            text_tower=tiny.text_tower,
        ) as handle,
        torch.no_grad(),
    ):
        tiny.model(**inputs)
        return handle.last_prefill.stages[0].indices[0].tolist()  # type: ignore


def head_mean(attention: Tensor, row: int) -> list[float]:
    heads = attention[0]
    return [
        sum(float(heads[head, row, column]) for head in range(len(heads))) / len(heads)
        for column in range(heads.shape[-1])
    ]


@pytest.mark.parametrize(("reads", "layer"), [("previous", BOUNDARY - 1), ("next", BOUNDARY)])
def test_last_token_attention_is_the_last_row_of_a_layers_map(
    tiny: Any, inputs: Any, dense: Any, visual: list[int], reads: Any, layer: int
) -> None:
    row = head_mean(dense.attentions[layer], inputs["input_ids"].shape[1] - 1)
    expected = highest([row[place] for place in visual])
    assert kept(tiny, inputs, LastTokenAttention(reads=reads)) == expected


def raters_of(tiny: Any, inputs: Any, dense: Any, visual: list[int]) -> list[int]:
    """SparseVLM's raters, from the embeddings that enter the decoder."""
    embedded = dense.hidden_states[0][0]
    text = range(visual[-1] + 1, len(embedded))
    share = dict.fromkeys(text, 0.0)
    for image in visual:
        weights = {place: float(torch.dot(embedded[image], embedded[place])) for place in text}
        top = max(weights.values())
        powers = {place: 2.718281828459045 ** (value - top) for place, value in weights.items()}
        for place in text:
            share[place] += powers[place] / sum(powers.values()) / len(visual)
    mean = sum(share.values()) / len(share)
    return [place for place in text if share[place] > mean]


@pytest.mark.parametrize(("reads", "layer"), [("previous", BOUNDARY - 1), ("next", BOUNDARY)])
def test_rater_attention_is_the_mean_row_of_the_raters(
    tiny: Any, inputs: Any, dense: Any, visual: list[int], reads: Any, layer: int
) -> None:
    raters = raters_of(tiny, inputs, dense, visual)
    assert 0 < len(raters) < inputs["input_ids"].shape[1] - visual[-1] - 1
    rows = [head_mean(dense.attentions[layer], rater) for rater in raters]
    expected = highest([sum(row[place] for row in rows) for place in visual])
    assert kept(tiny, inputs, RaterAttention(reads=reads)) == expected


def test_visual_self_attention_is_the_column_mean_of_a_layers_map(
    tiny: Any, inputs: Any, dense: Any, visual: list[int]
) -> None:
    rows = [head_mean(dense.attentions[BOUNDARY], place) for place in visual]
    expected = highest([sum(row[place] for row in rows) for place in visual])
    assert kept(tiny, inputs, VisualSelfAttention()) == expected


def key_norm(cache: Any, layer: int, place: int) -> float:
    keys = cache.layers[layer].keys[0]  # heads x length x size
    return sum(abs(float(value)) for head in keys for value in head[place])


@pytest.mark.parametrize(("reads", "layer"), [("previous", BOUNDARY - 1), ("next", BOUNDARY)])
def test_key_norm_is_that_of_the_cached_keys(
    tiny: Any, inputs: Any, dense: Any, visual: list[int], reads: Any, layer: int
) -> None:
    norms = [key_norm(dense.past_key_values, layer, place) for place in visual]
    assert kept(tiny, inputs, KeyNorm(reads=reads)) == highest(norms)


def test_least_duplication_has_pivots_in_the_text_behind_the_image(
    tiny: Any, inputs: Any, dense: Any, visual: list[int]
) -> None:
    """DART retold: one image pivot and two text pivots, on the decoder's normed states."""
    norms = {
        place: key_norm(dense.past_key_values, BOUNDARY - 1, place)
        for place in range(inputs["input_ids"].shape[1])
    }
    with torch.no_grad():
        states = tiny.load("eager").model.language_model.norm(dense.hidden_states[BOUNDARY])[0]
    chosen = [max(visual, key=lambda place: norms[place])]
    text = sorted(range(visual[-1] + 1, len(states)), key=lambda place: -norms[place])[:2]
    # 9 of 10 tokens are left to choose, 3 for each pivot.
    for pivot in (chosen[0], *text):
        rest = [place for place in visual if place not in chosen]
        cosines = torch.cosine_similarity(states[pivot], states[rest], dim=-1).tolist()
        chosen += [place for _, place in sorted(zip(cosines, rest, strict=True))[:3]]
    expected = sorted(visual.index(place) for place in chosen)
    selector = LeastDuplication(image_pivots=1, text_pivots=2)
    assert kept(tiny, inputs, KeyNorm(), selector=selector) == expected


def test_pivots_without_a_token_to_choose_cost_nothing(tiny: Any, inputs: Any) -> None:
    """Else a schedule file could ask for more than any memory holds."""
    found = [
        kept(tiny, inputs, KeyNorm(), selector=LeastDuplication(image_pivots=1, text_pivots=count))
        for count in (100, 10**30)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("layer", [0, BOUNDARY])
@pytest.mark.parametrize("vision_layer", [-1, -2, -4])
def test_cls_attention_orders_patches_alike_at_any_stage(
    tiny: Any, inputs: Any, tower: Any, layer: int, vision_layer: int
) -> None:
    row = head_mean(tower.attentions[vision_layer], 0)[1:]
    scorer = ClsAttention(layer=vision_layer, keep_cls=False)
    assert kept(tiny, inputs, scorer, layer) == highest(row)


def test_patches_attention_to_each_other_scores_the_encoder_stage(
    tiny: Any, inputs: Any, tower: Any
) -> None:
    attention = tower.attentions[-2]
    rows = [head_mean(attention, 1 + patch)[1:] for patch in range(tiny.visual_tokens)]
    expected = highest([sum(row[patch] for row in rows) for patch in range(tiny.visual_tokens)])
    assert kept(tiny, inputs, VisualSelfAttention(), layer=0) == expected


def test_key_norms_of_the_tower_score_the_encoder_stage(tiny: Any, inputs: Any, tower: Any) -> None:
    layer = tiny.load("eager").model.vision_tower.encoder.layers[-2]
    with torch.no_grad():
        keys = layer.self_attn.k_proj(layer.layer_norm1(tower.hidden_states[-3]))[0, 1:]
    expected = highest([sum(abs(float(value)) for value in key) for key in keys])
    assert kept(tiny, inputs, KeyNorm(), layer=0) == expected


@pytest.mark.parametrize("layer", [0, BOUNDARY])
@pytest.mark.parametrize("sign", ["negative", "positive"])
def test_question_relevance_is_that_of_the_paired_clip(
    tiny: Any, inputs: Any, tower: Any, layer: int, sign: Any
) -> None:
    clip = CLIPModel.from_pretrained(tiny.clip_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny.clip_folder)
    with torch.no_grad():
        text = clip.text_projection(
            clip.text_model(**tokenizer(QUESTION, return_tensors="pt")).last_hidden_state[0, -1]
        )
        patches = clip.visual_projection(
            clip.vision_model.post_layernorm(tower.hidden_states[-2][0, 1:])
        )
    cosines = [float(torch.cosine_similarity(patch, text, dim=0)) for patch in patches]
    scores = cosines if sign == "positive" else [-value for value in cosines]
    scorer = QuestionRelevance(text_tower="paired", sign=sign)
    assert kept(tiny, inputs, scorer, layer) == highest(scores)


@pytest.mark.parametrize(("depth", "vision_layer"), [(0.0, 0), (5 / 24, 1), (0.5, 2), (0.9, 3)])
def test_windows_are_judged_by_the_map_of_an_early_layer(
    tiny: Any, inputs: Any, tower: Any, depth: float, vision_layer: int
) -> None:
    """VScan retold: each window's best patch by an early layer, the others by layer -2."""
    local = head_mean(tower.attentions[vision_layer], 0)[1:]
    score = head_mean(tower.attentions[-2], 0)[1:]
    side = math.isqrt(tiny.visual_tokens)
    chosen = []
    for rows in (range(3), range(3, side)):  # five patches along a side: three, then two
        for columns in (range(3), range(3, side)):
            window = [side * row + column for row in rows for column in columns]
            # int(10 / 2) // 4 patches from each of the four windows
            chosen.append(max(window, key=lambda patch: local[patch]))
    rest = [patch for patch in range(tiny.visual_tokens) if patch not in chosen]
    chosen += sorted(rest, key=lambda patch: -score[patch])[: KEPT - len(chosen)]
    selector = LocalWindows(share=0.5, windows=2, depth=depth)
    assert kept(tiny, inputs, ClsAttention(keep_cls=False), 0, selector) == sorted(chosen)


def decoupled(layer: Any, hidden: Tensor) -> Tensor:
    """DeSAP's equation 2, head by head: queries attend to queries, (tokens, width)."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    queries, values = attention.q_proj(normed), attention.v_proj(normed)
    heads = []
    for first in range(0, queries.shape[-1], attention.head_dim):
        columns = slice(first, first + attention.head_dim)
        logits = queries[:, columns] @ queries[:, columns].T / math.sqrt(attention.head_dim)
        heads.append(logits.softmax(dim=-1) @ values[:, columns])
    return attention.out_proj(torch.cat(heads, dim=-1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("layer", [0, BOUNDARY])
@pytest.mark.parametrize(
    ("weight", "by_similarity"), [(0.0, 0), (0.2, 2), (0.4, 4), (0.6, 6), (1.0, 10)]
)
def test_similarity_fusion_splits_the_tokens_between_two_scores(
    tiny: Any, inputs: Any, tower: Any, layer: int, weight: float, by_similarity: int
) -> None:
    """DeSAP without alignment: mean cosine to the question's tokens, then CLS attention."""
    clip = CLIPModel.from_pretrained(tiny.clip_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny.clip_folder)
    with torch.no_grad():
        words = clip.text_projection(
            clip.text_model(**tokenizer(QUESTION, return_tensors="pt")).last_hidden_state[0]
        )
        block = tiny.load("eager").model.vision_tower.encoder.layers[-1]
        attended = decoupled(block, tower.hidden_states[-2][0])
        patches = clip.visual_projection(clip.vision_model.post_layernorm(attended))[1:]
    similarity = [
        sum(float(torch.cosine_similarity(patch, word, dim=0)) for word in words) / len(words)
        for patch in patches
    ]
    saliency = head_mean(tower.attentions[-1], 0)[1:]
    chosen = highest(similarity, by_similarity)
    rest = [patch for patch in range(tiny.visual_tokens) if patch not in chosen]
    chosen += sorted(rest, key=lambda patch: -saliency[patch])[: KEPT - by_similarity]
    scorer = SimilarityFusion(text_tower="paired", weight=weight, alignment=False)
    assert kept(tiny, inputs, scorer, layer) == sorted(chosen)


@pytest.mark.parametrize("alignment", [False, True])
def test_similarity_fusion_chooses_alike_at_any_stage(
    tiny: Any, inputs: Any, alignment: bool
) -> None:
    scorer = SimilarityFusion(text_tower="paired", weight=0.4, alignment=alignment)
    assert kept(tiny, inputs, scorer, 0) == kept(tiny, inputs, scorer, BOUNDARY)


@pytest.mark.parametrize("layer", [0, BOUNDARY])
def test_of_tokens_that_score_alike_the_first_are_kept(tiny: Any, inputs: Any, layer: int) -> None:
    assert kept(tiny, inputs, Uniform(), layer) == list(range(KEPT))


@pytest.mark.parametrize("layer", [0, BOUNDARY])
def test_random_tokens_are_those_with_the_highest_numbers_of_a_seeded_permutation(
    tiny: Any, inputs: Any, layer: int
) -> None:
    """No example by hand: which numbers a seed draws is torch's own."""
    numbers = torch.randperm(tiny.visual_tokens, generator=torch.Generator().manual_seed(5))
    expected = highest([float(number) for number in numbers])
    assert kept(tiny, inputs, Random(seed=5), layer) == expected


def test_random_tokens_differ_by_seed_and_are_the_same_at_any_stage(tiny: Any, inputs: Any) -> None:
    by_seed = [kept(tiny, inputs, Random(seed=seed)) for seed in range(4)]
    assert len({tuple(tokens) for tokens in by_seed}) == 4
    assert [kept(tiny, inputs, Random(seed=seed), 0) for seed in range(4)] == by_seed


def test_projected_features_decide_what_differs(tiny: Any, inputs: Any, tower: Any) -> None:
    """CDPruner's kernel on projected features: the greedy set by determinants, retold."""
    model = tiny.load("eager")
    with torch.no_grad():
        projected = model.model.multi_modal_projector(tower.hidden_states[-2][:, 1:])[0]
    row = torch.tensor(head_mean(tower.attentions[-2], 0)[1:], dtype=torch.float64)
    relevance = (row - row.min()) / (row.max() - row.min()) + 1e-6
    unit = torch.nn.functional.normalize(projected.double(), dim=-1)
    kernel = relevance[:, None] * (unit @ unit.T) * relevance
    chosen: list[int] = []
    while len(chosen) < KEPT:
        gains = {}
        for patch in set(range(tiny.visual_tokens)) - set(chosen):
            places = torch.tensor([*chosen, patch])
            gains[patch] = float(torch.linalg.det(kernel[places][:, places]))
        chosen.append(max(gains, key=lambda patch: gains[patch]))
    stage = Stage(
        layer=0,
        retention=KEPT / tiny.visual_tokens,
        scorer=ClsAttention(keep_cls=False),
        selector=Determinantal(),
        features="projected",
    )
    with apply_schedule(tiny.model, Schedule(stages=(stage,))) as handle, torch.no_grad():
        tiny.model(**inputs)
        assert handle.last_prefill is not None
        assert handle.last_prefill.stages[0].indices[0].tolist() == sorted(chosen)

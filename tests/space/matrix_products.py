"""An independent count: every matrix product of one prefill, written out with its three sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from pruners import (
    BipartiteMatching,
    ClusterAverage,
    Deduplicated,
    DensityPeaks,
    Determinantal,
    KeyNorm,
    LastTokenAttention,
    LeastDuplication,
    MaxMinDistance,
    NearestReference,
    RaterAttention,
    Schedule,
    Shape,
    SimilarityFusion,
    SimilarityWeighted,
    Stage,
    VisualSelfAttention,
)
from pruners.counting import split_budget
from pruners.selectors import Selector

Product = tuple[str, int, int, int]


def matrix_products(schedule: Schedule, shape: Shape) -> list[Product]:
    products: list[Product] = []

    def matmul(part: str, rows: int, inner: int, columns: int, times: int = 1) -> None:
        products.extend([(part, rows, inner, columns)] * times)

    vision, width = shape.vision, shape.vision.hidden_size
    heads, size = vision.attention_heads, vision.hidden_size // vision.attention_heads
    sequence = vision.patches + (1 if vision.class_token else 0)
    for _ in range(shape.tiles):
        matmul("vision_tower", vision.patches, vision.channels * vision.patch_size**2, width)
        for _ in range(vision.layers):
            matmul("vision_tower", sequence, width, width, times=4)
            matmul("vision_tower", sequence, size, sequence, times=heads)
            matmul("vision_tower", sequence, sequence, size, times=heads)
            matmul("vision_tower", sequence, width, vision.intermediate_size)
            matmul("vision_tower", sequence, vision.intermediate_size, width)

    d, m = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.attention_heads * shape.head_size, shape.key_value_heads * shape.head_size
    dense_tokens = alive = projected = shape.visual_tokens
    by_layer = {stage.layer: stage for stage in schedule.stages}
    rated = False
    for layer in range(shape.decoder_layers):
        stage = by_layer.get(layer)
        if stage is not None:
            # Half up, in exact arithmetic; at least one token unless all are dropped.
            kept = math.floor(Fraction(stage.retention) * dense_tokens + Fraction(1, 2))
            kept = max(kept, 1) if stage.retention > 0 else 0
            if kept < alive:
                if isinstance(stage.scorer, RaterAttention) and kept > 0 and not rated:
                    # Raters are chosen once, by the visual tokens that enter the decoder.
                    entering = projected if 0 in by_layer else dense_tokens
                    matmul("scoring", entering, d, shape.newline_tokens + shape.text_tokens)
                    rated = True
                contextual = max(min(math.ceil(stage.contextual * kept - 1e-9), kept - 1), 0)
                _stage_products(matmul, stage, shape, alive, kept, contextual)
                alive = kept
                if layer == 0:
                    projected = kept
        tokens = alive + shape.newline_tokens + shape.text_tokens
        matmul("decoder_linear", tokens, d, queries)
        matmul("decoder_linear", tokens, d, keys, times=2)
        matmul("decoder_linear", tokens, queries, d)
        matmul("decoder_linear", tokens, d, m, times=2)
        matmul("decoder_linear", tokens, m, d)
        matmul("decoder_attention", tokens, shape.head_size, tokens, times=shape.attention_heads)
        matmul("decoder_attention", tokens, tokens, shape.head_size, times=shape.attention_heads)
    matmul("head", alive + shape.newline_tokens + shape.text_tokens, d, shape.vocabulary_size)
    if shape.family != "llava":
        projected = shape.projector_tokens or dense_tokens  # it runs before tokens are chosen
    patches = vision.merge_size**2
    between = shape.projector_hidden_size or d
    for _ in range(1 + shape.deepstack_mergers):
        matmul("projector", projected, patches * width, between)
        matmul("projector", projected, between, d)
    return products


def _stage_products(
    matmul: Callable[..., None], stage: Stage, shape: Shape, alive: int, kept: int, contextual: int
) -> None:
    vision, width = shape.vision, shape.vision.hidden_size
    heads = vision.attention_heads
    sequence = vision.patches + (1 if vision.class_token else 0)
    scorer = stage.scorer
    if stage.layer == 0:
        by_similarity, by_saliency = 0, kept
        if isinstance(scorer, SimilarityFusion):
            by_similarity, by_saliency = split_budget(kept - contextual, scorer.weight)
        for _ in range(shape.tiles):
            if by_saliency:
                matmul("scoring", 1, width, width)
                matmul("scoring", sequence, width, width)
                matmul("scoring", 1, width // heads, sequence, times=heads)
            if by_similarity:
                tower = shape.text_tower
                # Both sides of the attention, values (each projected once), and output.
                projected = {"qq": 3, "kk": 3, "vv": 2, "qk": 4}[scorer.encoding]
                matmul("scoring", sequence, width, width, times=projected)
                matmul("scoring", sequence, width // heads, sequence, times=heads)
                matmul("scoring", sequence, sequence, width // heads, times=heads)
                matmul("scoring", sequence, width, tower.projection_size)
                matmul("scoring", vision.patches, tower.projection_size, tower.tokens)
                if scorer.alignment:
                    matmul("scoring", vision.patches, tower.projection_size, 1)
                    matmul("scoring", tower.tokens, tower.projection_size, 1)
            by_key = isinstance(stage.merge, NearestReference) and contextual
            if by_key or isinstance(stage.merge, BipartiteMatching):
                matmul("merging", sequence, width, width)
        if by_similarity:
            tower = shape.text_tower
            for _ in range(tower.layers):
                matmul("text_tower", tower.tokens, tower.hidden_size, tower.hidden_size, times=4)
                size = tower.hidden_size // tower.attention_heads
                matmul("text_tower", tower.tokens, size, tower.tokens, times=tower.attention_heads)
                matmul("text_tower", tower.tokens, tower.tokens, size, times=tower.attention_heads)
                matmul("text_tower", tower.tokens, tower.hidden_size, tower.intermediate_size)
                matmul("text_tower", tower.tokens, tower.intermediate_size, tower.hidden_size)
            matmul("text_tower", tower.tokens, tower.hidden_size, tower.projection_size)
        key_width = width // heads
        feature_width = width if shape.family == "llava" else shape.hidden_size
    else:
        if kept == 0:
            return
        _decoder_products(matmul, stage, shape, alive)
        key_width, feature_width = shape.head_size, shape.hidden_size
    tiles = shape.tiles if stage.layer == 0 else 1
    chosen = kept - contextual - (tiles if getattr(scorer, "keep_cls", False) else 0)
    others = (alive - chosen) // tiles
    for _ in range(tiles):
        _selector_products(matmul, stage.selector, alive // tiles, chosen // tiles, feature_width)
        match stage.merge:
            case NearestReference():
                matmul("merging", others - contextual // tiles, key_width, contextual // tiles)
            case BipartiteMatching():
                matmul("merging", others, key_width, chosen // tiles)
            case ClusterAverage() | SimilarityWeighted():
                matmul("merging", others, feature_width, (kept - contextual) // tiles)
            case DensityPeaks(recycled=recycled) if contextual:
                clustered = min(max(int(recycled * others) + 1, contextual), others)
                matmul("merging", clustered, feature_width, clustered)


def _decoder_products(matmul: Callable[..., None], stage: Stage, shape: Shape, alive: int) -> None:
    """What a stage computes of the layer before or after it."""
    scorer, text = stage.scorer, shape.newline_tokens + shape.text_tokens
    sequence, width = alive + text, shape.hidden_size
    queries, keys = shape.attention_heads * shape.head_size, shape.key_value_heads * shape.head_size
    layers_with_keys, cached = set(), False
    rows, seen = 0, sequence
    match scorer:
        case VisualSelfAttention(mean=mean):
            rows, seen = alive, alive if mean == "bidirectional" else sequence
            layers_with_keys.add("next")
        case LastTokenAttention(reads=layer):
            rows = 1
            cached = layer == "previous"  # by the layer itself, which has run
            layers_with_keys |= {layer} - {"previous"}
        case RaterAttention(reads=layer):
            rows = text
            cached = layer == "previous"
            layers_with_keys |= {layer} - {"previous"}
        case KeyNorm(reads=layer):
            layers_with_keys.add(layer)
    by_key = isinstance(stage.merge, NearestReference) and stage.contextual > 0
    if (by_key or isinstance(stage.merge, BipartiteMatching)) and not (layers_with_keys or cached):
        matmul("merging", alive, width, keys)
    if isinstance(stage.selector, LeastDuplication) and stage.selector.text_pivots:
        layers_with_keys.add("previous")
    if rows:
        matmul("scoring", rows, width, queries)
        matmul("scoring", rows, shape.head_size, seen, times=shape.attention_heads)
    for _ in layers_with_keys:
        matmul("scoring", sequence, width, keys)


def _selector_products(
    matmul: Callable[..., None], selector: Selector, tokens: int, chosen: int, width: int
) -> None:
    """What a selector compares."""
    if chosen == 0:
        return
    match selector:
        case MaxMinDistance():
            matmul("scoring", tokens, width, tokens)
        case Determinantal():
            matmul("scoring", tokens, width, tokens)
            for number in range(chosen):
                matmul("scoring", tokens, number, 1)
        case Deduplicated(share=share):
            others = tokens - int(share * chosen)
            matmul("scoring", others, width, others)
        case LeastDuplication(image_pivots=image, text_pivots=text):
            matmul("scoring", tokens, width, min(image, chosen) + text)


def summed(products: list[Product]) -> dict[str, int]:
    parts: dict[str, int] = {}
    for part, rows, inner, columns in products:
        parts[part] = parts.get(part, 0) + 2 * rows * inner * columns
    return {part: flops for part, flops in parts.items() if flops}

"""What merging dropped tokens costs, in FLOPs: keys, and similarities to what they merge into."""

from __future__ import annotations

from pruners.merges import (
    BipartiteMatching,
    ClusterAverage,
    DensityPeaks,
    NearestReference,
    NoMerge,
    SimilarityWeighted,
)
from pruners.scorers import KeyNorm, VisualSelfAttention
from pruners.shape import Shape
from space.scoring import reads_keys
from space.selecting import compared_width
from space.tiles import equal_tiles
from space.tower_reads import vision_keys_flops
from space.working import WorkingStage

_OF_VECTORS = (ClusterAverage, SimilarityWeighted)
"""Merge rules that compare each dropped token's vector with each kept one's."""


def merging_flops(working: WorkingStage, previous: int, shape: Shape) -> int:
    """Price the keys and similarities by which dropped tokens are merged into others.

    Args:
        working: The stage.
        previous: Visual tokens alive before it.
        shape: Shape of the model.

    Returns:
        FLOPs over all tiles.
    """
    stage, merge = working.stage, working.stage.merge
    if isinstance(merge, NoMerge) or working.alive == 0:
        return 0
    tiles = equal_tiles(stage, shape)
    chosen = working.chosen(shape.tiles)
    dropped = previous - chosen
    if isinstance(merge, NearestReference):
        if working.contextual == 0:
            return 0
        pairs = (dropped - working.contextual) * working.contextual / tiles
        return _keys_flops(working, previous, shape) + _products(pairs, working, shape)
    if isinstance(merge, BipartiteMatching):
        pairs = dropped * chosen / tiles
        return _keys_flops(working, previous, shape) + _products(pairs, working, shape)
    width = compared_width(stage, shape)
    if isinstance(merge, _OF_VECTORS):
        return round(2 * dropped * working.dominant * width / tiles)
    if isinstance(merge, DensityPeaks) and working.contextual:
        clustered = max(int(merge.recycled * dropped) + 1, working.contextual)
        return round(2 * min(clustered, dropped) ** 2 * width / tiles)
    return 0


def _products(pairs: float, working: WorkingStage, shape: Shape) -> int:
    """Price products of keys, which are averaged over heads before they are compared."""
    if working.layer == 0:
        vision = shape.vision
        return round(2 * pairs * (vision.hidden_size // vision.attention_heads))
    return round(2 * pairs * shape.head_size)


def _keys_flops(working: WorkingStage, previous: int, shape: Shape) -> int:
    """Price the keys that tokens are compared by, where the scorer has not read them."""
    stage = working.stage
    if working.layer > 0:
        if reads_keys(stage):
            return 0
        return 2 * previous * shape.hidden_size * shape.key_value_heads * shape.head_size
    fused = shape.vision.fused_projections and isinstance(stage.scorer, VisualSelfAttention)
    if isinstance(stage.scorer, KeyNorm) or fused:
        return 0
    return shape.tiles * vision_keys_flops(shape.vision)

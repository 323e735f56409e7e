"""What the vision tower and its paired text tower cost, in FLOPs, pruned inside or not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pruners.scorers import InformationFlow, TokenMatching, TowerScorer
from pruners.shape import Shape, TextTowerShape, VisionShape
from pruners.tower_counts import feature_index, matching_rounds, tower_tokens
from space.working import WorkingStage


def text_tower_flops(tower: TextTowerShape) -> int:
    """Price one question through the text tower: bidirectional, with its projection per token.

    Args:
        tower: Sizes of the tower and the question's length.

    Returns:
        FLOPs.
    """
    tokens, width = tower.tokens, tower.hidden_size
    layer = 2 * tokens * (4 * width**2 + 2 * width * tower.intermediate_size)
    attention = 4 * tokens**2 * width
    return tower.layers * (layer + attention) + 2 * tokens * width * tower.projection_size


def vision_tower_flops(vision: VisionShape, patches: Sequence[int] | None = None) -> int:
    """Price one tile through the patch embedding and every layer of the vision tower.

    Args:
        vision: Sizes of the tower.
        patches: Patches that are embedded, then those that enter each layer; by default all.

    Returns:
        FLOPs.
    """
    embedded, *entering = patches or (vision.patches,) * (vision.layers + 1)
    width = vision.hidden_size
    matrices = 3 if vision.gated else 2
    per_token = 2 * (4 * width**2 + matrices * width * vision.intermediate_size)
    pixels = vision.frames_per_patch * vision.patch_size**2
    flops = 2 * embedded * vision.channels * pixels * width
    for count in entering:
        tokens = count + vision.class_token
        flops += tokens * per_token + 4 * tokens**2 * width
    if vision.windowed_layers:
        outside = vision.patches**2 - _pairs_in_windows(vision)
        flops -= 4 * vision.windowed_layers * outside * width
    if vision.pooling_head:
        flops += _pooling_head_flops(vision)
    return flops


def _pairs_in_windows(vision: VisionShape) -> int:
    """Count the pairs of patches that share a window; those at the far edges are smaller."""
    side = vision.window_patches

    def squares(patches: int) -> int:
        return patches // side * side**2 + (patches % side) ** 2

    rows, columns = vision.rows_and_columns
    return squares(rows) * squares(columns)


def _pooling_head_flops(vision: VisionShape) -> int:
    """Price SigLIP's head: one query attends to all patches and goes through two matrices."""
    width = vision.hidden_size
    attention = 2 * width**2 * (2 + 2 * vision.patches) + 4 * vision.patches * width
    return attention + 4 * width * vision.intermediate_size


def projector_flops_per_token(shape: Shape) -> int:
    """Price one visual token through the projector and what runs beside it.

    Args:
        shape: Shape of the model.

    Returns:
        FLOPs of two matrices, from the patches that one token is made of to the decoder's width,
        for the projector and for each merger of earlier layers' features.
    """
    vision = shape.vision
    hidden = shape.projector_hidden_size or shape.hidden_size
    entering = vision.merge_size**2 * vision.hidden_size
    return 2 * hidden * (entering + shape.hidden_size) * (1 + shape.deepstack_mergers)


def pruned_tower_flops(working: WorkingStage, shape: Shape) -> int:
    """Price all tiles through a vision tower inside which tokens leave, scoring included.

    Args:
        working: The stage, whose scorer prunes inside the tower. FlowCut is priced at the most
            that it can cost: how soon tokens leave depends on the image.
        shape: Shape of the model.

    Returns:
        FLOPs.
    """
    scorer = working.stage.scorer
    assert isinstance(scorer, TowerScorer)
    # Of a tile's patches; with an uneven share, of the tile that keeps the most.
    alive = min(-(-working.alive // shape.tiles), shape.vision.patches)
    return shape.tiles * _pruned_tile_flops(scorer, alive, shape.vision)


@lru_cache(maxsize=4096)
def _pruned_tile_flops(scorer: TowerScorer, alive: int, vision: VisionShape) -> int:
    entering = tower_tokens(scorer, vision.patches, alive, vision.layers, vision.feature_layer)
    if not isinstance(scorer, InformationFlow | TokenMatching):
        return vision_tower_flops(vision, (alive, *entering))
    flops = vision_tower_flops(vision, (vision.patches, *entering))
    feature = feature_index(vision.layers, vision.feature_layer)
    width = vision.hidden_size
    for index in range(feature):
        patches = entering[index]
        if isinstance(scorer, InformationFlow):
            if patches > alive:  # the CLS token's attention, and its value against all others
                flops += 4 * (patches + vision.class_token) * width
            continue
        for merged in matching_rounds(patches, patches - entering[index + 1]):
            pairs = (patches + 1) // 2 * (patches // 2)
            flops += 2 * pairs * (width // vision.attention_heads)
            patches -= merged
    return flops

"""What stages read of the vision tower, and what that costs on top of the tower's own work.

Whatever the number of stages that read it, each is computed once.
"""

from __future__ import annotations

import math

from pruners.counting import split_budget
from pruners.errors import UnsupportedModelError
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    QuestionRelevance,
    SimilarityFusion,
    VisualSelfAttention,
)
from pruners.selectors import LocalWindows
from pruners.shape import Shape, TextTowerShape, VisionShape
from space.working import WorkingStage

Read = tuple[str, int | str]
"""What is read, and in which layer or how; equal ones are computed once."""

KEYS: Read = ("keys", "")
"""Keys of the layer that makes the features."""

_QUESTION = ("similarity", "relevance")


def tower_reads(working: WorkingStage, shape: Shape) -> dict[Read, int]:
    """Price what a stage's scorer and selector read of the vision tower, and not its layers.

    Args:
        working: The stage.
        shape: Shape of the model.

    Returns:
        FLOPs of one tile by what is read, without the text tower.

    Raises:
        UnsupportedModelError: The stage compares with the question, and the shape has no text
            tower.
    """
    stage, vision = working.stage, shape.vision
    scorer = stage.scorer
    reads: dict[Read, int] = {}
    if isinstance(scorer, ClsAttention):
        reads[_cls_layer(scorer.layer, vision)] = cls_attention_flops(vision)
    elif isinstance(scorer, SimilarityFusion):
        similarity, saliency = choosers(working, shape.tiles)
        if similarity:
            reads["similarity", scorer.encoding] = _decoupled_flops(
                vision, _text_tower(shape), scorer
            )
        if saliency:
            reads[_cls_layer(scorer.saliency_layer, vision)] = cls_attention_flops(vision)
    elif isinstance(scorer, QuestionRelevance):
        shared = _text_tower(shape).projection_size
        reads["relevance", ""] = 2 * vision.patches * vision.hidden_size * shared
    elif stage.layer == 0:
        if isinstance(scorer, KeyNorm):
            reads[KEYS] = vision_keys_flops(vision)
        elif isinstance(scorer, VisualSelfAttention) and vision.fused_projections:
            reads[KEYS] = vision_keys_flops(vision)  # and queries
            reads["attention", ""] = _patch_products_flops(vision)
        elif isinstance(scorer, VisualSelfAttention):
            reads["attention", ""] = _patch_attention_flops(vision)
    if isinstance(stage.selector, LocalWindows):
        layer = math.floor(stage.selector.depth * vision.layers + 0.5)
        reads["cls", min(layer, vision.layers - 1)] = cls_attention_flops(vision)
    return reads


def comparison_flops(working: WorkingStage, shape: Shape) -> int:
    """Price the products of patches and question tokens, at each stage that compares them.

    Args:
        working: The stage.
        shape: Shape of the model.

    Returns:
        FLOPs of one tile.
    """
    scorer, patches = working.stage.scorer, shape.vision.patches
    if isinstance(scorer, QuestionRelevance):
        return 2 * patches * _text_tower(shape).projection_size
    if not isinstance(scorer, SimilarityFusion) or not choosers(working, shape.tiles)[0]:
        return 0
    tower = _text_tower(shape)
    flops = 2 * patches * tower.tokens * tower.projection_size
    if scorer.alignment:  # also each with the whole image or question (DeSAP, equation 3)
        flops += 2 * (patches + tower.tokens) * tower.projection_size
    return flops


def read_question(reads: dict[Read, int]) -> bool:
    """Whether reads compare the image with the question, so that the text tower runs."""
    return any(what in _QUESTION for what, _ in reads)


def choosers(working: WorkingStage, tiles: int) -> tuple[bool, bool]:
    """Say which of its two scores a stage that fuses them computes.

    Args:
        working: The stage, whose scorer is `SimilarityFusion`.
        tiles: Images that the vision tower sees per sample.

    Returns:
        Whether similarity, and whether saliency, chooses at least one token.
    """
    scorer = working.stage.scorer
    assert isinstance(scorer, SimilarityFusion)
    images = tiles if working.layer == 0 else 0
    by_similarity, by_saliency = split_budget(working.chosen(images), scorer.weight)
    return by_similarity > 0, by_saliency > 0


def cls_attention_flops(vision: VisionShape) -> int:
    """Price the CLS token's attention in one layer: one query, all keys, one row."""
    tokens = vision.patches + vision.class_token
    width = vision.hidden_size
    return 2 * width**2 * (1 + tokens) + 2 * tokens * width


def vision_keys_flops(vision: VisionShape) -> int:
    """Price the keys of one layer, which the tower's own attention does not hand out.

    Where one matrix makes queries, keys and values, all three are computed.
    """
    matrices = 3 if vision.fused_projections else 1
    return 2 * matrices * (vision.patches + vision.class_token) * vision.hidden_size**2


def _cls_layer(layer: int, vision: VisionShape) -> Read:
    """Name the CLS attention of a layer, given as a negative index."""
    return "cls", vision.layers + layer


def _patch_attention_flops(vision: VisionShape) -> int:
    """Queries of the patches, keys of all tokens, and their products."""
    tokens = vision.patches + vision.class_token
    projections = 2 * vision.hidden_size**2 * (vision.patches + tokens)
    return projections + _patch_products_flops(vision)


def _patch_products_flops(vision: VisionShape) -> int:
    """Products of the patches' queries with the keys of all tokens."""
    return 2 * vision.patches * (vision.patches + vision.class_token) * vision.hidden_size


def _decoupled_flops(vision: VisionShape, tower: TextTowerShape, scorer: SimilarityFusion) -> int:
    """The last block's decoupled attention output in the shared space (DeSAP, equation 2)."""
    tokens = vision.patches + vision.class_token
    width, shared = vision.hidden_size, tower.projection_size
    projections = len({*scorer.encoding, "v"}) + 1  # each projection once, and the output's
    return 2 * tokens * width * (projections * width + shared) + 4 * tokens**2 * width


def _text_tower(shape: Shape) -> TextTowerShape:
    if shape.text_tower is None:
        raise UnsupportedModelError(
            f"the schedule compares the image with the question, but shape {shape.name!r} has no "
            "text tower to price; pass text_tower to Shape.from_config or shape_from_pretrained, "
            "or use a scorer that does not look at the question (for similarity-fusion: weight 0)"
        )
    return shape.text_tower

"""What the stages of a plan read of images and of decoder layers, so that nothing else is kept."""

from __future__ import annotations

import math

from pruners.adapters import ModelAdapter
from pruners.merges import BipartiteMatching, NearestReference
from pruners.plan import Plan
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    LastTokenAttention,
    QuestionRelevance,
    RaterAttention,
    SimilarityFusion,
    VisualSelfAttention,
)
from pruners.selectors import LeastDuplication, LocalWindows
from pruners.stages import Stage
from pruners.vision_outputs import VisionParts


def vision_parts(plan: Plan, adapter: ModelAdapter) -> VisionParts:
    """List what a plan reads of images.

    Args:
        plan: The plan.
        adapter: The model that it is for.

    Returns:
        The parts.
    """
    if plan.in_tower:
        return VisionParts(pixels=True)
    saliency_layers, encodings = set(), set()
    for stage in plan.stages:
        scorer = stage.scorer
        if isinstance(scorer, ClsAttention):
            saliency_layers.add(scorer.layer)
        elif isinstance(scorer, SimilarityFusion):
            if scorer.weight > 0:
                encodings.add(scorer.encoding)
            if scorer.weight < 1:
                saliency_layers.add(scorer.saliency_layer)
        if isinstance(stage.selector, LocalWindows):
            layers = len(adapter.towers["image"].layers)
            saliency_layers.add(window_layer(stage.selector, layers))
    scorers = [stage.scorer for stage in plan.stages]
    encoder = plan.encoder
    return VisionParts(
        saliency_layers=frozenset(saliency_layers),
        keys=encoder is not None and compares_keys(encoder),
        encodings=frozenset(encodings),
        patch_attention=encoder is not None and isinstance(encoder.scorer, VisualSelfAttention),
        key_norms=encoder is not None and isinstance(encoder.scorer, KeyNorm),
        joint=any(isinstance(scorer, QuestionRelevance) for scorer in scorers),
    )


def window_layer(selector: LocalWindows, layers: int) -> int:
    """Find the vision layer that windows are judged by (VScan: layer 5 of 24).

    Args:
        selector: The selector.
        layers: Layers of the vision tower.

    Returns:
        Negative index of the layer.
    """
    return min(math.floor(selector.depth * layers + 0.5), layers - 1) - layers


def compares_keys(stage: Stage) -> bool:
    """Say whether what a stage drops is merged by its keys.

    Args:
        stage: The stage.

    Returns:
        Whether keys are read for merging.
    """
    if isinstance(stage.merge, NearestReference):
        return stage.contextual > 0
    return isinstance(stage.merge, BipartiteMatching)


def reads_previous_layer(stage: Stage) -> bool:
    """Say whether a decoder stage reads the layer before its boundary.

    Args:
        stage: The stage, at a layer above 0.

    Returns:
        Whether its scorer or its text pivots read that layer.
    """
    scorer, selector = stage.scorer, stage.selector
    if isinstance(selector, LeastDuplication) and selector.text_pivots > 0:
        return True
    if not isinstance(scorer, LastTokenAttention | RaterAttention | KeyNorm):
        return False
    return scorer.reads == "previous"


def reads_raters(plan: Plan) -> bool:
    """Say whether a plan needs to know which text tokens are raters.

    Args:
        plan: The plan.

    Returns:
        Whether a scorer reads their attention.
    """
    return any(isinstance(stage.scorer, RaterAttention) for stage in plan.stages)

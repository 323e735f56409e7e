"""The stage at the encoder's output: choosing and merging image features."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pruners.choosing import choose_tokens
from pruners.counting import StageCounts
from pruners.merge_rules import merge_dropped
from pruners.merges import ClusterAverage, SimilarityWeighted
from pruners.plan import patches_chosen
from pruners.reads import window_layer
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    QuestionRelevance,
    Random,
    SimilarityFusion,
    Uniform,
    VisualSelfAttention,
)
from pruners.scores import Scores
from pruners.selection import random_scores
from pruners.selectors import LocalWindows
from pruners.sequence import Selection
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs
from pruners.vision_outputs import VisionOutputs
from pruners.vision_scores import patch_scores


def run_encoder_stage(
    stage: Stage,
    counts: StageCounts,
    vision: VisionOutputs,
    questions: QuestionOutputs | None,
    *,
    patches: Tensor,
    vision_layers: int,
) -> Selection:
    """Choose and merge image features.

    Args:
        stage: The stage at layer 0, whose tokens do not leave inside the tower.
        counts: Its token counts; fewer than the images have patches.
        vision: What is known of the images, CLS token included.
        questions: What is known of the questions, one per image; needed if scores compare them.
        patches: What is chosen from: features of the patches, before or after the projector,
            (batch, visual, width).
        vision_layers: Layers of the vision tower.

    Returns:
        The features alive: the CLS token if kept, dominant patches in raster order, contextual
        ones.

    Raises:
        InputError: The scorer reads the question, and there is none.
    """

    def local(selector: LocalWindows) -> Tensor:
        return vision.saliency[window_layer(selector, vision_layers)]

    with torch.no_grad():
        scores = _scores(stage, counts, vision, questions, patches)
        chosen = choose_tokens(
            stage.selector,
            scores,
            lambda: patches,
            patches_chosen(stage, counts),
            local=local,
            text_pivots=lambda count: None,
        )

    def keys() -> Tensor:
        assert vision.keys is not None
        return vision.keys

    if not stage.keeps_cls:
        return merge_dropped(
            stage.merge, patches, chosen, counts.contextual, scores=scores.first, keys=keys
        )
    cls_token = vision.features[:, :1]
    if isinstance(stage.merge, ClusterAverage | SimilarityWeighted):
        # Patches may join the CLS token as well, which is compared by the same features.
        tokens = torch.cat([cls_token, patches], dim=1)
        first = torch.cat([scores.first[:, :1], scores.first], dim=1)
        with_cls = torch.cat([torch.zeros_like(chosen[:, :1]), chosen + 1], dim=1)
        alive = merge_dropped(stage.merge, tokens, with_cls, 0, scores=first, keys=keys)
        return replace(alive, indices=alive.indices - 1)
    alive = merge_dropped(
        stage.merge, patches, chosen, counts.contextual, scores=scores.first, keys=keys
    )
    return alive.behind_cls(cls_token)


def _scores(
    stage: Stage,
    counts: StageCounts,
    vision: VisionOutputs,
    questions: QuestionOutputs | None,
    patches: Tensor,
) -> Scores:
    rows, count = patches.shape[:2]
    match stage.scorer:
        case ClsAttention() | SimilarityFusion() | QuestionRelevance():
            return patch_scores(stage, counts, vision, questions)
        case VisualSelfAttention():
            assert vision.patch_attention is not None
            return Scores(vision.patch_attention)
        case KeyNorm():
            assert vision.key_norms is not None
            return Scores(vision.key_norms)
        case Random(seed=seed):
            return Scores(random_scores(count, seed, patches.device).expand(rows, -1))
        case Uniform():
            return Scores(patches.new_zeros(rows, count, dtype=torch.float32))
    raise AssertionError(f"no stage at layer 0 has scorer {stage.scorer.kind!r}")

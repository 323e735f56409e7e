"""The stage at the encoder's output: choosing and merging vision features before the projector."""

from __future__ import annotations

import torch
from torch import Tensor

from pruners.errors import InputError
from pruners.merges import ClusterAverage, NearestReference
from pruners.merging import average_clusters, merge_into_references, reference_indices
from pruners.schedule import StageCounts, split_budget
from pruners.scorers import ClsAttention, SimilarityFusion
from pruners.selection import (
    gather_tokens,
    remaining_tokens,
    top_tokens,
    top_tokens_of_two,
)
from pruners.sequence import Selection
from pruners.similarity import aligned_similarity, mean_similarity
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs
from pruners.vision import VisionOutputs, VisionParts


def parts_read(stage: Stage, counts: StageCounts) -> VisionParts:
    """Say what an encoder stage reads of images, so that nothing else is computed.

    Args:
        stage: The stage at layer 0.
        counts: Its token counts.

    Returns:
        The parts. Decoupled embeddings are among them if similarity chooses at least one token.
    """
    keys = isinstance(stage.merge, NearestReference) and counts.contextual > 0
    scorer = _encoder_scorer(stage)
    if isinstance(scorer, SimilarityFusion):
        by_similarity, by_saliency = _split(scorer, counts)
        layers = frozenset({scorer.saliency_layer}) if by_saliency else frozenset()
        encodings = frozenset({scorer.encoding}) if by_similarity else frozenset()
        return VisionParts(layers, keys, encodings)
    return VisionParts(frozenset({scorer.layer}), keys)


def run_encoder_stage(
    stage: Stage, counts: StageCounts, vision: VisionOutputs, questions: QuestionOutputs | None
) -> Selection:
    """Choose and merge vision features.

    Args:
        stage: The stage at layer 0.
        counts: Its token counts; fewer than the images have patches.
        vision: What is known of the images, CLS token included.
        questions: What is known of the questions, one per image; needed if similarity chooses.

    Returns:
        The features for the projector: the CLS token if kept, dominant patches in raster order,
        contextual ones.
    """
    chosen = _choose(stage, counts, vision, questions)
    patches = vision.features[:, 1:]
    if _encoder_scorer(stage).keep_cls:
        cls_index = chosen.new_full((chosen.shape[0], 1), -1)
        indices = torch.cat([cls_index, chosen], dim=1)
    else:
        indices = chosen
    dropped = remaining_tokens(chosen, patches.shape[1])
    if isinstance(stage.merge, ClusterAverage):
        # Shifted by one, because the CLS token comes first; when kept, it is a centre as well.
        return Selection(average_clusters(vision.features, indices + 1, dropped + 1), indices)
    tokens = gather_tokens(vision.features, indices + 1)
    if not isinstance(stage.merge, NearestReference) or counts.contextual == 0:
        return Selection(tokens, indices)
    assert vision.keys is not None
    made = merge_into_references(
        gather_tokens(patches, dropped),
        gather_tokens(vision.keys, dropped),
        counts.contextual,
        stage.merge.combine,
    )
    references = dropped[:, list(reference_indices(dropped.shape[1], counts.contextual))]
    return Selection(
        torch.cat([tokens, made], dim=1),
        torch.cat([indices, references], dim=1),
        counts.contextual,
    )


def _encoder_scorer(stage: Stage) -> ClsAttention | SimilarityFusion:
    assert isinstance(stage.scorer, ClsAttention | SimilarityFusion)
    return stage.scorer


def _split(scorer: SimilarityFusion, counts: StageCounts) -> tuple[int, int]:
    """Split the dominant patches: how many similarity chooses, and how many saliency."""
    return split_budget(counts.dominant - scorer.keep_cls, scorer.weight)


def _choose(
    stage: Stage, counts: StageCounts, vision: VisionOutputs, questions: QuestionOutputs | None
) -> Tensor:
    """Choose the dominant patches: indices in raster order, (batch, dominant without CLS)."""
    scorer = _encoder_scorer(stage)
    if isinstance(scorer, ClsAttention):
        return top_tokens(vision.saliency[scorer.layer], counts.dominant - scorer.keep_cls)
    by_similarity, by_saliency = _split(scorer, counts)
    if by_similarity == 0:
        return top_tokens(vision.saliency[scorer.saliency_layer], by_saliency)
    similarity = _similarity(scorer, vision, questions)
    if by_saliency == 0:
        return top_tokens(similarity, by_similarity)
    saliency = vision.saliency[scorer.saliency_layer]
    if scorer.order == "similarity-first":
        return top_tokens_of_two(similarity, saliency, by_similarity, by_saliency)
    return top_tokens_of_two(saliency, similarity, by_saliency, by_similarity)


def _similarity(
    scorer: SimilarityFusion, vision: VisionOutputs, questions: QuestionOutputs | None
) -> Tensor:
    if questions is None:
        raise InputError(
            "the schedule compares the image with the question, but no question was given; pass "
            "the model's processor to apply_schedule, or the questions by handle.questions([...])"
        )
    embeddings = vision.decoupled[scorer.encoding]
    if not scorer.alignment:
        return mean_similarity(
            embeddings[:, 1:],
            questions.tokens,
            questions.mask,
            clamp_negative=scorer.clamp_negative,
        )
    return aligned_similarity(
        embeddings[:, 1:],
        questions.tokens,
        questions.mask,
        image=embeddings[:, 0],
        question=questions.question,
        temperature=scorer.temperature,
        clamp_negative=scorer.clamp_negative,
    )

"""Scores that are read off the vision tower, by patch."""

from __future__ import annotations

import torch
from torch import Tensor

from pruners.counting import StageCounts
from pruners.errors import InputError
from pruners.plan import fusion_split
from pruners.scorers import ClsAttention, QuestionRelevance, SimilarityFusion
from pruners.scores import Scores
from pruners.similarity import aligned_similarity, mean_similarity, question_relevance
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs
from pruners.vision_outputs import VisionOutputs


def patch_scores(
    stage: Stage, counts: StageCounts, vision: VisionOutputs, questions: QuestionOutputs | None
) -> Scores:
    """Score patches by a `VisionScorer`.

    Args:
        stage: A stage with such a scorer.
        counts: Its token counts.
        vision: What is known of the images.
        questions: What is known of the questions, one per image, or None.

    Returns:
        Scores of the patches, (batch, visual).

    Raises:
        InputError: The scorer reads the question, and there is none.
    """
    scorer = stage.scorer
    if isinstance(scorer, ClsAttention):
        return Scores(vision.saliency[scorer.layer])
    if isinstance(scorer, QuestionRelevance):
        assert vision.joint is not None
        relevance = question_relevance(vision.joint, _given(questions).question)
        return Scores(-relevance if scorer.sign == "negative" else relevance)
    assert isinstance(scorer, SimilarityFusion)
    by_similarity, by_saliency = fusion_split(stage, counts)
    if by_similarity == by_saliency == 0:
        # The CLS token alone is kept; nothing was computed, because nothing is chosen by score.
        return Scores(_zeros(vision))
    if by_similarity == 0:
        return Scores(vision.saliency[scorer.saliency_layer])
    similarity = _similarity(scorer, vision, _given(questions))
    if by_saliency == 0:
        return Scores(similarity)
    saliency = vision.saliency[scorer.saliency_layer]
    if scorer.order == "similarity-first":
        return Scores(similarity, saliency, by_similarity)
    return Scores(saliency, similarity, by_saliency)


def _zeros(vision: VisionOutputs) -> Tensor:
    """Scores of all patches alike: whatever was computed says how many there are."""
    parts = (*vision.saliency.values(), *(tokens[:, 1:, 0] for tokens in vision.decoupled.values()))
    return torch.zeros_like(parts[0], dtype=torch.float32)


def _given(questions: QuestionOutputs | None) -> QuestionOutputs:
    if questions is None:
        raise InputError(
            "the schedule compares the image with the question, but no question was given; pass "
            "the model's processor to apply_schedule, or the questions by handle.questions([...])"
        )
    return questions


def _similarity(
    scorer: SimilarityFusion, vision: VisionOutputs, questions: QuestionOutputs
) -> Tensor:
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

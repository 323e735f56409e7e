"""How much each visual token has to do with the question (DeSAP, CDPruner)."""

from __future__ import annotations

import torch
from torch import Tensor


def aligned_similarity(
    visual: Tensor,
    text: Tensor,
    text_mask: Tensor,
    *,
    image: Tensor,
    question: Tensor,
    temperature: float = 0.1,
    clamp_negative: bool = False,
) -> Tensor:
    """Score visual tokens by fine-grained cross-modal alignment (arXiv 2604.11240, equation 3).

    With ``m = visual textᵀ``, ``α = visual questionᵀ``, ``β = text imageᵀ``, n visual tokens and
    t question tokens::

        MV_ij = α_i exp(λ β_j m_ij) / (n Σ_k exp(λ β_k m_ik))
        MT_ij = β_j exp(λ α_i m_ij) / (t Σ_k exp(λ α_k m_kj))
        score_i = mean_j (MV + MT)_ij m_ij

    Args:
        visual: Decoupled embeddings of the patches, L2-normalised, (batch, visual, width).
        text: Embeddings of the question's tokens, L2-normalised, (batch, text, width).
        text_mask: True for tokens, False for padding, (batch, text).
        image: Decoupled embedding of the CLS token, L2-normalised, (batch, width).
        question: Embedding of the end-of-text token, L2-normalised, (batch, width).
        temperature: The paper's λ (its section 4.1: 0.1).
        clamp_negative: Whether negative similarities count as zero; the paper has no clamp.

    Returns:
        Scores, float32, (batch, visual).
    """
    visual, text, image, question = (part.float() for part in (visual, text, image, question))
    similarity = visual @ text.mT  # batch x visual x text
    to_question = (visual @ question.unsqueeze(-1)).squeeze(-1)  # batch x visual
    to_image = (text @ image.unsqueeze(-1)).squeeze(-1)  # batch x text
    if clamp_negative:
        similarity, to_question, to_image = (
            part.clamp(min=0) for part in (similarity, to_question, to_image)
        )
    tokens = text_mask.sum(dim=-1).clamp(min=1).float()[:, None, None]
    over_text = temperature * to_image[:, None, :] * similarity
    over_text = over_text.masked_fill(~text_mask[:, None, :], -torch.inf).softmax(dim=2)
    over_visual = (temperature * to_question[:, :, None] * similarity).softmax(dim=1)
    visual_side = to_question[:, :, None] * over_text / visual.shape[1]
    text_side = to_image[:, None, :] * over_visual / tokens
    return _mean_over_text((visual_side + text_side) * similarity, text_mask)


def mean_similarity(
    visual: Tensor, text: Tensor, text_mask: Tensor, *, clamp_negative: bool = False
) -> Tensor:
    """Score visual tokens by their plain mean similarity (DeSAP's table 5, without alignment).

    Args:
        visual: Decoupled embeddings of the patches, L2-normalised, (batch, visual, width).
        text: Embeddings of the question's tokens, L2-normalised, (batch, text, width).
        text_mask: True for tokens, False for padding, (batch, text).
        clamp_negative: Whether negative similarities count as zero.

    Returns:
        Scores, float32, (batch, visual).
    """
    similarity = visual.float() @ text.float().mT
    return _mean_over_text(similarity.clamp(min=0) if clamp_negative else similarity, text_mask)


def question_relevance(patches: Tensor, question: Tensor) -> Tensor:
    """Score patches by their cosine similarity to the question (CDPruner, arXiv 2506.10967).

    Args:
        patches: Patches in the joint space of image and text, L2-normalised, (batch, patches,
            width).
        question: Embedding of the end-of-text token, L2-normalised, (batch, width).

    Returns:
        Scores, float32, (batch, patches).
    """
    return (question.float().unsqueeze(1) @ patches.float().mT).squeeze(1)


def _mean_over_text(scores: Tensor, text_mask: Tensor) -> Tensor:
    tokens = text_mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return scores.masked_fill(~text_mask[:, None, :], 0).sum(dim=-1) / tokens

"""Similarity to the question, against loops that are typed off the papers, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruners.similarity import aligned_similarity, mean_similarity, question_relevance


def embeddings(*shape: int, seed: int) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_loop(
    visual: Tensor, text: Tensor, image: Tensor, question: Tensor, lam: float, clamp: bool
) -> list[float]:
    """One sample without padding, in double precision."""
    low = 0.0 if clamp else -math.inf
    n, t = len(visual), len(text)
    m = [[max(low, float(v @ q)) for q in text] for v in visual]
    alpha = [max(low, float(v @ question)) for v in visual]
    beta = [max(low, float(q @ image)) for q in text]
    scores = []
    for i in range(n):
        total = 0.0
        for j in range(t):
            over_text = sum(math.exp(lam * beta[k] * m[i][k]) for k in range(t))
            over_visual = sum(math.exp(lam * alpha[k] * m[k][j]) for k in range(n))
            mv = alpha[i] * math.exp(lam * beta[j] * m[i][j]) / (n * over_text)
            mt = beta[j] * math.exp(lam * alpha[i] * m[i][j]) / (t * over_visual)
            total += (mv + mt) * m[i][j]
        scores.append(total / t)
    return scores


@pytest.mark.parametrize("temperature", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("clamp", [False, True])
def test_equation_3_equals_a_loop(temperature: float, clamp: bool) -> None:
    lengths = [4, 1, 3]
    visual, text = embeddings(3, 6, 8, seed=0), embeddings(3, 4, 8, seed=1)
    image, question = embeddings(3, 8, seed=2), embeddings(3, 8, seed=3)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    scores = aligned_similarity(
        visual,
        text,
        mask,
        image=image,
        question=question,
        temperature=temperature,
        clamp_negative=clamp,
    )
    for row, length in enumerate(lengths):
        parts = visual[row], text[row, :length], image[row], question[row]
        expected = by_loop(*(part.double() for part in parts), temperature, clamp)
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-7)


def test_equation_3_by_hand() -> None:
    # One patch, one question token: both softmaxes are 1, so the score is (α + β) m.
    patch, token = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.6, 0.8]]])
    score = aligned_similarity(
        patch,
        token,
        torch.tensor([[True]]),
        image=torch.tensor([[0.0, 1.0]]),
        question=torch.tensor([[0.8, 0.6]]),
    )
    assert score.item() == pytest.approx((0.8 + 0.8) * 0.6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("clamp", [False, True])
def test_plain_similarity_equals_a_loop(seed: int, clamp: bool) -> None:
    lengths = [4, 1, 3]
    visual, text = embeddings(3, 6, 5, seed=seed), embeddings(3, 4, 5, seed=seed + 10)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    scores = mean_similarity(visual, text, mask, clamp_negative=clamp)
    for row, length in enumerate(lengths):
        tokens = text[row, :length].tolist()
        for place, patch in enumerate(visual[row].tolist()):
            products = [sum(x * y for x, y in zip(patch, token, strict=True)) for token in tokens]
            if clamp:
                products = [max(0.0, product) for product in products]
            assert scores[row, place].item() == pytest.approx(sum(products) / length, abs=1e-6)


def test_plain_similarity_by_hand() -> None:
    patches = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
    tokens = torch.tensor([[[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]])
    mask = torch.tensor([[True, True, False]])
    assert mean_similarity(patches, tokens, mask)[0].tolist() == pytest.approx([0.8, -0.4])
    clamped = mean_similarity(patches, tokens, mask, clamp_negative=True)
    assert clamped[0].tolist() == pytest.approx([0.8, 0.0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("patches", [1, 7])
def test_question_relevance_equals_a_loop(seed: int, patches: int) -> None:
    vectors = embeddings(2, patches, 6, seed=seed)
    question = embeddings(2, 6, seed=seed + 10)
    scores = question_relevance(vectors, question)
    for row in range(2):
        for place in range(patches):
            a, b = vectors[row, place].tolist(), question[row].tolist()
            product = sum(x * y for x, y in zip(a, b, strict=True))
            cosine = product / (math.hypot(*a) * math.hypot(*b))
            assert scores[row, place].item() == pytest.approx(cosine, abs=1e-6)


def test_question_relevance_by_hand() -> None:
    patches = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, -1.0], [0.6, 0.8]]])
    scores = question_relevance(patches, torch.tensor([[0.8, 0.6]]))
    # 0.8, 0.6 * 0.8 + 0.8 * 0.6 and -0.6; equal patches score alike.
    assert scores[0].tolist() == pytest.approx([0.8, 0.96, -0.6, 0.96])
    assert scores[0, 1] == scores[0, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_question_relevance_of_a_batch_is_that_of_its_samples(dtype: torch.dtype) -> None:
    patches = embeddings(3, 60, 32, seed=0).to(dtype)
    question = embeddings(3, 32, seed=1).to(dtype)
    scores = question_relevance(patches, question)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, question_relevance(patches.float(), question.float()))
    for row in range(3):
        alone = question_relevance(patches[row : row + 1], question[row : row + 1])
        assert torch.equal(alone[0], scores[row])

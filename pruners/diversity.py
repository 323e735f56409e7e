"""Choosing tokens that differ from one another: deterministic, of equals the earlier token wins.

Tokens are compared by cosine similarity, in float32; a zero vector is similar to nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruners.selection import gather_tokens

SMALLEST_RELEVANCE = 1e-6
"""Added to CDPruner's scaled scores, so that the worst token can be chosen (released code)."""

DEPENDENT = 1e-6
"""Share of its own kernel entry below which a token's residual is rounding error, not diversity."""


def most_distant_tokens(tokens: Tensor, count: int) -> Tensor:
    """Choose tokens one by one, each farthest from those before it (DivPrune, arXiv 2503.02175).

    The distance is 1 - cosine. The first token is the one whose nearest other token is farthest.

    Args:
        tokens: Token vectors, (batch, tokens, width).
        count: Tokens to choose per sample, from 1 to `tokens`.

    Returns:
        Indices of the chosen tokens in rising order, (batch, count).
    """
    distances = 1 - _cosines(tokens)  # batch x tokens x tokens
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    samples = torch.arange(tokens.shape[0], device=tokens.device)
    to_nearest = distances.amin(dim=-1)
    chosen = [to_nearest.argmax(dim=-1)]
    to_nearest = torch.full_like(to_nearest, torch.inf)
    for _ in range(count - 1):
        latest = chosen[-1]
        to_nearest = torch.minimum(to_nearest, distances[samples, latest])
        to_nearest = to_nearest.scatter(-1, latest.unsqueeze(-1), -torch.inf)
        chosen.append(to_nearest.argmax(dim=-1))
    return torch.stack(chosen, dim=-1).sort(dim=-1).values


def determinantal_tokens(tokens: Tensor, scores: Tensor, count: int) -> Tensor:
    """Choose tokens that score well and differ (CDPruner, arXiv 2506.10967).

    The most probable set of a determinantal point process with the kernel ``L = diag(r) S diag(r)``
    is approached greedily: S is the cosine similarity of the tokens, and r the scores of a sample
    scaled to [0, 1], plus `SMALLEST_RELEVANCE`. (The released code scales by the least and highest
    score of a whole batch; a sample here does not depend on its batch.) Each step takes the token
    with the largest residual ``det L(chosen + token) / det L(chosen)``, kept up to date by an
    incremental Cholesky decomposition (Chen, Zhang and Zhou, 2018, arXiv 1709.05135, algorithm 1).
    Where more tokens are asked for than the kernel has rank, tokens without residual follow.

    Args:
        tokens: Token vectors, (batch, tokens, width).
        scores: Scores, (batch, tokens).
        count: Tokens to choose per sample, from 1 to `tokens`.

    Returns:
        Indices of the chosen tokens in rising order, (batch, count).
    """
    kernel = _kernel(tokens, scores)
    batch, total, _ = kernel.shape
    samples = torch.arange(batch, device=tokens.device)
    own = kernel.diagonal(dim1=1, dim2=2)
    residual = own.clone()  # batch x tokens
    factor = kernel.new_zeros(batch, count, total)  # rows of the Cholesky factor, chosen first
    chosen = []
    for step in range(count):
        latest = residual.argmax(dim=-1)
        chosen.append(latest)
        known = factor[samples, :step, latest].unsqueeze(1) @ factor[:, :step]
        pivot = residual[samples, latest].unsqueeze(-1)
        independent = pivot > DEPENDENT * own[samples, latest].unsqueeze(-1)
        row = (kernel[samples, latest] - known.squeeze(1)) * torch.where(
            independent, pivot, torch.inf
        ).rsqrt()
        factor[:, step] = row
        residual = (residual - row.square()).scatter(-1, latest.unsqueeze(-1), -torch.inf)
    return torch.stack(chosen, dim=-1).sort(dim=-1).values


def deduplicated_tokens(
    tokens: Tensor, scores: Tensor, count: int, *, share: float, step: int
) -> Tensor:
    """Choose important tokens, and of the others the least alike (VisPruner, arXiv 2412.01818).

    The others, at first by falling score, are split by even and odd places. The even ones that are
    most similar to any odd one leave. What is left of the even ones, by falling similarity, and
    then the odd ones are split again, until enough are left (released code).

    Args:
        tokens: Token vectors, (batch, tokens, width).
        scores: Scores, (batch, tokens).
        count: Tokens to choose per sample, from 1 to `tokens`.
        share: Share of them that have the highest scores (rounded down), in [0, 1].
        step: Most tokens to leave at a time, at least 1.

    Returns:
        Indices of the chosen tokens in rising order, (batch, count).
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    important = int(share * count)
    diverse = count - important
    if diverse == 0:
        return order[:, :count].sort(dim=-1).values
    others = order[:, important:]
    cosines = _cosines(gather_tokens(tokens, others))
    samples = torch.arange(tokens.shape[0], device=tokens.device)[:, None, None]
    rest = torch.arange(others.shape[1], device=tokens.device).expand(others.shape)
    while (excess := rest.shape[1] - diverse) > 0:
        even, odd = rest[:, ::2], rest[:, 1::2]
        similarity = cosines[samples, even.unsqueeze(2), odd.unsqueeze(1)].amax(dim=-1)
        stay = even.shape[1] - min(step, excess, even.shape[1])
        # Sorted rising, so that of equals the earlier stay; then turned round.
        staying = similarity.argsort(dim=-1, stable=True)[:, :stay].flip(-1)
        rest = torch.cat([even.gather(-1, staying), odd], dim=-1)
    chosen = torch.cat([order[:, :important], others.gather(-1, rest)], dim=-1)
    return chosen.sort(dim=-1).values


def least_duplicated_tokens(
    tokens: Tensor, scores: Tensor, count: int, *, image_pivots: int, text: Tensor | None
) -> Tensor:
    """Choose pivot tokens, and for each the tokens least similar to it (DART, arXiv 2502.11494).

    The pivots of the image are the tokens with the highest scores. Each pivot in turn, those of the
    image by falling score and then those of the text, chooses an equal share of what is left of the
    count; where shares cannot be equal, earlier pivots choose one more.

    Args:
        tokens: Token vectors, (batch, tokens, width).
        scores: Scores, (batch, tokens).
        count: Tokens to choose per sample, from 1 to `tokens`.
        image_pivots: Pivots of the image, which are chosen themselves, at least 1; with a smaller
            `count`, so many.
        text: Pivots of the text, (batch, text pivots, width); None for none.

    Returns:
        Indices of the chosen tokens in rising order, (batch, count).
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    chosen = order[:, : min(image_pivots, count)]
    pivots = gather_tokens(tokens, chosen)
    if text is not None:
        pivots = torch.cat([pivots, text], dim=1)
    cosines = normalize(pivots.float(), dim=-1) @ normalize(tokens.float(), dim=-1).mT
    share, longer = divmod(count - chosen.shape[1], pivots.shape[1])
    for place in range(pivots.shape[1]):
        free = cosines[:, place].scatter(-1, chosen, torch.inf)
        nearest_last = free.argsort(dim=-1, stable=True)
        picked = nearest_last[:, : share + (place < longer)]
        chosen = torch.cat([chosen, picked], dim=-1)
    return chosen.sort(dim=-1).values


def _cosines(tokens: Tensor) -> Tensor:
    """Cosine similarity of all pairs, float32, (batch, tokens, tokens)."""
    tokens = normalize(tokens.float(), dim=-1)
    return tokens @ tokens.mT


def _kernel(tokens: Tensor, scores: Tensor) -> Tensor:
    """CDPruner's kernel of similarity and relevance, float32, (batch, tokens, tokens)."""
    scores = scores.float()
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    # Equal scores all become `SMALLEST_RELEVANCE`, instead of 0 / 0.
    span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    relevance = (scores - low) / span + SMALLEST_RELEVANCE
    similarity = _cosines(tokens)
    # Rounding alone must not decide between tokens of equal relevance.
    itself = similarity.diagonal(dim1=1, dim2=2)
    itself.copy_(itself.round())
    return relevance.unsqueeze(2) * similarity * relevance.unsqueeze(1)

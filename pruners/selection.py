"""Choosing tokens by score: deterministic, because of equal scores the earlier token wins."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pruners.transfer import send


def top_tokens(scores: Tensor, count: int) -> Tensor:
    """Choose the tokens with the highest scores.

    Args:
        scores: Scores, (batch, tokens).
        count: Tokens to choose per sample, at most `tokens`.

    Returns:
        Indices of the chosen tokens in rising order, (batch, count).
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[:, :count].sort(dim=-1).values


def top_tokens_of_two(first: Tensor, second: Tensor, first_count: int, second_count: int) -> Tensor:
    """Let two scores choose one after the other, the second among what the first has left.

    Args:
        first: Scores that choose first, (batch, tokens).
        second: Scores that choose from the rest, (batch, tokens).
        first_count: Tokens that `first` chooses.
        second_count: Tokens that `second` chooses.

    Returns:
        Indices of all chosen tokens in rising order, (batch, first_count + second_count).
    """
    return add_top_tokens(top_tokens(first, first_count), second, second_count)


def add_top_tokens(chosen: Tensor, scores: Tensor, count: int) -> Tensor:
    """Add the tokens with the highest scores among those not chosen yet.

    Args:
        chosen: Distinct indices of the chosen tokens, (batch, chosen).
        scores: Scores, (batch, tokens).
        count: Tokens to add per sample, at most `tokens` - `chosen`.

    Returns:
        Indices of all chosen tokens in rising order, (batch, chosen + count).
    """
    rest = scores.scatter(-1, chosen, -math.inf)
    return torch.cat([chosen, top_tokens(rest, count)], dim=-1).sort(dim=-1).values


def random_scores(tokens: int, seed: int, device: torch.device | str) -> Tensor:
    """Put tokens in a random order that depends on nothing but the seed and their number.

    Args:
        tokens: Number of tokens.
        seed: Seed of the order.
        device: Where the scores are wanted; they are drawn on the CPU, so they are the same
            everywhere.

    Returns:
        The numbers from 0 to `tokens` - 1 in random order, float32, (tokens,).
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(tokens, generator=generator, device="cpu")
    return send(order.float(), torch.device(device))


def remaining_tokens(chosen: Tensor, tokens: int) -> Tensor:
    """List the tokens that were not chosen.

    Args:
        chosen: Distinct indices of the chosen tokens, (batch, count).
        tokens: Tokens per sample.

    Returns:
        Indices of the other tokens in rising order, (batch, tokens - count).
    """
    is_chosen = torch.zeros(chosen.shape[0], tokens, dtype=torch.bool, device=chosen.device)
    is_chosen = is_chosen.scatter(-1, chosen, True)
    order = is_chosen.to(torch.uint8).argsort(dim=-1, stable=True)
    return order[:, : tokens - chosen.shape[-1]]


def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens by index.

    Args:
        tokens: Token vectors, (batch, tokens, width).
        indices: Indices of tokens, (batch, count).

    Returns:
        The picked vectors, (batch, count, width).
    """
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))

"""Positions of tokens for the rotary embedding: counted anew, shifted, and the last of them."""

from __future__ import annotations

import torch
from torch import Tensor


def compact_positions(like: Tensor, mask: Tensor | None) -> Tensor:
    """Count positions from 0 over the tokens that are no padding.

    Args:
        like: Any tensor of the sequence's shape, (batch, length).
        mask: True for tokens, False for padding, (batch, length); None without padding.

    Returns:
        Positions, (batch, length); padding on the left gets 0.
    """
    if mask is None:
        return torch.arange(like.shape[1], device=like.device).expand(like.shape[0], -1)
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def positions_from_zero(position_ids: Tensor, mask: Tensor | None) -> Tensor:
    """Shift each sample's positions so that its first token has position 0.

    Args:
        position_ids: Positions, (batch, length) or (axes, batch, length).
        mask: True for tokens, False for padding, (batch, length); None without padding.

    Returns:
        Positions of the same shape; padding on the left gets whatever that leaves, at least 0.
    """
    if mask is None:
        return position_ids - position_ids[..., :1]
    first = position_ids.masked_fill(~mask, torch.iinfo(position_ids.dtype).max)
    return (position_ids - first.amin(dim=-1, keepdim=True)).clamp(min=0)


def last_position(position_ids: Tensor, mask: Tensor | None) -> Tensor:
    """Find the highest position of each sample that is no padding.

    Args:
        position_ids: Positions, (batch, length).
        mask: True for tokens, False for padding, (batch, length); None without padding.

    Returns:
        Positions, (batch, 1).
    """
    if mask is not None:
        position_ids = position_ids.masked_fill(~mask, -1)
    return position_ids.amax(dim=-1, keepdim=True)

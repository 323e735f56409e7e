"""How important each visual token is: attention that it receives, and the norm of its key."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ROUNDING = 1e-6
"""How far above the mean a rater is at least, as a share of it: more than float32 rounds off."""

QUERIES_AT_ONCE = 256
"""Queries whose attention is held at a time. In float32, 32 heads over 3000 keys take 98 MB of it
per sample, where all 2880 visual tokens of a LLaVA-NeXT image would take 1.1 GB."""


def cls_saliency(query: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Score patches by the attention that the CLS token pays to them, averaged over heads.

    VisionDrop's and VisionZip's encoder score (their code sums over heads, which ranks alike), and
    DeSAP's equation 4.

    Args:
        query: The CLS token's query, (batch, heads, 1, head size).
        keys: Keys of the CLS token, first, and of the patches, (batch, heads, 1 + patches,
            head size).
        scale: Factor on the dot products, ``head_size ** -0.5``.

    Returns:
        Scores, float32, (batch, patches). The softmax also runs over the CLS token's own key.
    """
    logits = query.float() @ keys.float().mT * scale
    return logits.softmax(dim=-1)[:, :, 0, 1:].mean(dim=1)


def visual_saliency(
    queries: Tensor,
    keys: Tensor,
    visual: Tensor,
    key_mask: Tensor | None,
    *,
    scale: float,
    window: int | None = None,
    mean: Literal["causal", "attending-queries", "bidirectional"] = "causal",
) -> Tensor:
    """Score visual tokens by the attention that they receive from all visual tokens.

    VisionDrop's decoder score (arXiv 2506.22283), averaged over heads and queries.

    Args:
        queries: Rotated queries of the visual tokens, in sequence order, (batch, heads, visual,
            head size).
        keys: Rotated keys of the whole sequence, (batch, key-value heads, length, head size); a
            group of query heads shares each key-value head.
        visual: Where the visual tokens are in the sequence, rising, (batch, visual).
        key_mask: True for tokens, False for padding, (batch, length); None without padding.
        scale: Factor on the dot products, ``head_size ** -0.5``.
        window: How many places a query sees, its own included; None for all before it.
        mean: ``"causal"``: attention over all keys under the causal mask, whose zeros stay in the
            mean over queries (released code); ``"attending-queries"``: divided by the number of
            queries that can see the token instead; ``"bidirectional"``: attention over visual keys
            only, neither masked nor cut to a window (the paper's equation).

    Returns:
        Scores, float32, (batch, visual).
    """
    count, size = queries.shape[2:]
    if mean == "bidirectional":
        columns = visual[:, None, :, None].expand(-1, keys.shape[1], -1, size)
        return _mean_attention(queries, keys.gather(2, columns), scale)

    ones = torch.ones_like(visual, dtype=torch.float32)
    received = _causal_attention(queries, keys, visual, ones, key_mask, scale, window)
    received = received.gather(1, visual)
    if mean == "causal":
        return received / count
    return received / _queries_that_see(visual, window)


def row_saliency(
    queries: Tensor,
    keys: Tensor,
    visual: Tensor,
    rows: Tensor,
    weights: Tensor,
    key_mask: Tensor | None,
    *,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Score visual tokens by the attention that some tokens of the sequence pay to them.

    The decoder score of FastV (arXiv 2403.06764) and PyramidDrop (arXiv 2410.17247), with the last
    token as the only row, and of SparseVLM (arXiv 2410.04417), with the rater tokens as rows.

    Args:
        queries: Rotated queries of the rows, (batch, heads, rows, head size).
        keys: Rotated keys of the whole sequence, (batch, key-value heads, length, head size); a
            group of query heads shares each key-value head.
        visual: Where the visual tokens are in the sequence, (batch, visual).
        rows: Where the rows are in the sequence, (batch, rows).
        weights: Weight of each row in the mean over rows, at least 0, (batch, rows). Rows that
            stand for padding weigh 0.
        key_mask: True for tokens, False for padding, (batch, length); None without padding.
        scale: Factor on the dot products, ``head_size ** -0.5``.
        window: How many places a row sees, its own included; None for all before it.

    Returns:
        Scores, float32, (batch, visual): causal attention over all keys, averaged over heads and
        then over rows. Where all weights are 0, so are the scores.
    """
    weights = weights.float()
    received = _causal_attention(queries, keys, rows, weights, key_mask, scale, window)
    total = weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return received.gather(1, visual) / total


def rater_mask(visual: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
    """Find SparseVLM's raters: the text tokens that matter most to the image.

    With V and T the visual and text tokens, a rater's mean over V of ``softmax(V Tᵀ)``, taken over
    text, is above the mean of all text tokens (released code; products are not scaled).

    Args:
        visual: Visual tokens as they enter the decoder, (batch, visual, width).
        text: Text tokens as they enter the decoder, (batch, text, width).
        text_mask: True for tokens, False for padding, (batch, text).

    Returns:
        True for raters, (batch, text). If no token is above the mean, all are alike, and all are
        raters: someone has to rate.
    """
    logits = visual.float() @ text.float().mT
    attention = logits.masked_fill(~text_mask[:, None, :], -torch.inf).softmax(dim=-1)
    # A softmax sums to one, so its mean over n tokens is 1 / n, whatever the padding. Rounding must
    # not make raters of some of several equal tokens.
    above = attention.mean(dim=1) * text_mask.sum(dim=-1, keepdim=True) > 1 + ROUNDING
    raters = above & text_mask
    return torch.where(raters.any(dim=-1, keepdim=True), raters, text_mask)


def key_norms(keys: Tensor) -> Tensor:
    """Score tokens by the L1 norm of their keys, over all heads (DART's pivots, released code).

    Args:
        keys: Keys, (batch, heads, tokens, head size).

    Returns:
        Scores, float32, (batch, tokens).
    """
    return keys.float().abs().sum(dim=(1, 3))


def patch_saliency(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Score patches by the attention that they receive from all patches of the vision tower.

    What VisionDrop (arXiv 2506.22283) takes for towers without a CLS token: the mean over heads and
    queries.

    Args:
        queries: Queries of the patches, (batch, heads, patches, head size).
        keys: Keys of all tokens of the tower, of which the patches are the last, (batch, heads,
            tokens, head size).
        scale: Factor on the dot products, ``head_size ** -0.5``.

    Returns:
        Scores, float32, (batch, patches). The softmax runs over all keys.
    """
    return _mean_attention(queries, keys, scale)[:, -queries.shape[2] :]


def _mean_attention(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Attention that keys receive, mean over heads and queries, (batch, keys)."""
    heads, count = queries.shape[1:3]
    keys = keys.float()
    received = keys.new_zeros(keys.shape[0], keys.shape[2])
    for some in torch.split(queries, QUERIES_AT_ONCE, dim=2):
        received = received + _logits(some, keys, scale).softmax(dim=-1).sum(dim=(1, 2, 3))
    return received / (heads * count)


def _causal_attention(
    queries: Tensor,
    keys: Tensor,
    rows: Tensor,
    weights: Tensor,
    key_mask: Tensor | None,
    scale: float,
    window: int | None,
) -> Tensor:
    """Attention that some rows pay, mean over heads, weighted sum over rows, (batch, length)."""
    positions = torch.arange(keys.shape[2], device=keys.device)
    keys = keys.float()
    received = keys.new_zeros(keys.shape[0], keys.shape[2])
    parts = (torch.split(part, QUERIES_AT_ONCE, dim=1) for part in (rows, weights))
    some_queries = torch.split(queries, QUERIES_AT_ONCE, dim=2)
    for some, places, weight in zip(some_queries, *parts, strict=True):
        places = places.unsqueeze(-1)
        allowed = positions <= places  # batch x rows x length
        if window is not None:
            allowed = allowed & (positions > places - window)
        if key_mask is not None:
            # A row of padding may see no other token; with itself its softmax is at least a number.
            allowed = allowed & key_mask[:, None, :] | (positions == places)
        logits = _logits(some, keys, scale).masked_fill(~allowed[:, None, None], -torch.inf)
        attention = logits.softmax(dim=-1).mean(dim=(1, 2))  # batch x rows x length
        received = received + (weight.unsqueeze(-1) * attention).sum(dim=1)
    return received


def _queries_that_see(visual: Tensor, window: int | None) -> Tensor:
    """Count the visual queries that can see each visual token, (batch or 1, visual)."""
    count = visual.shape[1]
    if window is None:
        return torch.arange(count, 0, -1, device=visual.device).unsqueeze(0)
    behind = visual.unsqueeze(1) - visual.unsqueeze(2)  # batch x token x query
    return ((behind >= 0) & (behind < window)).sum(dim=-1)


def _logits(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Scaled products with float32 keys, (batch, key-value heads, heads of each, rows, keys)."""
    batch, heads, count, size = queries.shape
    groups = keys.shape[1]
    queries = queries.float().reshape(batch, groups, heads // groups, count, size)
    return queries @ keys.unsqueeze(2).mT * scale

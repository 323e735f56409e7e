"""How important each visual token is to the image, whatever the question."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


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
        mean: ``"causal"``: attention over all keys under the causal mask, whose zeros stay in the
            mean over queries (released code); ``"attending-queries"``: divided by the number of
            queries that can see the token instead; ``"bidirectional"``: attention over visual keys
            only, unmasked (the paper's equation).

    Returns:
        Scores, float32, (batch, visual).
    """
    batch, heads, count, size = queries.shape
    groups = keys.shape[1]
    queries = queries.float().reshape(batch, groups, heads // groups, count, size)
    keys = keys.float().unsqueeze(2)  # batch x groups x 1 x length x size
    columns = visual[:, None, None, :, None]
    if mean == "bidirectional":
        keys = keys.gather(3, columns.expand(-1, groups, -1, -1, size))
        attention = (queries @ keys.mT * scale).softmax(dim=-1)
        return attention.mean(dim=(1, 2, 3))

    positions = torch.arange(keys.shape[3], device=keys.device)
    allowed = positions <= visual.unsqueeze(-1)  # batch x visual x length
    if key_mask is not None:
        allowed = allowed & key_mask[:, None, :]
    logits = (queries @ keys.mT * scale).masked_fill(~allowed[:, None, None], -torch.inf)
    attention = logits.softmax(dim=-1).mean(dim=(1, 2))  # batch x visual x length
    received = attention.gather(2, visual[:, None, :].expand(-1, count, -1)).sum(dim=1)
    if mean == "causal":
        return received / count
    return received / torch.arange(count, 0, -1, device=received.device)

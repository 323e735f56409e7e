"""ToMe's bipartite soft matching (ICLR 2023, arXiv 2210.09461, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruners.selection import gather_tokens, remaining_tokens


class Matching(NamedTuple):
    """Which tokens merge into which.

    Attributes:
        merged: Tokens that merge into another one, most similar pair first, (batch, count).
        into: For each, the token that it merges into, (batch, count).
        kept: The tokens left, rising, (batch, tokens - count).
    """

    merged: Tensor
    into: Tensor
    kept: Tensor


def match_tokens(keys: Tensor, count: int) -> Matching:
    """Pair tokens of two alternating sets by the cosine between their keys.

    Each token of the first set finds the most similar one of the second; the `count` most similar
    pairs merge. Of equals, the earlier token wins. As in the released code, where the CLS token has
    the first place of the first set, the second, fourth, ... patch is in the first set.

    Args:
        keys: What the tokens are compared by, in raster order, (batch, tokens, key width).
        count: Tokens to merge, at most half of them.

    Returns:
        The matching.
    """
    keys = normalize(keys.float(), dim=-1)
    similarity = keys[:, 1::2] @ keys[:, 0::2].mT
    # `argmax` takes the first of equals, where `max` may take any.
    partners = similarity.argmax(dim=-1)
    similarity = similarity.gather(-1, partners.unsqueeze(-1)).squeeze(-1)
    best = similarity.argsort(dim=-1, descending=True, stable=True)[:, :count]
    merged = 2 * best + 1
    return Matching(merged, 2 * partners.gather(1, best), remaining_tokens(merged, keys.shape[1]))


def merge_matched(tokens: Tensor, sizes: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Average matched tokens, weighted by size.

    Args:
        tokens: Token vectors, (batch, tokens, width).
        sizes: Patches in each token, (batch, tokens).
        matching: Which tokens merge into which.

    Returns:
        The tokens left, (batch, kept, width), of the dtype of `tokens`, and their sizes, float32,
        (batch, kept). They stay in order: each has the place of the token merged into. (The
        released code puts the first set before the second; without positions in attention, order
        has no effect in the tower.)
    """
    sizes = sizes.float()
    weighted = tokens.float() * sizes.unsqueeze(-1)
    sums = gather_tokens(_add_matched(weighted, matching), matching.kept)
    totals = gather_tokens(_add_matched(sizes.unsqueeze(-1), matching), matching.kept)
    return (sums / totals).to(tokens.dtype), totals.squeeze(-1)


def _add_matched(values: Tensor, matching: Matching) -> Tensor:
    """Add to each token, (batch, tokens, width), those that merge into it."""
    batch, tokens, width = values.shape
    # Tokens are numbered over the whole batch: adding rows is far faster than scattering elements.
    first = tokens * torch.arange(batch, device=values.device).unsqueeze(-1)
    added = gather_tokens(values, matching.merged).reshape(-1, width)
    rows = (matching.into + first).flatten()
    return values.reshape(-1, width).index_add(0, rows, added).view(batch, tokens, width)

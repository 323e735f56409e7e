"""What becomes of dropped tokens: merge rules as functions on tensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruners.selection import gather_tokens


def strided_references(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Split off references at a uniform stride, as VisionDrop's and VisionZip's released code does.

    Args:
        values: Values of the tokens that references are taken from, (batch, tokens, ...).
        count: References, from 1 to `tokens`.

    Returns:
        Values of the references, which are at the first `count` multiples of ``tokens // count``,
        (batch, count, ...), and of all others in order, (batch, tokens - count, ...).
    """
    batch, total, *rest = values.shape
    stride = total // count
    strides = values[:, : count * stride].reshape(batch, count, stride, *rest)
    others = [strides[:, :, 1:].flatten(1, 2), values[:, count * stride :]]
    return strides[:, :, 0], torch.cat(others, dim=1)


def merge_into_references(
    tokens: Tensor, keys: Tensor, count: int, combine: Literal["sum", "mean"]
) -> Tensor:
    """Merge tokens into strided references (VisionDrop's contextual tokens).

    Every token that is no reference joins the one whose key is most similar (cosine; the earlier
    of equal ones).

    Args:
        tokens: Vectors of the tokens that were not kept, in order, (batch, tokens, width).
        keys: What they are compared by, (batch, tokens, key width).
        count: Contextual tokens to make, from 1 to `tokens`.
        combine: ``"sum"``: reference plus the mean of its tokens (released code); ``"mean"``: mean
            of the reference and its tokens (paper). A reference that none joins stays as it is.

    Returns:
        Contextual tokens, (batch, count, width); see `strided_references` for where they are.
    """
    reference_keys, other_keys = strided_references(normalize(keys.float(), dim=-1), count)
    references, others = strided_references(tokens, count)
    joined = (other_keys @ reference_keys.mT).argmax(dim=-1)  # batch x others
    sums, sizes = sum_by_group(others, joined, count)
    centres = references.float()
    if combine == "sum":
        merged = centres + sums / sizes.clamp(min=1)
    else:
        merged = (centres + sums) / (sizes + 1)
    return merged.to(tokens.dtype)


def average_clusters(tokens: Tensor, kept: Tensor, dropped: Tensor) -> Tensor:
    """Average every kept token with the dropped ones that are most similar to it (DeSAP).

    Args:
        tokens: Vectors of all tokens, also what they are compared by (cosine; the earlier of equal
            ones), (batch, tokens, width).
        kept: Indices of the kept tokens, at least one, (batch, kept).
        dropped: Indices of the dropped ones, (batch, dropped).

    Returns:
        Plain means of the clusters, centre included, (batch, kept, width).
    """
    centres, others = gather_tokens(tokens, kept), gather_tokens(tokens, dropped)
    joined = _cosines(others, centres).argmax(dim=-1)
    sums, sizes = sum_by_group(others, joined, kept.shape[1])
    return ((centres.float() + sums) / (sizes + 1)).to(tokens.dtype)


def weigh_by_similarity(tokens: Tensor, kept: Tensor, dropped: Tensor) -> Tensor:
    """Average every kept token with the dropped ones most similar to it, weighed by similarity.

    The kept token weighs 1, a dropped one its cosine similarity to the kept one that it joins (the
    earlier of equal ones), or 0 where that is negative.

    Args:
        tokens: Vectors of all tokens, also what they are compared by, (batch, tokens, width).
        kept: Indices of the kept tokens, at least one, (batch, kept).
        dropped: Indices of the dropped ones, (batch, dropped).

    Returns:
        Weighted means, kept token included, (batch, kept, width).
    """
    centres, others = gather_tokens(tokens, kept), gather_tokens(tokens, dropped)
    similarity, joined = _cosines(others, centres).max(dim=-1)
    sums, weights = sum_by_group(others, joined, kept.shape[1], similarity.clamp(min=0))
    return ((centres.float() + sums) / (1 + weights)).to(tokens.dtype)


def average_by_size(
    tokens: Tensor, keys: Tensor, sizes: Tensor, kept: Tensor, dropped: Tensor
) -> tuple[Tensor, Tensor]:
    """Average every kept token with the dropped ones whose keys are most similar to its own (ToMe).

    Tokens weigh as many patches as are in them (arXiv 2210.09461, section 3). Which tokens are
    dropped is given here; ToMe itself finds them by the same matching.

    Args:
        tokens: Vectors of all tokens, (batch, tokens, width).
        keys: What they are compared by (cosine; the earlier of equal ones), (batch, tokens,
            key width).
        sizes: Patches in each token, above 0, (batch, tokens).
        kept: Indices of the kept tokens, at least one, (batch, kept).
        dropped: Indices of the dropped ones, (batch, dropped).

    Returns:
        Weighted means, kept token included, (batch, kept, width), and the patches in each, float32,
        (batch, kept).
    """
    sizes = sizes.float()
    centres, others = gather_tokens(tokens, kept), gather_tokens(tokens, dropped)
    own = sizes.gather(-1, kept).unsqueeze(-1)
    joined = _cosines(gather_tokens(keys, dropped), gather_tokens(keys, kept)).argmax(dim=-1)
    sums, joining = sum_by_group(others, joined, kept.shape[1], sizes.gather(-1, dropped))
    merged = (own * centres.float() + sums) / (own + joining)
    return merged.to(tokens.dtype), (own + joining).squeeze(-1)


def sum_by_group(
    tokens: Tensor, groups: Tensor, count: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum tokens by group.

    Args:
        tokens: Token vectors, (batch, tokens, width).
        groups: Number of the group of each token, (batch, tokens).
        count: Number of groups.
        weights: Weight of each token, (batch, tokens); 1 if None.

    Returns:
        Weighted sums, float32, (batch, count, width), and the sums of weights, float32, (batch,
        count, 1).
    """
    batch, _, width = tokens.shape
    if weights is None:
        weights = torch.ones_like(groups, dtype=torch.float32)
    # Groups are numbered over the whole batch: adding rows is a hundred times faster on a CPU than
    # scatter_add with an index per element.
    first = count * torch.arange(batch, device=groups.device).unsqueeze(-1)
    rows = (groups + first).flatten()
    weighted = tokens.float() * weights.unsqueeze(-1)
    sums = weighted.new_zeros(batch * count, width).index_add(0, rows, weighted.flatten(0, 1))
    totals = weighted.new_zeros(batch * count).index_add(0, rows, weights.flatten())
    return sums.view(batch, count, width), totals.view(batch, count, 1)


def _cosines(tokens: Tensor, others: Tensor) -> Tensor:
    """Cosine similarity of tokens to others, float32, (batch, tokens, others)."""
    return normalize(tokens.float(), dim=-1) @ normalize(others.float(), dim=-1).mT

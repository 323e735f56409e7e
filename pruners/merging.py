"""What becomes of dropped tokens: merge rules as functions on tensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruners.selection import gather_tokens


def reference_indices(tokens: int, count: int) -> range:
    """Place references at a uniform stride, as VisionDrop's and VisionZip's released code does.

    Args:
        tokens: Tokens that references are taken from.
        count: References, from 1 to `tokens`.

    Returns:
        The first `count` multiples of ``tokens // count``.
    """
    step = tokens // count
    return range(0, count * step, step)


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
        Contextual tokens, (batch, count, width).
    """
    total = tokens.shape[1]
    references = list(reference_indices(total, count))
    others = sorted(set(range(total)) - set(references))
    keys = normalize(keys.float(), dim=-1)
    joined = (keys[:, others] @ keys[:, references].mT).argmax(dim=-1)  # batch x others
    sums, sizes = _sum_by_group(tokens[:, others], joined, count)
    centres = tokens[:, references].float()
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
    similarity = normalize(others.float(), dim=-1) @ normalize(centres.float(), dim=-1).mT
    sums, sizes = _sum_by_group(others, similarity.argmax(dim=-1), kept.shape[1])
    return ((centres.float() + sums) / (sizes + 1)).to(tokens.dtype)


def _sum_by_group(tokens: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum tokens by group: (batch, count, width) and the group sizes (batch, count, 1), float32."""
    batch, _, width = tokens.shape
    # Groups are numbered over the whole batch: adding rows is a hundred times faster on a CPU than
    # scatter_add with an index per element.
    first = count * torch.arange(batch, device=groups.device).unsqueeze(-1)
    rows = (groups + first).flatten()
    sums = tokens.new_zeros(batch * count, width, dtype=torch.float32)
    sums = sums.index_add(0, rows, tokens.reshape(-1, width).float())
    sizes = tokens.new_zeros(batch * count, dtype=torch.float32)
    sizes = sizes.index_add(0, rows, torch.ones_like(rows, dtype=torch.float32))
    return sums.view(batch, count, width), sizes.view(batch, count, 1)

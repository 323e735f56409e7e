"""FlowCut's score and rate (NeurIPS 2025, arXiv 2505.19536), as its released code computes them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Flow(NamedTuple):
    """What one layer says of its patches.

    Attributes:
        relation: Attention of the CLS token, adding up to 1 over patches, (batch, patches).
        score: The layer's own score, (batch, patches).
    """

    relation: Tensor
    score: Tensor


def layer_flow(
    query: Tensor, keys: Tensor, values: Tensor, present: Tensor | None, scale: float
) -> Flow:
    """Score patches by the information that flows from them to the CLS token in one layer.

    With a the CLS token's attention and c the softmax of its value's products with all values
    (unscaled), both over all tokens, averaged over heads and normalised over patches, a patch
    scores (a + c) times the L1 norm of its head-mean value.

    Args:
        query: The CLS token's query, (batch, heads, 1, head size).
        keys: Keys, CLS token first, (batch, heads, 1 + patches, head size).
        values: Values, CLS token first, (batch, heads, 1 + patches, head size).
        present: True for patches, False for padding, (batch, patches); None without padding.
        scale: Factor on the products of queries and keys, ``head_size ** -0.5``.

    Returns:
        Relation and score, float32; both are 0 where `present` is False.
    """
    values = values.float()
    relation = _share_of_patches(query.float() @ keys.float().mT * scale, present)
    semantic = _share_of_patches(values[:, :, :1] @ values.mT, present)
    strength = values[:, :, 1:].mean(dim=1).abs().sum(dim=-1)
    return Flow(relation, (relation + semantic) * strength)


def accumulate_flow(accumulated: Tensor | None, score: Tensor, momentum: float) -> Tensor:
    """Add a layer's score to those of the layers before it.

    Args:
        accumulated: Accumulated score so far, (batch, patches); None at the first layer.
        score: The layer's own score, (batch, patches).
        momentum: Share of the accumulated score that stays; 0.5 in the released code.

    Returns:
        The accumulated score, (batch, patches).
    """
    if accumulated is None:
        return score
    return momentum * accumulated + (1 - momentum) * score


def tokens_to_drop(
    relation: Tensor, counts: list[int], alive: int, layers_left: int
) -> tuple[int, ...]:
    """Set each sample's rate by how uneven its CLS attention is.

    ``round((n - T) / sqrt(layers left) * (1 - (H / log n)²))`` with n patches, target T and
    entropy H of the relation: uniform attention drops nothing, attention to one patch the most.
    The released code takes the highest rate of the batch; here a batch equals its samples. The host
    waits for the entropies, unless the count is forced.

    Args:
        relation: Attention of the CLS token, adding up to 1 over patches, (batch, patches).
        counts: Patches of each sample now (n).
        alive: Patches to be left in the end (T), at least 1 and at most each n.
        layers_left: Layers until the count is forced; at 0 all that is above T is dropped.

    Returns:
        Patches to drop per sample, never more than n - T.
    """
    if layers_left == 0:
        return tuple(count - alive for count in counts)
    entropies: list[float] = torch.special.entr(relation).sum(dim=-1).tolist()
    dropped = []
    for entropy, count in zip(entropies, counts, strict=True):
        evenness = min(entropy / math.log(count), 1.0) if count > 1 else 1.0
        rate = (1 - evenness**2) / math.sqrt(layers_left)
        dropped.append(round((count - alive) * rate))
    return tuple(dropped)


def _share_of_patches(logits: Tensor, present: Tensor | None) -> Tensor:
    """Softmax over all tokens, mean over heads, normalised over patches: (batch, patches).

    In logarithms: the CLS token's own share can be so near 1 that those of the patches vanish.
    """
    if present is not None:
        padding = torch.nn.functional.pad(~present, (1, 0), value=False)
        logits = logits.masked_fill(padding[:, None, None], -math.inf)
    shares = logits.log_softmax(dim=-1)[:, :, 0, 1:]
    return shares.logsumexp(dim=1).softmax(dim=-1)

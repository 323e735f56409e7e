"""Applying a stage's merge rule to the tokens that it has not chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pruners.clustering import recycle_tokens
from pruners.merges import (
    BipartiteMatching,
    ClusterAverage,
    DensityPeaks,
    Merge,
    NearestReference,
    NoMerge,
    SimilarityWeighted,
)
from pruners.merging import (
    average_by_size,
    average_clusters,
    merge_into_references,
    strided_references,
    weigh_by_similarity,
)
from pruners.selection import gather_tokens, remaining_tokens
from pruners.sequence import Selection


def merge_dropped(
    merge: Merge,
    tokens: Tensor,
    chosen: Tensor,
    contextual: int,
    *,
    scores: Tensor,
    keys: Callable[[], Tensor],
    sizes: Tensor | None = None,
) -> Selection:
    """Make the tokens alive after a stage.

    Args:
        merge: The merge rule.
        tokens: Vectors before the stage, (batch, tokens, width).
        chosen: Indices of the dominant tokens, rising, (batch, dominant).
        contextual: Contextual tokens to make.
        scores: Scores of the tokens, (batch, tokens).
        keys: Keys of the tokens, (batch, tokens, key width); called if the rule compares them.
        sizes: Patches in each token, (batch, tokens); None for one each.

    Returns:
        Dominant tokens, then contextual ones.
    """
    plain = Selection(gather_tokens(tokens, chosen), chosen)
    if chosen.shape[1] == 0 and contextual == 0:
        return plain  # nothing is there to merge into
    dropped = remaining_tokens(chosen, tokens.shape[1])
    match merge:
        case NoMerge():
            return plain
        case ClusterAverage():
            return replace(plain, tokens=average_clusters(tokens, chosen, dropped))
        case SimilarityWeighted():
            return replace(plain, tokens=weigh_by_similarity(tokens, chosen, dropped))
        case BipartiteMatching():
            if sizes is None:
                sizes = torch.ones_like(scores, dtype=torch.float32)
            merged, grown = average_by_size(tokens, keys(), sizes, chosen, dropped)
            return replace(plain, tokens=merged, sizes=grown)
    if contextual == 0:
        return plain
    candidates = gather_tokens(tokens, dropped)
    match merge:
        case NearestReference(combine=combine):
            compared = gather_tokens(keys(), dropped)
            made = merge_into_references(candidates, compared, contextual, combine)
            references, _ = strided_references(dropped, contextual)
        case DensityPeaks(recycled=recycled):
            made, centres = recycle_tokens(
                candidates, scores.gather(1, dropped), contextual, recycled
            )
            references = dropped.gather(1, centres)
    return Selection(
        torch.cat([plain.tokens, made], dim=1),
        torch.cat([chosen, references], dim=1),
        contextual,
    )

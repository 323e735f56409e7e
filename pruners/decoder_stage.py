"""The stages before decoder layers: choosing and merging visual tokens inside the sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from pruners.attention_rows import DecoderLayer, decoder_queries_and_keys
from pruners.merges import ClusterAverage, NearestReference
from pruners.merging import average_clusters, merge_into_references, reference_indices
from pruners.saliency import visual_saliency
from pruners.schedule import StageCounts
from pruners.scorers import VisualSelfAttention
from pruners.selection import gather_tokens, remaining_tokens, top_tokens
from pruners.sequence import Layout, Selection
from pruners.stages import Stage


def run_decoder_stage(
    stage: Stage,
    counts: StageCounts,
    layer: DecoderLayer,
    hidden: Tensor,
    rotation: tuple[Tensor, Tensor],
    layout: Layout,
) -> Selection:
    """Choose and merge the visual tokens of a sequence.

    Args:
        stage: The stage, at a layer above 0.
        counts: Its token counts; fewer than are alive before it.
        layer: The decoder layer that the stage precedes; its queries and keys are scored.
        hidden: The layer's input, (batch, length, width).
        rotation: Cosines and sines at the sequence's positions, each (batch or 1, length, head
            size).
        layout: Where the visual tokens are.

    Returns:
        The tokens alive: dominant ones in sequence order, then contextual ones.
    """
    tokens = gather_tokens(hidden, layout.visual)
    if counts.alive == 0:
        return Selection(tokens[:, :0], layout.visual[:, :0])
    assert isinstance(stage.scorer, VisualSelfAttention)
    with torch.no_grad():
        queries, keys = decoder_queries_and_keys(layer, hidden, rotation, layout.visual)
        scores = visual_saliency(
            queries,
            keys,
            layout.visual,
            layout.mask,
            scale=layer.self_attn.scaling,
            mean=stage.scorer.mean,
        )
    chosen = top_tokens(scores, counts.dominant)
    dropped = remaining_tokens(chosen, tokens.shape[1])
    if isinstance(stage.merge, ClusterAverage):
        return Selection(average_clusters(tokens, chosen, dropped), chosen)
    kept = gather_tokens(tokens, chosen)
    if not isinstance(stage.merge, NearestReference) or counts.contextual == 0:
        return Selection(kept, chosen)
    # The released code compares rotated keys, averaged over heads.
    compared = gather_tokens(gather_tokens(keys.float().mean(dim=1), layout.visual), dropped)
    made = merge_into_references(
        gather_tokens(tokens, dropped), compared, counts.contextual, stage.merge.combine
    )
    references = dropped[:, list(reference_indices(dropped.shape[1], counts.contextual))]
    return Selection(
        torch.cat([kept, made], dim=1),
        torch.cat([chosen, references], dim=1),
        counts.contextual,
    )

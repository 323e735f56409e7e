"""The stages before decoder layers: choosing and merging visual tokens inside the sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pruners.attention_rows import LayerAttention
from pruners.choosing import choose_tokens
from pruners.counting import StageCounts
from pruners.merge_rules import merge_dropped
from pruners.saliency import key_norms, rater_mask, row_saliency, visual_saliency
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    LastTokenAttention,
    QuestionRelevance,
    Random,
    RaterAttention,
    ReadLayer,
    SimilarityFusion,
    Uniform,
    VisualSelfAttention,
)
from pruners.scores import Scores
from pruners.selection import gather_tokens, random_scores
from pruners.selectors import LocalWindows
from pruners.sequence import Layout, Selection
from pruners.stages import Stage
from pruners.windows import GridScores


@dataclass(frozen=True)
class DecoderReads:
    """What a decoder stage can read.

    Attributes:
        next: Attention of the layer that the stage precedes.
        previous: Attention of the layer before, over the same sequence; None unless it is read.
        compared: Returns the hidden states by which tokens are compared, (batch, length, width):
            the layer's input behind the decoder's last norm.
        rotation_from_zero: Returns the rotation at positions that count from 0 behind padding, each
            part (batch, length, head size): norms of rotated keys depend on where counting starts.
        patch_scores: Scores of the dense model's patches, for scorers that read the vision tower.
        raters: Which text tokens are raters, by dense position, (batch, dense length), or None.
    """

    next: LayerAttention
    previous: LayerAttention | None
    compared: Callable[[], Tensor]
    rotation_from_zero: Callable[[], tuple[Tensor, Tensor]]
    patch_scores: Scores | None
    raters: Tensor | None

    def layer(self, reads: ReadLayer) -> LayerAttention:
        """Return the layer that a scorer reads."""
        if reads == "next":
            return self.next
        assert self.previous is not None
        return self.previous

    def key_norms(self, reads: ReadLayer) -> Tensor:
        """Return the norms of a layer's keys, (batch, length)."""
        return key_norms(self.layer(reads).keys_rotated(self.rotation_from_zero()))


def run_decoder_stage(
    stage: Stage, counts: StageCounts, hidden: Tensor, layout: Layout, reads: DecoderReads
) -> Selection:
    """Choose and merge the visual tokens of a sequence.

    Args:
        stage: The stage, at a layer above 0.
        counts: Its token counts; fewer than are alive before it.
        hidden: Input of the layer that the stage precedes, (batch, length, width).
        layout: Where the visual tokens are.
        reads: What else the stage reads.

    Returns:
        The tokens alive: dominant ones in sequence order, then contextual ones.
    """
    tokens = gather_tokens(hidden, layout.visual)
    if counts.alive == 0:
        return Selection(tokens[:, :0], layout.visual[:, :0])
    with torch.no_grad():
        scores = _scores(stage, layout, reads)
        chosen = choose_tokens(
            stage.selector,
            scores,
            lambda: gather_tokens(reads.compared(), layout.visual),
            counts.dominant,
            local=_no_windows,
            text_pivots=partial(_text_pivots, reads, layout),
        )
    return merge_dropped(
        stage.merge,
        tokens,
        chosen,
        counts.contextual,
        scores=scores.first,
        keys=partial(_keys, stage, layout, reads),
        sizes=layout.sizes,
    )


def find_raters(layout: Layout, embeds: Tensor, length: int) -> Tensor:
    """Find SparseVLM's raters among the text tokens as they enter the decoder.

    Args:
        layout: The sequence.
        embeds: Its embeddings, (batch, present length, width).
        length: Length of the dense sequence.

    Returns:
        True for raters, by dense position, (batch, length).
    """
    text = layout.text
    visual = gather_tokens(embeds, layout.visual)
    raters = rater_mask(visual, gather_tokens(embeds, text), layout.is_question(text))
    nowhere = torch.zeros(len(embeds), length, dtype=torch.bool, device=embeds.device)
    # Padding that was added comes from nowhere, and is no rater.
    return nowhere.scatter(1, layout.source.gather(1, text).clamp(min=0), raters)


def _scores(stage: Stage, layout: Layout, reads: DecoderReads) -> Scores:
    scorer, visual = stage.scorer, layout.visual
    match scorer:
        case ClsAttention() | SimilarityFusion() | QuestionRelevance():
            assert reads.patch_scores is not None
            return reads.patch_scores.of_origin(layout.origin)
        case VisualSelfAttention(mean=mean):
            attention = reads.next
            queries = attention.queries(visual)
            return Scores(
                visual_saliency(
                    queries,
                    attention.keys,
                    visual,
                    layout.mask,
                    scale=attention.scale,
                    window=attention.window,
                    mean=mean,
                )
            )
        case LastTokenAttention(reads=which):
            rows = layout.last_token
            return Scores(_from_rows(reads.layer(which), layout, rows, torch.ones_like(rows)))
        case RaterAttention(reads=which):
            assert reads.raters is not None
            rows = layout.text
            raters = reads.raters.gather(1, layout.source.gather(1, rows).clamp(min=0))
            return Scores(_from_rows(reads.layer(which), layout, rows, raters))
        case KeyNorm(reads=which):
            return Scores(reads.key_norms(which).gather(1, visual))
        case Random(seed=seed):
            order = random_scores(layout.patches, seed, visual.device)
            return Scores(order.expand(visual.shape[0], -1)).of_origin(layout.origin)
        case Uniform():
            return Scores(torch.zeros_like(visual, dtype=torch.float32))
    raise AssertionError(f"no stage above layer 0 has scorer {scorer.kind!r}")


def _from_rows(attention: LayerAttention, layout: Layout, rows: Tensor, weights: Tensor) -> Tensor:
    return row_saliency(
        attention.queries(rows),
        attention.keys,
        layout.visual,
        rows,
        weights.float(),
        layout.mask,
        scale=attention.scale,
        window=attention.window,
    )


def _keys(stage: Stage, layout: Layout, reads: DecoderReads) -> Tensor:
    """Return what tokens are merged by: rotated keys, averaged over heads (released code).

    They are those of the layer whose keys the scorer has read, or the next one's.
    """
    scorer = stage.scorer
    match scorer:
        case LastTokenAttention() | RaterAttention() | KeyNorm():
            keys = reads.layer(scorer.reads).keys
        case VisualSelfAttention():
            keys = reads.next.keys
        case _:
            return reads.next.keys_of(layout.visual).float().mean(dim=1)
    return gather_tokens(keys.float().mean(dim=1), layout.visual)


def _text_pivots(reads: DecoderReads, layout: Layout, count: int) -> Tensor | None:
    """Find the tokens after the image with the highest key norms (DART).

    A prompt with fewer such tokens repeats them.
    """
    if count == 0:
        return None
    text = layout.text
    after = layout.is_question(text)
    norms = reads.key_norms("previous").gather(1, text)
    order = norms.masked_fill(~after, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    found = after.sum(dim=-1, keepdim=True).clamp(min=1)
    places = torch.arange(count, device=text.device).expand(text.shape[0], -1) % found
    return gather_tokens(reads.compared(), text.gather(1, order.gather(1, places)))


def _no_windows(selector: LocalWindows) -> GridScores:
    raise AssertionError(f"no stage above layer 0 has selector {selector.kind!r}")

"""What decoder stages compute for their scores, in FLOPs.

Counted are matrix products, at 2 FLOPs per multiply-accumulate, as the runtime in `pruners`
executes them: only the rows of attention that a score needs. Sorting, softmax and other elementwise
work is not counted, as in the model's own figures.
"""

from __future__ import annotations

from pruners.scorers import KeyNorm, LastTokenAttention, RaterAttention, VisualSelfAttention
from pruners.selectors import LeastDuplication
from pruners.shape import Shape
from pruners.stages import Stage
from space.working import WorkingStage

_OF_KEYS = (VisualSelfAttention, LastTokenAttention, RaterAttention, KeyNorm)
"""Scorers that read the keys of a decoder layer, which merge rules can then use."""

_OF_ROWS = (LastTokenAttention, RaterAttention)
"""Those that read attention of the layer before a boundary, whose keys are cached by then, or of
the one after it."""


def decoder_scoring_flops(working: WorkingStage, previous: int, shape: Shape) -> int:
    """Price the scores that a stage computes in the decoder.

    Queries are computed for the tokens whose attention is read, keys for the whole sequence; those
    of the layer before, as attention has them, are taken from the key-value cache of the prefill.
    (VisionDrop's released scorer also projects the other queries and all values, and uses neither;
    for its 64-token schedule that would add 1 % to the total.)

    Args:
        working: The stage, at a layer above 0.
        previous: Visual tokens alive before it.
        shape: Shape of the model.

    Returns:
        FLOPs; 0 for a stage that drops everything, which needs no score.
    """
    if working.alive == 0:
        return 0
    scorer, selector = working.stage.scorer, working.stage.selector
    query_size = shape.attention_heads * shape.head_size
    others = shape.newline_tokens + shape.text_tokens
    sequence = previous + others
    keys = 2 * sequence * shape.hidden_size * shape.key_value_heads * shape.head_size
    cached = shape.sliding_window is None or sequence < shape.sliding_window
    flops = keys if _computes_keys(working.stage, cached) else 0
    if isinstance(scorer, VisualSelfAttention):
        attended = previous if scorer.mean == "bidirectional" else sequence
        flops += _rows(previous, attended, query_size, shape)
    elif isinstance(scorer, LastTokenAttention):
        flops += _rows(1, sequence, query_size, shape)
    elif isinstance(scorer, RaterAttention):
        # Which of the text tokens are raters differs between samples: rows of all are computed.
        flops += _rows(others, sequence, query_size, shape)
    if isinstance(selector, LeastDuplication) and selector.text_pivots > 0:
        # Text pivots are chosen by norms of the keys of the layer before, rotated anew: cached ones
        # are no use.
        computing = (KeyNorm,) if cached else (KeyNorm, *_OF_ROWS)
        known = isinstance(scorer, computing) and scorer.reads == "previous"
        flops += 0 if known else keys
    return flops


def rater_choice_flops(visual_tokens: int, shape: Shape) -> int:
    """Price the choice of the rater tokens, once per schedule.

    Args:
        visual_tokens: Visual tokens that enter the decoder.
        shape: Shape of the model.

    Returns:
        FLOPs of the products between visual tokens and all others.
    """
    return 2 * visual_tokens * (shape.newline_tokens + shape.text_tokens) * shape.hidden_size


def reads_keys(stage: Stage) -> bool:
    """Whether a decoder stage's scorer reads a layer's keys, which merge rules can then use."""
    return isinstance(stage.scorer, _OF_KEYS)


def _computes_keys(stage: Stage, cached: bool) -> bool:
    """Whether a decoder stage's scorer computes keys: those that it reads are not in the cache.

    Args:
        stage: The stage.
        cached: Whether the cache holds the whole sequence, which that of a sliding window does not.
    """
    known = cached and isinstance(stage.scorer, _OF_ROWS) and stage.scorer.reads == "previous"
    return reads_keys(stage) and not known


def _rows(rows: int, attended: int, query_size: int, shape: Shape) -> int:
    """Queries of some tokens and their products with the keys that they attend to."""
    return 2 * rows * query_size * (shape.hidden_size + attended)

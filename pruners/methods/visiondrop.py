"""VisionDrop (AAAI 2026, arXiv 2506.22283)."""

from __future__ import annotations

from collections.abc import Sequence

from pruners.merges import NearestReference
from pruners.methods.base import Method, at_depth, encoder_saliency, with_mean
from pruners.schedule import Schedule
from pruners.scorers import VisualSelfAttention
from pruners.shape import Shape
from pruners.stages import Stage

BOUNDARIES = (8, 16, 24)
"""Boundaries in a decoder of 32 layers (released code)."""

FIRST_STAGE = 1.5
"""The encoder stage keeps 1.5 times the mean number of tokens (paper)."""

DECAY = 0.7336
"""Ratio between stages; solves 1 + r + r^2 + r^3 = 8/3, so that the mean is met."""

PROPORTIONS = tuple(DECAY**index for index in range(4))
"""Tokens of each stage relative to the first."""

CONTEXTUAL = 0.125
"""Contextual share; its counts rounded up are those of the released scripts."""


def visiondrop(tokens: int, shape: Shape) -> Schedule:
    """Make VisionDrop's schedule, with the options of its released code.

    The scripts are released for 32 tokens; the rule that gives back their counts, and the paper's
    "first stage 1.5 times the mean", give the others: k_i = round(1.5 T r^i). Where that is more
    tokens than there are, later stages keep more, so that the mean is met (`with_mean`). Without a
    CLS token the first stage averages the attention of all patches (paper).

    Args:
        tokens: Mean number of tokens over layers; the papers report 192, 128, 64 and 32.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    kept = [max(round(FIRST_STAGE * tokens * DECAY**index), 1) for index in range(4)]
    if kept[0] > shape.visual_tokens:
        return with_mean(Schedule(stages=_stages(PROPORTIONS, shape)), tokens, shape)
    stages = _stages([count / shape.visual_tokens for count in kept], shape)
    return Schedule(stages=at_depth(stages, shape), shape=shape)


def _stages(shares: Sequence[float], shape: Shape) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            layer=layer,
            retention=share,
            contextual=CONTEXTUAL,
            scorer=VisualSelfAttention() if layer > 0 else encoder_saliency(shape, keep_cls=True),
            merge=NearestReference(),
        )
        for layer, share in zip((0, *BOUNDARIES), shares, strict=True)
    )


METHOD = Method("visiondrop", "VisionDrop", "AAAI 2026, arXiv 2506.22283", visiondrop)

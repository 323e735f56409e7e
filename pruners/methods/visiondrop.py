"""VisionDrop (AAAI 2026, arXiv 2506.22283)."""

from __future__ import annotations

from pruners.merges import NearestReference
from pruners.methods.base import Method, layer_at
from pruners.schedule import Schedule
from pruners.scorers import ClsAttention, Scorer, VisualSelfAttention
from pruners.shape import Shape
from pruners.stages import Stage

BOUNDARIES = (8, 16, 24)
"""Boundaries in a decoder of 32 layers (released code)."""

FIRST_STAGE = 1.5
"""The encoder stage keeps 1.5 times the mean number of tokens (paper)."""

DECAY = 0.7336
"""Ratio between stages; solves 1 + r + r^2 + r^3 = 8/3, so that the mean is met."""

CONTEXTUAL = 0.125
"""Contextual share; its counts rounded up are those of the released scripts."""


def visiondrop(tokens: int, shape: Shape) -> Schedule:
    """Make VisionDrop's schedule, with the options of its released code.

    The scripts are released for 32 tokens; the rule that gives back their counts, and the paper's
    "first stage 1.5 times the mean", give the others: k_i = round(1.5 T r^i).

    Args:
        tokens: Mean number of tokens over layers; the papers report 192, 128, 64 and 32.
        shape: The model's shape.

    Returns:
        The schedule.
    """

    def stage(index: int, layer: int, scorer: Scorer) -> Stage:
        kept = round(FIRST_STAGE * tokens * DECAY**index)
        return Stage(
            layer=layer,
            retention=min(1.0, max(kept, 1) / shape.visual_tokens),
            contextual=CONTEXTUAL,
            scorer=scorer,
            merge=NearestReference(),
        )

    decoder = [
        stage(index, layer_at(layer, shape), VisualSelfAttention())
        for index, layer in enumerate(BOUNDARIES, start=1)
    ]
    return Schedule(stages=(stage(0, 0, ClsAttention()), *decoder), shape=shape)


METHOD = Method("visiondrop", "VisionDrop", "AAAI 2026, arXiv 2506.22283", visiondrop)

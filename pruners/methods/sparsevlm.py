"""SparseVLM (ICML 2025, arXiv 2410.04417)."""

from __future__ import annotations

from pruners.merges import DensityPeaks
from pruners.methods.base import Method, at_depth, with_mean
from pruners.schedule import Schedule
from pruners.scorers import RaterAttention
from pruners.shape import Shape
from pruners.stages import Stage

BOUNDARIES = (3, 7, 16)
"""Tokens leave after layers 2, 6 and 15 of 32 (released code)."""

TOKENS = 576
"""Visual tokens of the model that the tables are for."""

KEPT = {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)}
"""Tokens kept at each boundary, before recycling, by the name of the setting (released code)."""

RECYCLED = 0.3
"""Share of the dropped tokens that is recycled (released code)."""

PER_CLUSTER = 10
"""Recycled tokens per cluster (released code)."""


def sparsevlm(tokens: int, shape: Shape) -> Schedule:
    """Make SparseVLM's schedule: three drops by what the rater tokens attend to, with recycling.

    The released code (version 1) replaces the paper's adaptive rank rule by tables of kept tokens
    and adds int(r / 10) + 1 clusters of the r = int(0.3 dropped) + 1 best dropped ones. The names
    of its settings are a mean over layers that counts neither clusters nor layer 2: with both,
    "192" is 207.

    Args:
        tokens: A setting of the tables (192, 128, 96 or 64), where the model has 576 visual
            tokens; otherwise the mean over layers, to which the nearest setting is scaled.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    setting = min(KEPT, key=lambda name: abs(name - tokens * TOKENS / shape.visual_tokens))
    stages = tuple(
        Stage(
            layer=layer,
            retention=(kept + clusters) / TOKENS,
            contextual=clusters / (kept + clusters),
            scorer=RaterAttention(),
            merge=DensityPeaks(recycled=RECYCLED),
        )
        for layer, (kept, clusters) in zip(BOUNDARIES, _counts(KEPT[setting]), strict=True)
    )
    if tokens == setting and shape.visual_tokens == TOKENS:
        return Schedule(stages=at_depth(stages, shape), shape=shape)
    return with_mean(Schedule(stages=stages), tokens, shape)


def _counts(kept: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return kept tokens and clusters at each boundary."""
    counts, alive = [], TOKENS
    for count in kept:
        recycled = int(RECYCLED * (alive - count)) + 1
        clusters = recycled // PER_CLUSTER + 1
        counts.append((count, clusters))
        alive = count + clusters
    return counts


METHOD = Method("sparsevlm", "SparseVLM", "ICML 2025, arXiv 2410.04417", sparsevlm)

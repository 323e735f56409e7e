"""FastV (ECCV 2024, arXiv 2403.06764)."""

from __future__ import annotations

from pruners.methods.base import Method, with_mean
from pruners.schedule import Schedule
from pruners.scorers import LastTokenAttention
from pruners.shape import Shape
from pruners.stages import Stage

BOUNDARY = 2
"""K: layers before the drop, of 32 (paper: K = 2)."""

RETENTION = 0.5
"""1 - R (paper: R = 50 %)."""


def fastv(tokens: int, shape: Shape) -> Schedule:
    """Make FastV's schedule: one drop before layer 2, by the last token's attention in layer 1.

    Attention of the layer before the boundary, original positions and no merging are those of the
    released code (whose text says mean attention, where its code reads the last token).

    Args:
        tokens: Mean number of tokens over layers; with 576 at layers 0 and 1, comparisons at 192,
            128 and 64 keep 166, 98 and 30.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(layer=BOUNDARY, retention=RETENTION, scorer=LastTokenAttention(reads="previous"))
    return with_mean(Schedule(stages=(stage,), positions="original"), tokens, shape)


METHOD = Method("fastv", "FastV", "ECCV 2024, arXiv 2403.06764", fastv)

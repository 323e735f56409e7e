"""DART (EMNLP 2025, arXiv 2502.11494)."""

from __future__ import annotations

from pruners.methods.base import Method, with_mean
from pruners.schedule import Schedule
from pruners.scorers import KeyNorm
from pruners.selectors import LeastDuplication
from pruners.shape import Shape
from pruners.stages import Stage

BOUNDARY = 2
"""Layers before the drop, of 32 (released script)."""

RETENTION = 128 / 576
"""The released script's setting: a reduction by 0.778, to 128 tokens."""


def dart(tokens: int, shape: Shape) -> Schedule:
    """Make DART's schedule: before layer 2, the tokens least similar to a few pivots are kept.

    Four image and four text pivots are those with the highest L1 norm of their layer-1 keys;
    positions are the original ones (released code). The code goes through pivots in the order of a
    Python set and keeps up to 4 tokens more than asked for; here image pivots come first, by
    falling norm, and the count is exact, pivots included.

    Args:
        tokens: Mean number of tokens over layers.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(
        layer=BOUNDARY, retention=RETENTION, scorer=KeyNorm(), selector=LeastDuplication()
    )
    return with_mean(Schedule(stages=(stage,), positions="original"), tokens, shape)


METHOD = Method("dart", "DART", "EMNLP 2025, arXiv 2502.11494", dart)

"""PyramidDrop (CVPR 2025, arXiv 2410.17247)."""

from __future__ import annotations

from pruners.methods.base import Method, with_mean
from pruners.schedule import Schedule
from pruners.scorers import LastTokenAttention
from pruners.shape import Shape
from pruners.stages import Stage

STAGES = {8: 0.5, 16: 0.25, 24: 0.125}
"""Retention by boundary, of 32 layers (released script; 288, 144 and 72 of 576, mean 270)."""


def pyramiddrop(tokens: int, shape: Shape) -> Schedule:
    """Make PyramidDrop's schedule: half of the tokens go at three equally spaced layers.

    The score is what the last instruction token attends to in the layer after the boundary;
    positions are compacted and nothing is merged (released code).

    Args:
        tokens: Mean number of tokens over layers; 270 is the default of the released script. Below
            about a quarter of the dense count the boundaries move earlier, see `with_mean`.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stages = tuple(
        Stage(layer=layer, retention=retention, scorer=LastTokenAttention(reads="next"))
        for layer, retention in STAGES.items()
    )
    return with_mean(Schedule(stages=stages), tokens, shape)


METHOD = Method("pyramiddrop", "PyramidDrop", "CVPR 2025, arXiv 2410.17247", pyramiddrop)

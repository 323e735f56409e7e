"""What choosing tokens costs beyond their scores, in FLOPs: similarities between tokens."""

from __future__ import annotations

from pruners.selectors import (
    Deduplicated,
    Determinantal,
    LocalWindows,
    MaxMinDistance,
    TopScores,
)
from pruners.shape import Shape
from pruners.stages import Stage
from space.tiles import equal_tiles
from space.working import WorkingStage

_BY_SCORES = (TopScores, LocalWindows)
"""Selectors that look at scores alone."""


def selecting_flops(working: WorkingStage, previous: int, shape: Shape) -> int:
    """Price the similarities by which a stage's selector chooses.

    Args:
        working: The stage.
        previous: Visual tokens alive before it.
        shape: Shape of the model.

    Returns:
        FLOPs over all tiles.
    """
    selector = working.stage.selector
    if isinstance(selector, _BY_SCORES):
        return 0
    tiles = equal_tiles(working.stage, shape)
    tokens, chosen = previous / tiles, working.chosen(shape.tiles) / tiles
    if chosen <= 0:
        return 0
    width = compared_width(working.stage, shape)
    if isinstance(selector, MaxMinDistance):
        return round(tiles * 2 * tokens**2 * width)
    if isinstance(selector, Determinantal):
        # The kernel, and each choice's products with those before it (Chen et al. 2018).
        return round(tiles * (2 * tokens**2 * width + tokens * chosen * (chosen - 1)))
    if isinstance(selector, Deduplicated):
        others = tokens - int(selector.share * chosen)
        return round(tiles * 2 * others**2 * width)
    # Least duplication: every token against every pivot.
    pivots = min(selector.image_pivots, chosen) + min(selector.text_pivots, shape.text_tokens)
    return round(tiles * 2 * pivots * tokens * width)


def compared_width(stage: Stage, shape: Shape) -> int:
    """Return the width of the token vectors that a stage compares and merges.

    Args:
        stage: The stage.
        shape: Shape of the model.

    Returns:
        The vision tower's width for vision features at layer 0, else the decoder's; families whose
        projector comes first compare what it makes.
    """
    if stage.layer == 0 and stage.features == "vision" and shape.prunes_before_projector:
        return shape.vision.hidden_size
    return shape.hidden_size

"""VisPruner (ICCV 2025, arXiv 2412.01818)."""

from __future__ import annotations

from pruners.methods.base import Method, encoder_only, encoder_saliency
from pruners.schedule import Schedule
from pruners.selectors import Deduplicated
from pruners.shape import Shape
from pruners.stages import Stage


def vispruner(tokens: int, shape: Shape) -> Schedule:
    """Make VisPruner's schedule: half important tokens, half diverse ones, nothing merged.

    Importance is CLS attention at the layer that feeds the projector; half is the argument of the
    released scripts (its README also shows 0.75), 8 tokens at a time that of its code.

    Args:
        tokens: Tokens to keep.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(
        layer=0,
        retention=1.0,
        scorer=encoder_saliency(shape, keep_cls=False),
        selector=Deduplicated(),
    )
    return encoder_only(stage, tokens, shape)


METHOD = Method("vispruner", "VisPruner", "ICCV 2025, arXiv 2412.01818", vispruner)

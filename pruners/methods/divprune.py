"""DivPrune (CVPR 2025, arXiv 2503.02175)."""

from __future__ import annotations

from pruners.methods.base import Method, encoder_only
from pruners.schedule import Schedule
from pruners.scorers import Uniform
from pruners.selectors import MaxMinDistance
from pruners.shape import Shape
from pruners.stages import Stage


def divprune(tokens: int, shape: Shape) -> Schedule:
    """Make DivPrune's schedule: projected features as far from each other as can be.

    Distances are cosine distances, the set grows greedily (released code, LLaVA at layer 0). There
    is nothing to set.

    Args:
        tokens: Tokens to keep; the paper reports 9.8 % of 576.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(
        layer=0,
        retention=1.0,
        scorer=Uniform(),
        selector=MaxMinDistance(),
        features="projected",
    )
    return encoder_only(stage, tokens, shape)


METHOD = Method("divprune", "DivPrune", "CVPR 2025, arXiv 2503.02175", divprune)

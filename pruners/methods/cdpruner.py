"""CDPruner (NeurIPS 2025, arXiv 2506.10967)."""

from __future__ import annotations

from pruners.methods.base import PAPER_TEXT_TOWER, Method, Needs, encoder_only
from pruners.schedule import Schedule
from pruners.scorers import QuestionRelevance
from pruners.selectors import Determinantal
from pruners.shape import Shape
from pruners.stages import Stage


def cdpruner(tokens: int, shape: Shape) -> Schedule:
    """Make CDPruner's schedule: the most probable set of a determinantal point process.

    Relevance to the question is taken negative, as in the released code, and similarities are those
    of projected features. There is nothing to set.

    Args:
        tokens: Tokens to keep.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(
        layer=0,
        retention=1.0,
        scorer=QuestionRelevance(text_tower=PAPER_TEXT_TOWER),
        selector=Determinantal(),
        features="projected",
    )
    return encoder_only(stage, tokens, shape)


METHOD = Method(
    "cdpruner",
    "CDPruner",
    "NeurIPS 2025, arXiv 2506.10967",
    cdpruner,
    needs=Needs.PAIRED_TEXT_TOWER,
    instead="divprune",
)

"""ToMe, token merging (ICLR 2023, arXiv 2210.09461)."""

from __future__ import annotations

from pruners.merges import BipartiteMatching
from pruners.methods.base import Method, Needs, encoder_only
from pruners.schedule import Schedule
from pruners.scorers import TokenMatching
from pruners.shape import Shape
from pruners.stages import Stage


def tome(tokens: int, shape: Shape) -> Schedule:
    """Make ToMe's schedule: the same number of tokens merges in every layer of the vision tower.

    Alternating sets, keys as the measure, size-weighted averages and proportional attention are
    those of the paper (its section 3 and table 1) and released code.

    Args:
        tokens: Tokens that leave the tower.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(layer=0, retention=1.0, scorer=TokenMatching(), merge=BipartiteMatching())
    return encoder_only(stage, tokens, shape)


METHOD = Method(
    "tome",
    "ToMe",
    "ICLR 2023, arXiv 2210.09461",
    tome,
    needs=Needs.OPEN_TOWER,
    instead="visionzip",
)

"""The counting rule: how shares of tokens become numbers of tokens, everywhere."""

from __future__ import annotations

import math
from typing import NamedTuple


class StageCounts(NamedTuple):
    """Tokens alive after one stage: `alive` = `dominant` + `contextual`."""

    layer: int
    alive: int
    dominant: int
    contextual: int


def alive_tokens(retention: float, visual_tokens: int) -> int:
    """Turn a retention into a count, by the one rule that holds everywhere.

    Args:
        retention: Share of the dense model's visual tokens, in [0, 1].
        visual_tokens: Visual tokens of the dense model.

    Returns:
        ``retention * visual_tokens`` rounded half up, and at least 1 unless retention is 0.
    """
    if retention == 0:
        return 0
    return max(1, math.floor(retention * visual_tokens + 0.5))


def contextual_tokens(contextual: float, alive: int) -> int:
    """Turn a contextual share into a count, by the one rule that holds everywhere.

    Args:
        contextual: Share of the alive tokens that are contextual, in [0, 1).
        alive: Tokens alive after the stage.

    Returns:
        ``contextual * alive`` rounded up (a share of 1/8 gives back VisionDrop's released counts),
        leaving at least one dominant token.
    """
    # The subtraction keeps shares such as 9/70 from being rounded up past their own numerator.
    return max(0, min(math.ceil(contextual * alive - 1e-9), alive - 1))


def grid_tokens(tokens: int) -> int:
    """Return the patches of the largest grid that is as square as can be, h x h or h x (h + 1).

    Args:
        tokens: Most patches, at least 1.

    Returns:
        Patches of the grid.
    """
    height = math.isqrt(tokens)
    return height * (height + 1) if height * (height + 1) <= tokens else height * height


def split_budget(count: int, weight: float) -> tuple[int, int]:
    """Split a stage's tokens between two scores (DeSAP, section 4.3).

    Args:
        count: Tokens to choose in total.
        weight: Similarity weight: the first score's share, in [0, 1].

    Returns:
        Tokens of the first score, ``weight * count`` rounded half up, and of the second, the rest.
    """
    first = math.floor(weight * count + 0.5)
    return first, count - first

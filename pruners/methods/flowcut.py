"""FlowCut (NeurIPS 2025, arXiv 2505.19536)."""

from __future__ import annotations

from pruners.methods.base import Method, Needs, encoder_only
from pruners.schedule import Schedule
from pruners.scorers import InformationFlow
from pruners.shape import Shape
from pruners.stages import Stage


def flowcut(tokens: int, shape: Shape) -> Schedule:
    """Make FlowCut's schedule: tokens leave inside the vision tower, at a rate set by entropy.

    Score, rate and the layers at which tokens leave are those of the released code for LLaVA-1.5.

    Args:
        tokens: Tokens that leave the tower; the paper reports 192, 128 and 64.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    return encoder_only(Stage(layer=0, retention=1.0, scorer=InformationFlow()), tokens, shape)


METHOD = Method(
    "flowcut",
    "FlowCut",
    "NeurIPS 2025, arXiv 2505.19536",
    flowcut,
    needs=Needs.OPEN_TOWER,
    instead="visionzip",
)

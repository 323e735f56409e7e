"""DeSAP (arXiv 2604.11240)."""

from __future__ import annotations

from pruners.merges import ClusterAverage
from pruners.methods.base import PAPER_TEXT_TOWER, Method, Needs, encoder_only
from pruners.schedule import Schedule
from pruners.scorers import SimilarityFusion
from pruners.shape import Shape
from pruners.stages import Stage


def desap(tokens: int, shape: Shape) -> Schedule:
    """Make DeSAP's schedule: one encoder stage, half similarity and half saliency (table 4a).

    Args:
        tokens: Tokens to keep; the paper reports 192, 128 and 64.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(
        layer=0,
        retention=1.0,
        scorer=SimilarityFusion(text_tower=PAPER_TEXT_TOWER),
        merge=ClusterAverage(),
    )
    return encoder_only(stage, tokens, shape)


METHOD = Method(
    "desap", "DeSAP", "arXiv 2604.11240", desap, needs=Needs.PAIRED_TEXT_TOWER, instead="visiondrop"
)

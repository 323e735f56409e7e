"""VisionZip (CVPR 2025, arXiv 2412.04467)."""

from __future__ import annotations

from pruners.merges import NearestReference
from pruners.methods.base import Method, encoder_only, encoder_saliency
from pruners.schedule import Schedule
from pruners.shape import Shape
from pruners.stages import Stage

CONTEXTUAL = 10 / 64
"""Contextual share: 54 dominant and 10 contextual tokens make 64 (released script)."""


def visionzip(tokens: int, shape: Shape) -> Schedule:
    """Make VisionZip's schedule: CLS attention in the encoder, the rest in contextual tokens.

    The CLS token is one of the dominant tokens; contextual ones are strided references plus the
    mean of the tokens that are nearest to them by key (released code). 54 + 10 = 64 is in its
    README; 108 + 20 and 162 + 30 follow from the same ratio.

    Args:
        tokens: Tokens to keep; the paper reports 192, 128 and 64.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    stage = Stage(
        layer=0,
        retention=1.0,
        contextual=CONTEXTUAL,
        scorer=encoder_saliency(shape, keep_cls=True),
        merge=NearestReference(),
    )
    return encoder_only(stage, tokens, shape)


METHOD = Method("visionzip", "VisionZip", "CVPR 2025, arXiv 2412.04467", visionzip)

"""VScan (TMLR 2026, arXiv 2505.22654)."""

from __future__ import annotations

from pruners.merges import ClusterAverage
from pruners.methods.base import Method, Needs, encoder_saliency, with_mean
from pruners.schedule import Schedule
from pruners.scorers import LastTokenAttention
from pruners.selectors import LocalWindows
from pruners.shape import Shape
from pruners.stages import Stage

ENCODER_TOKENS, DECODER_TOKENS, TOKENS = 96, 32, 576
"""Tokens after the encoder and after the decoder's drop, of 576; mean 64 (released script)."""

BOUNDARY = 16
"""Layers before the decoder's drop, of 32 (released script)."""


def vscan(tokens: int, shape: Shape) -> Schedule:
    """Make VScan's schedule: windows and CLS attention in the encoder, one drop in the decoder.

    Half of the encoder's tokens are the best of 16 windows by CLS attention of vision layer 5, half
    the best of all at the layer that feeds the projector; dropped ones are averaged into the
    nearest kept one, on projected features. The decoder's drop is PyramidDrop's (released code).

    Args:
        tokens: Mean number of tokens over layers; the released script has 96 and then 32 for 64.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    encoder = Stage(
        layer=0,
        retention=ENCODER_TOKENS / TOKENS,
        scorer=encoder_saliency(shape, keep_cls=False),
        selector=LocalWindows(),
        features="projected",
        merge=ClusterAverage(),
    )
    decoder = Stage(
        layer=BOUNDARY, retention=DECODER_TOKENS / TOKENS, scorer=LastTokenAttention(reads="next")
    )
    return with_mean(Schedule(stages=(encoder, decoder)), tokens, shape)


METHOD = Method(
    "vscan",
    "VScan",
    "TMLR 2026, arXiv 2505.22654",
    vscan,
    needs=Needs.CLASS_TOKEN,
    instead="visiondrop",
)

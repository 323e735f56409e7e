"""Published pruning methods as schedules."""

from __future__ import annotations

from collections.abc import Callable

from pruners.errors import ScheduleError
from pruners.schedule import Provenance, Schedule
from pruners.shape import LLAVA_1_5_7B, Shape
from pruners.stages import (
    ClsAttention,
    ClusterAverage,
    NearestReference,
    Scorer,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
)

PAPER_TEXT_TOWER = "openai/clip-vit-large-patch14-336"
"""Hub name of the CLIP checkpoint that LLaVA-1.5's vision tower comes from."""

VISIONDROP_DEPTHS = (0.25, 0.5, 0.75)
"""Relative depth of VisionDrop's decoder boundaries: layers 8, 16 and 24 of 32."""

VISIONDROP_FIRST_STAGE = 1.5
"""VisionDrop keeps 1.5 times the mean number of tokens after the encoder."""

VISIONDROP_DECAY = 0.7336
"""Ratio between VisionDrop's stages; solves 1 + r + r^2 + r^3 = 8/3, so that the mean is met."""

VISIONDROP_CONTEXTUAL = 0.125
"""Contextual share; its counts rounded up are those of VisionDrop's released scripts."""


def dense(shape: Shape | None = None) -> Schedule:
    """Return the schedule that prunes nothing.

    Args:
        shape: The model's shape; LLaVA-1.5-7B by default.

    Returns:
        A schedule without stages.
    """
    return Schedule(shape=shape or LLAVA_1_5_7B, provenance=Provenance(origin="dense"))


def published(name: str, tokens: int | None = None, shape: Shape | None = None) -> Schedule:
    """Return a published method as a schedule.

    Args:
        name: ``"visiondrop"``, ``"desap"`` or ``"dense"``.
        tokens: Visual tokens, as a mean over decoder layers. The papers report 192, 128 and 64,
            VisionDrop also 32; any count that leaves each stage a token is accepted. Not used by
            ``"dense"``.
        shape: The shape whose depth and number of visual tokens the schedule is made for;
            LLaVA-1.5-7B by default.

    Returns:
        The schedule, not priced.

    Raises:
        ScheduleError: The name is unknown, or the number of tokens is missing or out of range.
    """
    shape = shape or LLAVA_1_5_7B
    if name == "dense":
        return dense(shape)
    if name not in _METHODS:
        known = ", ".join(sorted([*_METHODS, "dense"]))
        raise ScheduleError(f"no published method is called {name!r}; known are: {known}")
    if tokens is None:
        raise ScheduleError(f"published({name!r}) needs tokens, the mean over decoder layers")
    if not 0 < tokens <= shape.visual_tokens:
        raise ScheduleError(
            f"tokens is {tokens}, but {shape.name} has between 1 and {shape.visual_tokens}"
        )
    schedule = _METHODS[name](tokens, shape)
    return schedule.model_copy(
        update={"provenance": Provenance(origin=f"published: {name}, {tokens} tokens")}
    )


def _visiondrop(tokens: int, shape: Shape) -> Schedule:
    """VisionDrop (arXiv 2506.22283) with the options of its released code.

    The scripts are released for 32 tokens; the rule that gives back their counts, and the paper's
    "first stage 1.5 times the mean", give the others: k_i = round(1.5 T r^i).
    """
    dense_tokens = shape.visual_tokens

    def stage(index: int, layer: int, scorer: Scorer) -> Stage:
        kept = round(VISIONDROP_FIRST_STAGE * tokens * VISIONDROP_DECAY**index)
        return Stage(
            layer=layer,
            retention=min(1.0, max(kept, 1) / dense_tokens),
            contextual=VISIONDROP_CONTEXTUAL,
            scorer=scorer,
            merge=NearestReference(),
        )

    layers = [round(depth * shape.decoder_layers) for depth in VISIONDROP_DEPTHS]
    decoder = [stage(i, layer, VisualSelfAttention()) for i, layer in enumerate(layers, start=1)]
    return Schedule(stages=(stage(0, 0, ClsAttention()), *decoder), shape=shape)


def _desap(tokens: int, shape: Shape) -> Schedule:
    """DeSAP (arXiv 2604.11240): one encoder stage, half similarity and half saliency (table 4a)."""
    stage = Stage(
        layer=0,
        retention=tokens / shape.visual_tokens,
        scorer=SimilarityFusion(text_tower=PAPER_TEXT_TOWER),
        merge=ClusterAverage(),
    )
    return Schedule(stages=(stage,), shape=shape)


_METHODS: dict[str, Callable[[int, Shape], Schedule]] = {
    "desap": _desap,
    "visiondrop": _visiondrop,
}

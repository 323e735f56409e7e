"""What published methods have in common: their record, and schedules for any mean token count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from pruners.errors import ScheduleError
from pruners.schedule import Schedule
from pruners.scorers import ClsAttention, VisualSelfAttention
from pruners.shape import Shape
from pruners.stages import Stage

PAPER_TEXT_TOWER = "openai/clip-vit-large-patch14-336"
"""Hub name of the CLIP checkpoint that LLaVA-1.5's vision tower comes from."""

PAPER_LAYERS = 32
"""Decoder layers of the models in the papers; boundaries keep their relative depth elsewhere."""

STEPS = 256
"""Steps per unit in which boundaries are moved earlier."""


LEAST_FIRST_STAGE = 0.4
"""Least share of the mean that a first stage in the decoder keeps before boundaries move.

The papers go down to 30 tokens at a mean of 64 (FastV in the comparisons at 64), which is 0.47.
"""


class Needs(Enum):
    """What a method needs of a model beside visual tokens and a decoder."""

    NOTHING = "nothing"
    CLASS_TOKEN = "a vision tower with a CLS token"
    PAIRED_TEXT_TOWER = "a CLIP vision tower, whose paired text tower reads the question"
    OPEN_TOWER = "a vision tower inside which tokens can leave, which is LLaVA-1.5's CLIP tower"

    def met_by(self, shape: Shape) -> bool:
        """Whether a shape has it.

        Args:
            shape: The model's shape.
        """
        match self:
            case Needs.NOTHING:
                return True
            case Needs.CLASS_TOKEN:
                return shape.vision.class_token
            case Needs.PAIRED_TEXT_TOWER:
                return shape.has_paired_text_tower
            case Needs.OPEN_TOWER:
                return shape.family == "llava" and shape.vision.class_token


@dataclass(frozen=True)
class Method:
    """A published method.

    Attributes:
        name: What `published` calls it.
        label: What its authors call it.
        source: Where it was published.
        schedule: Makes its schedule from a number of tokens and a shape; its docstring says where
            each default comes from.
        control: Whether it is a control that methods are held against, rather than a proposal.
        needs: What it needs of a model.
        instead: Name of the method to use on models that lack it.
    """

    name: str
    label: str
    source: str
    schedule: Callable[[int, Shape], Schedule]
    control: bool = False
    needs: Needs = Needs.NOTHING
    instead: str = "visiondrop"


def encoder_saliency(shape: Shape, *, keep_cls: bool) -> ClsAttention | VisualSelfAttention:
    """Choose the saliency of a stage at layer 0: CLS attention, where there is a CLS token.

    Without one it is the mean attention that a patch receives from all patches, VisionDrop's rule
    for towers such as SigLIP's; where several patches make one visual token, it has their mean.

    Args:
        shape: The model's shape.
        keep_cls: Whether the method feeds the CLS token to the decoder. Only LLaVA-1.5's projector
            can be given it.

    Returns:
        The scorer, reading the vision layer that makes the features.
    """
    vision = shape.vision
    if not vision.class_token:
        return VisualSelfAttention()
    feature = vision.feature_layer
    layer = feature if feature < 0 else feature - vision.layers - 1
    return ClsAttention(layer=min(layer, -1), keep_cls=keep_cls and shape.prunes_before_projector)


def encoder_only(stage: Stage, tokens: int, shape: Shape) -> Schedule:
    """Make the schedule of a method that keeps the same tokens in all decoder layers.

    Args:
        stage: Its stage at layer 0, with any retention.
        tokens: Tokens to keep.
        shape: The model's shape.

    Returns:
        The schedule.
    """
    kept = stage.model_copy(update={"retention": tokens / shape.visual_tokens})
    return Schedule(stages=(kept,), shape=shape)


def with_mean(schedule: Schedule, tokens: int, shape: Shape) -> Schedule:
    """Scale a method's published schedule to a mean number of tokens over the decoder's layers.

    Retentions are scaled by one factor, boundaries stay. Where all tokens that are alive before the
    first boundary leave too few for the others (`is_starved`), boundaries move earlier by the same
    factor as retentions are scaled: PyramidDrop's boundaries alone keep a quarter of the tokens
    (PyramidDrop's issue 10 asks for this; its authors give no rule).

    Args:
        schedule: The published schedule, with layers of `PAPER_LAYERS`.
        tokens: Wanted mean over layers.
        shape: The model's shape.

    Returns:
        The schedule for the shape; whole tokens leave its mean within half a token of what was
        asked for, where at least one token per stage allows it.

    Raises:
        ScheduleError: Even boundaries at layers 1, 2, ... and one token per stage keep more.
    """
    here = at_depth(schedule.stages, shape)
    if _mean(here, 1.0, shape) > tokens and is_starved(_solved(here, tokens, shape), shape):
        for step in range(STEPS, 0, -1):
            factor = step / STEPS
            here = at_depth(schedule.stages, shape, factor)
            if _mean(here, factor, shape) <= tokens:
                break
    if _mean(here, 0.0, shape) > tokens:
        raise ScheduleError(
            f"tokens is {tokens}, but this method keeps at least "
            f"{_mean(here, 0.0, shape):.0f} of {shape.visual_tokens} as a mean over "
            f"{shape.decoder_layers} layers; ask for more"
        )
    stages = _solved(here, tokens, shape)
    return schedule.model_copy(update={"stages": stages, "shape": shape})


def is_starved(stages: Sequence[Stage], shape: Shape) -> bool:
    """Say whether layers before the first boundary use up what later ones should have.

    Args:
        stages: Stages by rising layer.
        shape: The model's shape.

    Returns:
        Whether the first stage stands in the decoder and keeps less than `LEAST_FIRST_STAGE` of
        the mean over layers.
    """
    first = stages[0]
    mean = _mean(stages, 1.0, shape)
    return first.layer > 0 and first.retention * shape.visual_tokens < LEAST_FIRST_STAGE * mean


def _solved(stages: Sequence[Stage], tokens: int, shape: Shape) -> tuple[Stage, ...]:
    """Scale retentions so that the mean is nearest to a number of tokens."""
    low, high = 0.0, 1.0 / min(stage.retention for stage in stages)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean(stages, middle, shape) <= tokens else (low, middle)
    nearest = min((low, high), key=lambda factor: abs(_mean(stages, factor, shape) - tokens))
    return _with_factor(stages, nearest, shape)


def at_depth(stages: Sequence[Stage], shape: Shape, factor: float = 1.0) -> tuple[Stage, ...]:
    """Carry boundaries of the papers' 32 layers over to a shape, by relative depth.

    Args:
        stages: Published stages, with layers of `PAPER_LAYERS`.
        shape: The model's shape.
        factor: How much earlier they come than at the same relative depth.

    Returns:
        The stages, as `moved_boundaries` leaves them.
    """
    depth = shape.decoder_layers / PAPER_LAYERS
    return moved_boundaries(stages, factor * depth, shape.decoder_layers)


def moved_boundaries(stages: Sequence[Stage], scale: float, layers: int) -> tuple[Stage, ...]:
    """Multiply boundaries by a factor; they stay distinct and above 0.

    Args:
        stages: Stages by rising layer.
        scale: The factor.
        layers: Decoder layers that there are.

    Returns:
        The stages, with layers rounded half up; of those that meet at the last layer, the last.
    """
    moved: list[Stage] = []
    for stage in stages:
        layer = stage.layer
        if layer > 0:
            layer = max(1, math.floor(scale * layer + 0.5))
            if moved and layer <= moved[-1].layer:
                layer = moved[-1].layer + 1
        moved.append(stage.model_copy(update={"layer": min(layer, layers - 1)}))
    by_layer = {stage.layer: stage for stage in moved}
    return tuple(by_layer.values())


def _with_factor(stages: Sequence[Stage], factor: float, shape: Shape) -> tuple[Stage, ...]:
    """Scale retentions to whole tokens, at least one and at most all."""
    total = shape.visual_tokens
    return tuple(
        stage.model_copy(
            update={
                "retention": min(max(math.floor(factor * stage.retention * total + 0.5), 1), total)
                / total
            }
        )
        for stage in stages
    )


def _mean(stages: Sequence[Stage], factor: float, shape: Shape) -> float:
    """Mean over layers of the tokens alive when retentions are scaled by a factor."""
    schedule = Schedule(stages=_with_factor(stages, factor, shape))
    per_layer = schedule.visual_tokens_per_layer(
        shape.decoder_layers, shape.visual_tokens, shape.tokens_per_tile
    )
    return sum(per_layer) / len(per_layer)

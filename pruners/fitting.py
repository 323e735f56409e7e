"""Whether a schedule fits a model, which is checked before any hook is installed."""

from __future__ import annotations

import os

from pruners.adapters import ModelAdapter
from pruners.errors import ScheduleMismatchError
from pruners.plan import Plan
from pruners.schedule import Schedule
from pruners.text_tower import TextTower
from pruners.vision import check_text_tower


def check_depth(adapter: ModelAdapter, schedule: Schedule) -> None:
    """Check that the decoder has the layers at which a schedule has stages.

    Args:
        adapter: The model.
        schedule: The schedule.

    Raises:
        ScheduleMismatchError: The schedule is for a decoder of another depth.
    """
    layers = len(adapter.decoder_layers)
    shape = schedule.shape
    if shape is not None and schedule.stages and shape.decoder_layers != layers:
        raise ScheduleMismatchError(
            f"the schedule is for {shape.name} with {shape.decoder_layers} decoder layers, but the "
            f"model has {layers}; use schedule.scaled_to(Shape.from_config(model.config))"
        )
    for stage in schedule.stages:
        if stage.layer >= layers:
            raise ScheduleMismatchError(
                f"the schedule has a stage at layer {stage.layer}, but the model has {layers} "
                f"decoder layers; expected at most {layers - 1}"
            )


def check_encoder_stage(adapter: ModelAdapter, plan: Plan) -> None:
    """Check that a family can do what the stage at layer 0 asks for.

    Where tokens are merged or arranged behind the projector, none leave inside the vision tower,
    and no CLS token is kept.

    Args:
        adapter: The model.
        plan: The schedule on this model.

    Raises:
        ScheduleMismatchError: The family cannot.
    """
    if plan.encoder is None or adapter.projector is not None:
        return
    if plan.in_tower:
        raise ScheduleMismatchError(
            f"scorer {plan.encoder.scorer.kind!r} drops tokens inside the vision tower, but a "
            f"{adapter.family!r} model arranges whole images behind it; use a scorer that prunes "
            "behind the tower, such as 'visual-self-attention'"
        )
    if plan.encoder.keeps_cls:
        raise ScheduleMismatchError(
            f"the schedule keeps the CLS token, but a {adapter.family!r} model projects none; set "
            "keep_cls to False in the scorer of the stage at layer 0"
        )


def paired_text_tower(
    adapter: ModelAdapter, plan: Plan, text_tower: TextTower | str | os.PathLike[str] | None
) -> TextTower:
    """Bring the text tower that questions are encoded by to where the model is.

    Args:
        adapter: The model.
        plan: The schedule on this model, with a stage that reads questions.
        text_tower: The tower, or folder or hub name of its checkpoint, to use instead of the one
            that the schedule names; None for that one.

    Returns:
        The text tower, on the model's device and in its precision.

    Raises:
        ScheduleMismatchError: It is not paired with the model's vision tower.
        ModelError: It cannot be loaded.
    """
    if not isinstance(text_tower, TextTower):
        scorer = plan.question_scorer
        assert scorer is not None
        text_tower = TextTower.load(scorer.text_tower if text_tower is None else text_tower)
    check_text_tower(adapter, text_tower)
    return text_tower.to(adapter.device, adapter.dtype)

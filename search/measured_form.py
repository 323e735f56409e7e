"""What the measured model runs in the place of a schedule for the target."""

from __future__ import annotations

from pruners.schedule import Schedule
from pruners.shape import Shape


def as_measured(schedule: Schedule, shape: Shape) -> Schedule:
    """Carry a schedule over to the measured model, in the plainest form that behaves the same.

    Retentions and contextual shares become exact shares of the measured model's tokens, and stages
    that drop nothing there go. Schedules that differ on the target but not on the measured model
    thereby have the same content hash, and are measured once.

    Args:
        schedule: A schedule for any depth.
        shape: Shape of the measured model.

    Returns:
        The schedule to measure, with layers of `shape`'s depth.
    """
    scaled = schedule.scaled_to(shape)
    stages = []
    previous = shape.visual_tokens
    counts = scaled.counts(shape.visual_tokens, shape.tokens_per_tile)
    for stage, count in zip(scaled.stages, counts, strict=True):
        if count.alive < previous:
            share = count.contextual / count.alive if count.alive else 0.0
            retention = count.alive / shape.visual_tokens
            stages.append(stage.model_copy(update={"retention": retention, "contextual": share}))
            previous = count.alive
    return scaled.model_copy(update={"stages": tuple(stages)})


def measured_share(schedule: Schedule, shape: Shape) -> float:
    """Return how many visual tokens a schedule keeps on the measured model.

    Args:
        schedule: A schedule for any depth.
        shape: Shape of the measured model.

    Returns:
        Visual tokens as a share of the measured model's own, averaged over its layers.
    """
    tokens = as_measured(schedule, shape).visual_tokens_per_layer(
        shape.decoder_layers, shape.visual_tokens, shape.tokens_per_tile
    )
    return sum(tokens) / (len(tokens) * shape.visual_tokens)

"""What an export to another runtime is made of, and what all of them ask of a schedule."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pruners.errors import RuntimeExportError
from pruners.merges import NoMerge
from pruners.schedule import Schedule
from pruners.shape import Shape
from pruners.stages import Stage


class RuntimeSettings(BaseModel):
    """Settings of another runtime under which it keeps as many visual tokens as a schedule does.

    Attributes:
        runtime: The runtime's name.
        read: What was read of it: documentation and versions.
        arguments: Command-line arguments, one by one.
        options: The same as options of its programming interface, by name.
        environment: Environment variables.
        kept_tokens: Visual tokens that it keeps of an input like the schedule's shape.
        differences: How it differs from the schedule, in sentences; accuracy that was measured with
            the schedule is not that of the runtime where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    read: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    options: dict[str, bool | int | float | str] = {}
    environment: dict[str, str] = {}
    kept_tokens: int
    differences: tuple[str, ...] = ()


def shape_of(schedule: Schedule, runtime: str, families: tuple[str, ...]) -> Shape:
    """Return a schedule's shape if a runtime prunes models of its family.

    Args:
        schedule: The schedule.
        runtime: The runtime, for messages.
        families: Families whose tokens it prunes.

    Returns:
        The shape.

    Raises:
        RuntimeExportError: The schedule names no shape, or one of another family.
    """
    if schedule.shape is None:
        raise RuntimeExportError(
            f"{runtime}: the schedule does not say which shape it is for; scale it to the model's "
            "first (schedule.scaled_to)"
        )
    if schedule.shape.family not in families:
        raise RuntimeExportError(
            f"{runtime} prunes models of {', '.join(families)}; the schedule is for "
            f"{schedule.shape.name}, of family {schedule.shape.family}"
        )
    return schedule.shape


def encoder_stage(schedule: Schedule, runtime: str) -> Stage:
    """Return a schedule's stage if it is one that drops tokens once, before the decoder.

    Args:
        schedule: The schedule.
        runtime: The runtime, for messages.

    Returns:
        The stage at layer 0.

    Raises:
        RuntimeExportError: There is none, there are others, or it does more than drop tokens.
    """
    if not schedule.stages:
        raise RuntimeExportError(
            f"{runtime}: the schedule prunes nothing, so there is nothing to set"
        )
    later = [stage.layer for stage in schedule.stages if stage.layer > 0]
    if later:
        raise RuntimeExportError(
            f"{runtime} drops tokens once, before the decoder's first layer; the schedule also "
            f"drops some before layer {', '.join(map(str, later))}. Compose one without decoder "
            "stages"
        )
    (stage,) = schedule.stages
    if stage.contextual > 0 or not isinstance(stage.merge, NoMerge):
        raise RuntimeExportError(
            f"{runtime} drops tokens and merges none; the schedule's merge rule is "
            f"{stage.merge.kind!r}"
        )
    if stage.in_tower or stage.keeps_cls:
        raise RuntimeExportError(
            f"{runtime} chooses among the vision tower's output tokens; the schedule's scorer "
            f"{stage.scorer.kind!r} works inside the tower or adds its CLS token"
        )
    return stage

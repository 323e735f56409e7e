"""Stages in counts: what prices, budgets and fitting work with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pruners.errors import ScheduleMismatchError
from pruners.schedule import Schedule
from pruners.shape import Shape
from pruners.stages import Stage


class WorkingStage(NamedTuple):
    """A stage that drops tokens, in counts.

    Attributes:
        stage: The stage; its retention and contextual share are not read.
        alive: Visual tokens alive after the stage.
        contextual: How many of them are contextual.
    """

    stage: Stage
    alive: int
    contextual: int

    @property
    def layer(self) -> int:
        """Boundary."""
        return self.stage.layer

    @property
    def dominant(self) -> int:
        """Tokens alive that were chosen, the CLS token included where it is kept."""
        return self.alive - self.contextual

    def chosen(self, images: int) -> int:
        """Return how many visual tokens are chosen, without the CLS tokens.

        Args:
            images: Tiles that each have a CLS token.
        """
        return self.dominant - images if self.stage.keeps_cls else self.dominant


def working_stages(schedule: Schedule, shape: Shape) -> tuple[WorkingStage, ...]:
    """Return the stages of a schedule that drop tokens on a shape, in counts.

    Args:
        schedule: The schedule.
        shape: Shape of the model.

    Returns:
        One entry per stage that leaves fewer tokens alive than there were; the others do nothing.

    Raises:
        ScheduleMismatchError: A stage's layer lies beyond the shape's decoder.
    """
    if schedule.stages and schedule.stages[-1].layer >= shape.decoder_layers:
        raise ScheduleMismatchError(
            f"the schedule has a stage at layer {schedule.stages[-1].layer}, but {shape.name} has "
            f"{shape.decoder_layers} decoder layers; use schedule.scaled_to(shape)"
        )
    return tuple(_working(schedule, shape))


def _working(schedule: Schedule, shape: Shape) -> Iterator[WorkingStage]:
    previous = shape.visual_tokens
    counts = schedule.counts(previous, shape.tokens_per_tile)
    for stage, count in zip(schedule.stages, counts, strict=True):
        if count.alive < previous:
            yield WorkingStage(stage, count.alive, count.contextual)
        previous = count.alive

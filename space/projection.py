"""Projection: any schedule at any budget, by one common scale of its retentions."""

from __future__ import annotations

from pruners.errors import ScheduleError
from pruners.schedule import Provenance, Schedule
from pruners.shape import Shape
from space.budgets import Budget
from space.fitting import StagePlan, fit
from space.flops import CostModel, working_stages


def project(schedule: Schedule, shape: Shape, budget: Budget) -> Schedule:
    """Scale a schedule's retentions to a budget.

    The ratios between its stages are kept as nearly as whole tokens allow; stages reach 1 where
    scaling up would exceed it. Boundaries, scorers, merge rules and contextual shares stay.

    Args:
        schedule: Any schedule with at least one stage. If its own shape is of another depth, its
            boundaries are carried over to `shape` first.
        shape: Shape to price on.
        budget: The limit.

    Returns:
        The schedule at the budget, priced, without evidence.

    Raises:
        BudgetError: The budget is below what the schedule costs at its fewest tokens, or above the
            dense cost.
        ScheduleError: The schedule has no stage that drops tokens.
        ScheduleMismatchError: It has a stage beyond the shape's decoder.
        UnsupportedModelError: It scores by similarity, and the shape has no text tower.
    """
    budget.check(shape)
    schedule = at_depth_of(schedule, shape)
    plans = plans_of(schedule, shape)
    if not plans:
        raise ScheduleError(
            "a schedule without a stage that drops tokens cannot be scaled to a budget; "
            "project one that prunes, such as published('visiondrop', tokens=64)"
        )
    provenance = schedule.provenance or Provenance(origin="projected")
    fitted = fit(plans, CostModel(shape), budget, positions=schedule.positions)
    return fitted.model_copy(
        update={"provenance": provenance.model_copy(update={"budget": budget.describe(shape)})}
    )


def at_depth_of(schedule: Schedule, shape: Shape) -> Schedule:
    """Carry a schedule's boundaries over to a shape, if they refer to another depth."""
    if schedule.shape is None or schedule.shape.decoder_layers == shape.decoder_layers:
        return schedule
    return schedule.scaled_to(shape)


def plans_of(schedule: Schedule, shape: Shape) -> list[StagePlan]:
    """Return the plans that a schedule's own counts on a shape amount to.

    Args:
        schedule: The schedule; its layers refer to `shape`.
        shape: Shape of the model.

    Returns:
        One plan per stage that drops tokens.
    """
    shares = {stage.layer: stage.contextual for stage in schedule.stages}
    plans: list[StagePlan] = []
    previous = shape.visual_tokens
    for stage in working_stages(schedule, shape):
        plans.append(
            StagePlan(
                layer=stage.layer,
                ratio=stage.alive / previous,
                contextual=shares[stage.layer],
                scorer=stage.scorer,
                merge=stage.merge,
            )
        )
        previous = stage.alive
    return plans

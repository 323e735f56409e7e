"""Projection: any schedule at any budget, by one common scale of its retentions."""

from __future__ import annotations

from pruners.errors import ScheduleError
from pruners.methods.base import STEPS, moved_boundaries
from pruners.schedule import Provenance, Schedule
from pruners.shape import Shape
from space.budgets import Budget
from space.fitting import StagePlan, fit
from space.flops import CostModel
from space.working import working_stages


def project(schedule: Schedule, shape: Shape, budget: Budget) -> Schedule:
    """Scale a schedule's retentions to a budget.

    The ratios between its stages are kept as nearly as whole tokens allow; stages reach 1 where
    scaling up would exceed it. Scorers, selectors, merge rules and contextual shares stay.

    So do boundaries, unless they make the budget unreachable: a method without a stage at layer 0
    pays for all tokens before its first boundary. Where one token per stage still costs more than
    the budget, boundaries move earlier by the same factor as retentions are scaled, the largest
    factor whose cost fits; this is the rule by which `pruners.published` meets a mean number of
    tokens, applied to cost.

    Args:
        schedule: Any schedule with at least one stage. If its own shape is of another depth, its
            boundaries are carried over to `shape` first.
        shape: Shape to price on.
        budget: The limit.

    Returns:
        The schedule at the budget, priced, without evidence.

    Raises:
        BudgetError: The budget is below what the schedule costs at its fewest tokens and earliest
            boundaries, or above the dense cost.
        ScheduleError: The schedule has no stage that drops tokens.
        ScheduleMismatchError: It has a stage beyond the shape's decoder.
        UnsupportedModelError: It compares with the question, and the shape has no text tower.
    """
    budget.check(shape)
    schedule = at_depth_of(schedule, shape)
    model = CostModel(shape)
    if not working_stages(schedule, shape):
        raise ScheduleError(
            "a schedule without a stage that drops tokens cannot be scaled to a budget; "
            "project one that prunes, such as published('visiondrop', tokens=64)"
        )
    within_reach = _with_boundaries_in_reach(schedule, model, budget)
    provenance = schedule.provenance or Provenance(origin="projected")
    fitted = fit(plans_of(within_reach, shape), model, budget, positions=schedule.positions)
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
    plans: list[StagePlan] = []
    previous = shape.visual_tokens
    for working in working_stages(schedule, shape):
        plans.append(StagePlan(working.stage, working.alive / previous))
        previous = working.alive
    return plans


def _with_boundaries_in_reach(schedule: Schedule, model: CostModel, budget: Budget) -> Schedule:
    """Move boundaries earlier, as far as the budget asks for it."""
    shape, limit = model.shape, budget.limit(model.shape)

    def cost(candidate: Schedule, factor: float) -> float:
        scaled = _with_retentions(candidate, factor, shape)
        return budget.amount_of(working_stages(scaled, shape), model)

    if cost(schedule, 0.0) <= limit:
        return schedule
    moved = schedule
    for step in range(STEPS, 0, -1):
        factor = step / STEPS
        stages = moved_boundaries(schedule.stages, factor, shape.decoder_layers)
        moved = schedule.model_copy(update={"stages": stages})
        if cost(moved, factor) <= limit:
            break
    return moved


def _with_retentions(schedule: Schedule, factor: float, shape: Shape) -> Schedule:
    """Scale retentions, leaving each stage at least one token where it had one."""
    fewest = 1 / shape.visual_tokens
    stages = tuple(
        stage.model_copy(
            update={"retention": max(factor * stage.retention, min(fewest, stage.retention))}
        )
        for stage in schedule.stages
    )
    return schedule.model_copy(update={"stages": stages})

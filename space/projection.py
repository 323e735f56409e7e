"""Projection: any schedule, and every published method, at any budget, by one rule."""

from __future__ import annotations

from pruners.errors import ScheduleError
from pruners.methods.base import STEPS, is_starved, moved_boundaries
from pruners.published import published
from pruners.schedule import Provenance, Schedule
from pruners.shape import Shape
from space.budgets import Budget
from space.fitting import StagePlan, fit
from space.flops import CostModel
from space.working import working_stages

LONGEST_FALL = 32
"""Most tokens by which a published method can keep more than at another number and cost less.

SparseVLM's named settings keep more than their names say: "128" costs what a mean of 145 does.
"""


def project(schedule: Schedule, shape: Shape, budget: Budget) -> Schedule:
    """Scale a schedule's retentions to a budget.

    The ratios between its stages are kept as nearly as whole tokens allow; stages reach 1 where
    scaling up would exceed it. Scorers, selectors, merge rules and contextual shares stay.

    So do boundaries, unless scaling down would starve the stages: a method without a stage at layer
    0 pays for all tokens before its first boundary. Where that leaves the first stage too few
    (`pruners.methods.base.is_starved`), or none at all, boundaries move earlier by the same factor
    as retentions are scaled, the largest factor whose cost fits. This is the rule by which
    `pruners.published` meets a mean number of tokens, applied to cost.

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
        UnsupportedModelError: It compares with the question, and the shape has no text tower; or
            the vision tower cannot run a stage.
    """
    budget.check_dense(shape)
    schedule = at_depth_of(schedule, shape)
    model = CostModel(shape)
    if not working_stages(schedule, shape):
        raise ScheduleError(
            "a schedule without a stage that drops tokens cannot be scaled to a budget; "
            "project one that prunes, such as published('visiondrop', tokens=64)"
        )
    provenance = schedule.provenance or Provenance(origin="projected")
    fitted = _fitted(schedule, model, budget)
    return fitted.model_copy(
        update={"provenance": provenance.model_copy(update={"budget": budget.describe(shape)})}
    )


def published_within(name: str, shape: Shape, budget: Budget) -> Schedule:
    """Return a published method at a budget.

    What is projected is the method's own schedule for the most tokens that the budget allows, so
    that it prunes where and in the proportions that it does at this compression.

    Args:
        name: A name of `pruners.methods.METHODS`.
        shape: Shape to price on.
        budget: The limit.

    Returns:
        The schedule at the budget, priced.

    Raises:
        BudgetError: The budget is below what the method costs at its fewest tokens, or above the
            dense cost.
        ScheduleError: The name is unknown.
        UnsupportedModelError: It compares with the question, and the shape has no text tower; or
            the vision tower cannot run a stage.
    """
    budget.check_dense(shape)
    model, limit = CostModel(shape), budget.limit(shape)

    def fits(tokens: int) -> bool:
        schedule = _published_or_none(name, shape, tokens)
        # Fewer tokens than the method can keep fit any budget; they are passed over below.
        return schedule is None or budget.amount_of(working_stages(schedule, shape), model) <= limit

    fitting, too_many = 0, shape.visual_tokens
    while too_many - fitting > 1:
        tokens = (fitting + too_many) // 2
        if fits(tokens):
            fitting = tokens
        else:
            too_many = tokens
    last = min(too_many + LONGEST_FALL, shape.visual_tokens - 1)
    most = next((tokens for tokens in range(last, too_many, -1) if fits(tokens)), fitting)
    start = _published_or_none(name, shape, most) or published(name, most + 1, shape)
    return project(start, shape, budget)


def _published_or_none(name: str, shape: Shape, tokens: int) -> Schedule | None:
    """Return a method's schedule, or None for fewer tokens than it can keep."""
    try:
        return published(name, tokens, shape)
    except ScheduleError:
        return None


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


def _fitted(schedule: Schedule, model: CostModel, budget: Budget) -> Schedule:
    """Spend the budget, with boundaries moved earlier as far as it asks for that."""
    shape, limit = model.shape, budget.limit(model.shape)

    def cost(candidate: Schedule, factor: float) -> float:
        scaled = _with_retentions(candidate, factor, shape)
        return budget.amount_of(working_stages(scaled, shape), model)

    def fitted(candidate: Schedule) -> Schedule:
        return fit(plans_of(candidate, shape), model, budget, positions=schedule.positions)

    if cost(schedule, 0.0) <= limit:
        here = fitted(schedule)
        if cost(schedule, 1.0) <= limit or not is_starved(here.stages, shape):
            return here
    moved = schedule
    for step in range(STEPS, 0, -1):
        factor = step / STEPS
        stages = moved_boundaries(schedule.stages, factor, shape.decoder_layers)
        moved = schedule.model_copy(update={"stages": stages})
        if cost(moved, factor) <= limit:
            break
    return fitted(moved)


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

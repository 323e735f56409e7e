"""Published schedules at a study's budget: first trials, and what the result is compared with."""

from __future__ import annotations

from pruners.errors import BudgetError
from pruners.published import published
from pruners.schedule import Schedule
from pruners.shape import Shape
from space.budgets import Budget
from space.projection import project

PUBLISHED = ("visiondrop", "desap")
"""Methods that every search is compared with."""


def published_at(budget: Budget, shape: Shape) -> dict[str, Schedule]:
    """Scale the published schedules to one budget.

    Args:
        budget: The budget.
        shape: Shape that the budget refers to.

    Returns:
        Schedules by method, each within the budget; a method that cannot meet it is left out.
    """
    schedules = {}
    for method in PUBLISHED:
        # A third of the tokens (192 of 576) is the papers' mildest setting; only the proportions
        # of its stages matter here.
        schedule = published(method, tokens=max(1, shape.visual_tokens // 3), shape=shape)
        try:
            schedules[method] = project(schedule, shape, budget)
        except BudgetError:
            continue
    return schedules

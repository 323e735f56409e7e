"""Published schedules at a study's budget, which the result is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from pruners.errors import BudgetError, UnsupportedModelError
from pruners.methods import METHODS
from pruners.schedule import Schedule
from pruners.shape import Shape
from space.budgets import Budget
from space.coding import SearchSpace
from space.full_vocabulary import FullVocabulary
from space.projection import published_within

MISSION_METHODS = ("visiondrop", "desap")
"""Methods that every search is compared with: those that the mission's space is made of."""


def compared_methods(space: SearchSpace) -> tuple[str, ...]:
    """List what a search is compared with.

    Args:
        space: The search space.

    Returns:
        Names of `pruners.methods.METHODS`: all of them, controls included, for the full space.
    """
    if isinstance(space.vocabulary, FullVocabulary):
        return (*MISSION_METHODS, *(name for name in METHODS if name not in MISSION_METHODS))
    return MISSION_METHODS


def published_at(
    budget: Budget, shape: Shape, methods: Sequence[str] = MISSION_METHODS
) -> dict[str, Schedule]:
    """Scale published schedules to one budget.

    Args:
        budget: The budget.
        shape: Shape that the budget refers to.
        methods: Names of `pruners.methods.METHODS`.

    Returns:
        Schedules by method, each within the budget; a method that cannot meet it, or that the shape
        cannot run, is left out.
    """
    schedules = {}
    for method in methods:
        try:
            schedules[method] = published_within(method, shape, budget)
        except (BudgetError, UnsupportedModelError):
            continue
    return schedules


def left_out(space: SearchSpace) -> str | None:
    """Say which published methods cannot be had at a space's budget, and why.

    Args:
        space: The search space.

    Returns:
        One line, or None when all can.
    """
    too_dear, unsupported = [], []
    for name in compared_methods(space):
        try:
            published_within(name, space.shape, space.budget)
        except BudgetError:
            too_dear.append(METHODS[name].label)
        except UnsupportedModelError:
            unsupported.append(METHODS[name].label)
    reasons = []
    if too_dear:
        reasons.append(
            f"which is less than they cost at their fewest tokens: {', '.join(too_dear)}"
        )
    if unsupported:
        reasons.append(f"because {space.shape.name} cannot run them: {', '.join(unsupported)}")
    return f"Not compared at {space.budget.label}, {'; '.join(reasons)}" if reasons else None

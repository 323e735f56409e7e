"""The schedules that `methods.py` measures: every method and control at every budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pruners.errors import BudgetError, DataError, UnsupportedModelError
from pruners.methods import METHODS
from pruners.methods.base import Method
from pruners.published import published
from pruners.schedule import Schedule
from pruners.scorers import Random
from pruners.shape import Shape
from space.budgets import Budget
from space.flops import price
from space.projection import published_within

SHARES_OF_TOKENS = (1 / 2, 1 / 3, 2 / 9, 1 / 9, 1 / 18)
"""288, 192, 128, 64 and 32 of LLaVA-1.5's 576 visual tokens."""

RANDOM_DRAWS = 5
"""Seeds of the random control; one draw says little."""


@dataclass(frozen=True)
class BudgetPoint:
    """A budget, and what it is the cost of.

    Attributes:
        tokens: Mean visual tokens of VisionDrop's published schedule that costs this much.
        budget: Its cost, convention `total`.
    """

    tokens: int
    budget: Budget


@dataclass(frozen=True)
class Entry:
    """A method at one budget.

    Attributes:
        method: The method.
        schedules: Its schedule; of the random control one per seed; none where it cannot meet the
            budget.
        refusal: Why it cannot, else None.
    """

    method: Method
    schedules: tuple[Schedule, ...]
    refusal: str | None = None


def budget_points(tokens: Sequence[int] | None, target: Shape) -> list[BudgetPoint]:
    """Return what VisionDrop's published schedules cost, rounded up to four digits.

    Args:
        tokens: Mean visual tokens of its schedules; `SHARES_OF_TOKENS` when None.
        target: What schedules are priced for.

    Returns:
        One point per number of tokens.

    Raises:
        ScheduleError: A number of tokens is out of range.
    """
    counts = tokens or [round(share * target.visual_tokens) for share in SHARES_OF_TOKENS]
    costs = [price(published("visiondrop", count, target), target).tflops for count in counts]
    return [
        BudgetPoint(count, Budget("tflops", _rounded_up(cost)))
        for count, cost in zip(counts, costs, strict=True)
    ]


def schedule_at(name: str, point: BudgetPoint, target: Shape) -> Schedule:
    """Return a published method at a budget.

    Args:
        name: Its name.
        point: The budget.
        target: What schedules are priced for.

    Returns:
        The schedule, priced.

    Raises:
        BudgetError: The method cannot meet the budget.
    """
    return published_within(name, target, point.budget)


def entry_at(name: str, point: BudgetPoint, target: Shape) -> Entry:
    """Return a method's schedules at a budget, or why there are none."""
    method = METHODS[name]
    try:
        schedule = schedule_at(name, point, target)
    except (BudgetError, UnsupportedModelError) as error:
        return Entry(method, (), str(error))
    return Entry(method, tuple(_drawn(schedule)))


def chosen_methods(names: Sequence[str] | None) -> list[str]:
    """Return the methods to measure: all of them when none is named."""
    unknown = [name for name in names or () if name not in METHODS]
    if unknown:
        raise DataError(
            f"there is no method {', '.join(unknown)}; expected some of {', '.join(METHODS)}"
        )
    return [name for name in METHODS if not names or name in names]


def _rounded_up(cost: float) -> float:
    scale = 10.0 ** (3 - math.floor(math.log10(cost)))
    return math.ceil(cost * scale) / scale


def _drawn(schedule: Schedule) -> list[Schedule]:
    """One schedule per seed, if it draws at random; all cost the same."""
    stages = schedule.stages
    if not any(isinstance(stage.scorer, Random) for stage in stages):
        return [schedule]
    return [
        schedule.model_copy(
            update={
                "stages": tuple(
                    stage.model_copy(update={"scorer": Random(seed=seed)})
                    if isinstance(stage.scorer, Random)
                    else stage
                    for stage in stages
                )
            }
        )
        for seed in range(RANDOM_DRAWS)
    ]

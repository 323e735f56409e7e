"""Fitting: solve how many tokens each stage keeps so that a schedule spends its budget.

Layers, scorers, merge rules, and the retention of each stage relative to the one before it are
given; how many tokens are kept overall is what the budget decides. Cost is analytic, so that the
budget is met by construction instead of by rejection: random schedules of three stages meet a
quarter of the dense cost 0.4 % of the time.

The result never costs more than the budget, and *no stage of it could keep one more token* within
the budget: what is left of the budget is less than the cost of one token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING
from itertools import pairwise
from typing import Literal

from pruners.counting import contextual_tokens, grid_tokens
from pruners.errors import BudgetError
from pruners.schedule import Schedule
from pruners.scorers import Downsampling
from pruners.shape import Shape
from pruners.stages import Stage
from space.budgets import Budget
from space.flops import CostModel
from space.tiles import chooses_by_tile, contextual_by_tile, level_above, level_within
from space.working import WorkingStage, working_stages

Positions = Literal["compact", "original"]

_PRECISION = 1 / 256
"""How finely the common scale is solved, in tokens of the first stage that is not saturated."""


@dataclass(frozen=True)
class StagePlan:
    """What projection keeps of a stage.

    Attributes:
        stage: The stage; its retention is what fitting decides.
        ratio: Tokens alive after the stage relative to those after the stage before it, in [0, 1];
            a stage of ratio 1 does nothing. The first stage's ratio is not used: its retention is
            the common scale.
    """

    stage: Stage
    ratio: float

    @property
    def layer(self) -> int:
        """Boundary."""
        return self.stage.layer

    def whole_tokens(self, tokens: float) -> int:
        """Round a number of tokens to one that the stage can keep.

        Args:
            tokens: Wanted tokens, below the dense count.

        Returns:
            The nearest whole number, half up, and at least 1 at layer 0; of a smaller image the
            largest grid within it.
        """
        alive = math.floor(tokens + 0.5)
        if self.layer == 0:
            alive = max(alive, 1)
        return grid_tokens(alive) if isinstance(self.stage.scorer, Downsampling) else alive

    def more_tokens(self, alive: int) -> int:
        """Return the next number of tokens that the stage can keep above one that it can."""
        if not isinstance(self.stage.scorer, Downsampling):
            return alive + 1
        height = math.isqrt(alive)
        return height * (height + 1) if alive == height * height else (height + 1) ** 2


@dataclass(frozen=True)
class _Kept:
    """A plan with the tokens it keeps, and how many that were before rounding."""

    plan: StagePlan
    alive: int
    wanted: float


def fit(
    plans: Sequence[StagePlan],
    model: CostModel,
    budget: Budget,
    positions: Positions = "compact",
) -> Schedule:
    """Make the schedule of some plans that spends a budget.

    Args:
        plans: One per stage, by rising layer; at least one.
        model: Cost model of the shape.
        budget: The limit.
        positions: Position handling of the schedule.

    Returns:
        The schedule, priced. Plans that come out as doing nothing are left out of it. Retentions
        are whole tokens, so that counts are exact on the shape. Fitting the result's own plans to
        the same budget gives back the result.

    Raises:
        BudgetError: The plans cost more than the budget at their fewest tokens.
        UnsupportedModelError: A plan scores by similarity, and the shape has no text tower.
    """
    solver = _Solver(model, budget)
    kept = solver.solve(plans)
    # Whole tokens bend the ratios, and along the bent ratios more may fit: scoring is saved when a
    # stage comes to do nothing. Tokens only ever rise here, so this ends, nearly always at once;
    # where it ends, the result's own plans give back the result.
    while True:
        again = solver.solve(_plans_of_kept(plans[0], kept, model.shape))
        if solver.mean_tokens(again) <= solver.mean_tokens(kept):
            break
        kept = again
    schedule = Schedule(stages=solver.schedule_stages(kept), positions=positions, shape=model.shape)
    working = working_stages(schedule, model.shape)
    cost = model.price(working, dense_tflops=model.tflops(()))
    return schedule.model_copy(update={"cost": cost})


def _plans_of_kept(first: StagePlan, kept: Sequence[_Kept], shape: Shape) -> list[StagePlan]:
    """Return the plans whose ratios are those of whole tokens.

    The first plan bears the common scale and stays, even where it does nothing.
    """
    previous = shape.visual_tokens
    plans = [] if kept and kept[0].plan.layer == first.layer else [first]
    for stage in kept:
        plans.append(replace(stage.plan, ratio=stage.alive / previous))
        previous = stage.alive
    return plans


class _Solver:
    """Finds how many tokens each plan keeps at a budget."""

    def __init__(self, model: CostModel, budget: Budget) -> None:
        self._model = model
        self._budget = budget
        self._limit = budget.limit(model.shape)
        self._dense_tokens = model.shape.visual_tokens
        self._known: dict[tuple[tuple[int, int], ...], bool] = {}

    def solve(self, plans: Sequence[StagePlan]) -> list[_Kept]:
        """Return the plans that drop tokens, with strictly falling counts, at the budget."""
        active = [plans[0], *(plan for plan in plans[1:] if plan.ratio < 1)]
        kept = self._scale(active)
        while (repeat := _first_repeat(kept)) is not None:
            active = _without(active, repeat)
            kept = self._scale(active)
        return self._top_up(kept)

    def stages(self, kept: Sequence[_Kept]) -> list[WorkingStage]:
        """Return stages for pricing, all of which are charged for scoring."""
        return [WorkingStage(each.plan.stage, each.alive, self._contextual(each)) for each in kept]

    def schedule_stages(self, kept: Sequence[_Kept]) -> tuple[Stage, ...]:
        """Return the stages of a schedule that keeps so many tokens."""
        stages: list[Stage] = []
        retention = 1.0
        for each in kept:
            # Whole tokens of unequal tiles may lie above the share that they are rounded from.
            retention = min(self._retention(each), retention)
            stages.append(each.plan.stage.model_copy(update={"retention": retention}))
        return tuple(stages)

    def _retention(self, each: _Kept) -> float:
        if chooses_by_tile(each.plan.stage, self._model.shape):
            return level_within(each.alive, self._model.shape).retention
        return each.alive / self._dense_tokens

    def _contextual(self, each: _Kept) -> int:
        stage = each.plan.stage
        if chooses_by_tile(stage, self._model.shape):
            return contextual_by_tile(stage, self._retention(each), self._model.shape)
        return contextual_tokens(stage.contextual, each.alive)

    def _whole_tokens(self, plan: StagePlan, tokens: float) -> int:
        """Round tokens to a number that a plan can keep, in each tile where it chooses by tile."""
        alive = plan.whole_tokens(tokens)
        if chooses_by_tile(plan.stage, self._model.shape):
            return level_within(alive, self._model.shape).alive
        return alive

    def _more_tokens(self, kept: _Kept) -> int:
        """Return the next number of tokens that a plan can keep."""
        if chooses_by_tile(kept.plan.stage, self._model.shape):
            return level_above(kept.alive, self._model.shape).alive
        return kept.plan.more_tokens(kept.alive)

    def mean_tokens(self, kept: Sequence[_Kept]) -> float:
        """Return the visual tokens alive, averaged over decoder layers."""
        return self._model.mean_visual_tokens(self.stages(kept))

    def _fits(self, kept: Sequence[_Kept]) -> bool:
        # Bisecting asks for the same whole tokens again and again.
        counts = tuple((each.plan.layer, each.alive) for each in kept)
        if counts not in self._known:
            amount = self._budget.amount_of(self.stages(kept), self._model)
            self._known[counts] = amount <= self._limit
        return self._known[counts]

    def _scale(self, active: list[StagePlan]) -> list[_Kept]:
        """Return the most tokens that fit as the common scale grows.

        Growing the scale saturates one stage after another at the dense count; a saturated stage
        does nothing and is not charged, so cost falls there. Between two such points it only rises.
        Hence: from the most saturated interval down, take the first whose lower end fits, and
        bisect in it. An interval is walked by the tokens of its first unsaturated stage, the pivot.
        """
        if self._fits([]):
            return []
        for pivot in reversed(range(len(active))):
            # In the lower end, the stage before the pivot is just saturated.
            low = active[pivot].ratio * self._dense_tokens if pivot else 0.0
            high = self._dense_tokens - 0.5
            if low >= high or not self._fits(self._at(active, pivot, low)):
                continue
            while high - low > _PRECISION:
                middle = (low + high) / 2
                if self._fits(self._at(active, pivot, middle)):
                    low = middle
                else:
                    high = middle
            return self._at(active, pivot, low)
        # Even the fewest tokens are too many, unless stages that do nothing were charged.
        fewest = self._at(active, 0, 0.0)
        repeat = _first_repeat(fewest)
        if repeat is None:
            raise self._too_small(fewest)
        return self._scale(_without(active, repeat))

    def _at(self, active: list[StagePlan], pivot: int, tokens: float) -> list[_Kept]:
        """Return the unsaturated stages when the pivot keeps `tokens` before rounding."""
        kept: list[_Kept] = []
        for plan in active[pivot:]:
            if kept:
                tokens *= plan.ratio
            kept.append(_Kept(plan, self._whole_tokens(plan, tokens), tokens))
        return kept

    def _top_up(self, kept: list[_Kept]) -> list[_Kept]:
        """Hand out what is left of the budget, token by token, until no stage can take one.

        Each goes to the stage that it brings least above its share, so that ratios are kept.
        """
        while True:
            by_share = sorted(
                range(len(kept)),
                key=lambda index: (
                    self._more_tokens(kept[index]) / max(kept[index].wanted, _PRECISION)
                ),
            )
            for index in by_share:
                more = list(kept)
                larger = self._more_tokens(kept[index])
                more[index] = replace(kept[index], alive=larger)
                before = kept[index - 1].alive if index else self._dense_tokens
                if larger >= before:
                    del more[index]  # it now does nothing
                if self._fits(more):
                    kept = more
                    break
            else:
                return kept

    def _too_small(self, fewest: Sequence[_Kept]) -> BudgetError:
        least = self._budget.amount_of(self.stages(fewest), self._model)
        spelled = self._budget.in_unit(least, self._model.shape, ROUND_CEILING)
        return BudgetError(
            f"the budget of {self._budget.label} is below {spelled}, what this schedule costs at "
            "its fewest tokens; choose a larger budget, or earlier boundaries"
        )


def _first_repeat(kept: Sequence[_Kept]) -> int | None:
    """Return the layer of the first stage that keeps all tokens of the stage before it."""
    for earlier, later in pairwise(kept):
        if later.alive >= earlier.alive:  # a whole grid may keep fewer than a later stage wants
            return later.plan.layer
    return None


def _without(active: Sequence[StagePlan], layer: int) -> list[StagePlan]:
    """Leave out the stage at a layer; the next one is then relative to the one before it."""
    index = next(i for i, plan in enumerate(active) if plan.layer == layer)
    remaining = [*active[:index], *active[index + 1 :]]
    if index < len(remaining):
        following = remaining[index]
        remaining[index] = replace(following, ratio=following.ratio * active[index].ratio)
    return remaining

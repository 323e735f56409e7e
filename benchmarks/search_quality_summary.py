"""What the cells of `search_quality.py` add up to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from search_quality_estimates import estimate, reach
from search_quality_records import (
    GOAL_SHARE,
    Cell,
    Curve,
    Optimum,
    Result,
    Summary,
    ValuedCell,
    ValuedRun,
)
from search_quality_verdicts import verdicts
from tabular import TabularEvaluator

from search.export import versions

CHECKPOINTS_PER_DOUBLING = 4
"""Points of the curves, which are drawn over a logarithmic axis."""

FIRST_CHECKPOINT = 25


def value(cell: Cell, accuracies: Mapping[str, float]) -> ValuedCell:
    """Say what a cell's incumbents are worth.

    Args:
        cell: A cell.
        accuracies: Relative accuracy on the report split by content hash.

    Returns:
        The same cell, valued.
    """
    runs = tuple(
        ValuedRun(
            mean_tokens=run.mean_tokens,
            samples=run.samples,
            content_hash=run.incumbents[-1][1],
            curve=tuple((samples, accuracies[each]) for samples, each in run.incumbents),
        )
        for run in cell.budgets
    )
    return ValuedCell(**{**dict(cell), "budgets": runs})


def summarise(cells: Sequence[ValuedCell], evaluator: TabularEvaluator, ours: str) -> Summary:
    """Put the cells together.

    Args:
        cells: Every strategy with every cost and the same seeds.
        evaluator: What they were measured on.
        ours: Name of our strategy.

    Returns:
        Results by strategy, cost and budget.
    """
    budgets = [run.mean_tokens for run in cells[0].budgets]
    groups: dict[tuple[int, str], list[ValuedCell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.cost, cell.seed)):
        groups.setdefault((cell.cost, cell.strategy), []).append(cell)
    optima = {tokens: optimum(evaluator, tokens) for tokens in budgets}
    results = [
        _result(group, groups.get((cost, ours)), place, optima[tokens])
        for place, tokens in enumerate(budgets)
        for (cost, _), group in groups.items()
    ]
    return Summary(
        measured_on=evaluator.measured_on,
        search_samples=len(evaluator.samples("search")),
        report_samples=len(evaluator.samples("report")),
        ours=ours,
        seeds=len({cell.seed for cell in cells}),
        optima=tuple(optima.values()),
        results=tuple(results),
        verdicts=tuple(verdicts(results, groups, optima, evaluator, ours)),
        seconds=round(sum(cell.seconds for cell in cells), 1),
        versions=versions(),
    )


def optimum(evaluator: TabularEvaluator, mean_tokens: int) -> Optimum:
    """Look up the best of the table within a budget."""
    values = evaluator.relative_accuracies("report")
    return Optimum(
        mean_tokens=mean_tokens,
        schedules=int((evaluator.truth.tokens.mean(axis=1) <= mean_tokens).sum()),
        report_best=float(values[evaluator.optimum(mean_tokens, "report")]),
        search_best=float(values[evaluator.optimum(mean_tokens, "search")]),
    )


def mean_curve(cells: Sequence[ValuedCell], place: int, cost: int) -> Curve:
    """Average the curves of several seeds.

    Args:
        cells: One strategy at one cost, one cell per seed.
        place: Place of the budget among the cells' own.
        cost: Samples that the last point stands for.

    Returns:
        The curve from the point on where every seed has an incumbent.
    """
    found = [FIRST_CHECKPOINT]
    while found[-1] < cost:
        found.append(min(cost, next_checkpoint(found[-1], cost)))
    checkpoints = np.array(found)
    values = np.stack([_at(cell.budgets[place].curve, checkpoints) for cell in cells], axis=1)
    known = ~np.isnan(values).any(axis=1)
    means, half = values[known].mean(axis=1), reach(values[known])
    return Curve(
        samples=tuple(checkpoints[known].tolist()),
        mean=tuple(means.tolist()),
        low=tuple((means - half).tolist()),
        high=tuple((means + half).tolist()),
    )


def next_checkpoint(samples: int, cost: int) -> int:
    """Find when to look at the incumbent next.

    Args:
        samples: Samples scored.
        cost: Samples that may be scored.

    Returns:
        How many samples the first checkpoint after these stands for; a quarter of the cost is one,
        as the goal is stated for it.
    """
    step = max(
        0, math.floor(CHECKPOINTS_PER_DOUBLING * math.log2(max(samples, 1) / FIRST_CHECKPOINT))
    )
    while (found := _checkpoint(step)) <= samples:
        step += 1
    return cost // GOAL_SHARE if samples < cost // GOAL_SHARE < found else found


def _checkpoint(step: int) -> int:
    return math.ceil(FIRST_CHECKPOINT * 2 ** (step / CHECKPOINTS_PER_DOUBLING))


def _result(
    cells: Sequence[ValuedCell],
    ours: Sequence[ValuedCell] | None,
    place: int,
    best: Optimum,
) -> Result:
    first = cells[0]
    values = _finals(cells, place)
    quarter = np.array([first.cost // GOAL_SHARE])
    early = np.concatenate([_at(cell.budgets[place].curve, quarter) for cell in cells])
    return Result(
        strategy=first.strategy,
        mean_tokens=best.mean_tokens,
        cost=first.cost,
        samples=float(np.mean([cell.budgets[place].samples for cell in cells])),
        samples_per_trial=first.samples_per_trial,
        relative_accuracy=estimate(values),
        per_seed=tuple(values.tolist()),
        per_seed_at_a_quarter=None if np.isnan(early).any() else tuple(early.tolist()),
        regret_to_report_best=estimate(best.report_best - values),
        regret_to_search_best=estimate(best.search_best - values),
        ours_minus_this=None
        if ours is None or ours[0].strategy == first.strategy
        else estimate(_finals(ours, place) - values),
        curve=mean_curve(cells, place, first.cost),
    )


def _finals(cells: Sequence[ValuedCell], place: int) -> NDArray[np.float64]:
    return np.array([cell.budgets[place].report_accuracy for cell in cells])


def _at(curve: Sequence[tuple[int, float]], checkpoints: NDArray[np.int64]) -> NDArray[np.float64]:
    """Read a curve of steps at checkpoints; NaN before its first step."""
    samples = np.array([step[0] for step in curve])
    values = np.array([np.nan, *(step[1] for step in curve)])
    return values[np.searchsorted(samples, checkpoints, side="right")]

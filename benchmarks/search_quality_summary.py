"""What the cells of `search_quality.py` add up to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from search_quality_records import (
    Cell,
    Curve,
    Estimate,
    Optimum,
    Result,
    Summary,
    Verdict,
)
from tabular import DENSE_ROW, TabularEvaluator

from search.export import versions
from studies.statistics import LEVEL, difference

CHECKPOINTS_PER_DOUBLING = 4
"""Points of the curves, which are drawn over a logarithmic axis."""

FIRST_CHECKPOINT = 25

GOAL_SHARE = 4
"""Ours shall need at most this part of the samples of the best peer."""


def summarise(cells: Sequence[Cell], evaluator: TabularEvaluator, ours: str) -> Summary:
    """Put the cells together.

    Args:
        cells: Every strategy with every cost and the same seeds.
        evaluator: What they were measured on.
        ours: Name of our strategy.

    Returns:
        Results by strategy, cost and budget.
    """
    budgets = [run.mean_tokens for run in cells[0].budgets]
    groups: dict[tuple[int, str], list[Cell]] = {}
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


def estimate(values: ArrayLike) -> Estimate:
    """Mean of a value per seed, with the 95 % interval of Student's t.

    Args:
        values: One value per seed, at least two, `(seeds,)`.

    Returns:
        The estimate.
    """
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    reach = float(_reach(array[None])[0])
    return Estimate(mean=mean, interval_95=(mean - reach, mean + reach))


def verdicts(
    results: Sequence[Result],
    groups: Mapping[tuple[int, str], Sequence[Cell]],
    optima: Mapping[int, Optimum],
    evaluator: TabularEvaluator,
    ours: str,
) -> list[Verdict]:
    """Compare ours with the best peer at every budget and cost.

    Args:
        results: Results of all strategies.
        groups: The cells that they are of, by cost and strategy.
        optima: The best of the table, by budget.
        evaluator: What they were measured on.
        ours: Name of our strategy.

    Returns:
        One verdict per budget and cost at which both ours and a peer were run.
    """
    found = []
    for own in results:
        place = (own.mean_tokens, own.cost)
        peers = [
            each
            for each in results
            if each.strategy != ours and (each.mean_tokens, each.cost) == place
        ]
        if own.strategy != ours or not peers:
            continue
        best = max(peers, key=lambda peer: peer.relative_accuracy.mean)
        assert best.ours_minus_this is not None
        found.append(
            Verdict(
                mean_tokens=own.mean_tokens,
                cost=own.cost,
                best_peer=best.strategy,
                ours_minus_best=best.ours_minus_this,
                interval_over_images=interval_over_images(
                    mean_scores(groups[own.cost, ours], own.mean_tokens, evaluator),
                    mean_scores(groups[own.cost, best.strategy], own.mean_tokens, evaluator),
                    evaluator,
                ),
                first_or_tied=best.ours_minus_this.not_below_zero,
                share_of_samples=share_needed(own.curve, best.relative_accuracy.mean, own.cost),
                quarter_minus_best=None
                if own.per_seed_at_a_quarter is None
                else estimate(np.subtract(own.per_seed_at_a_quarter, best.per_seed)),
                exhaustive_minus_best=estimate(
                    np.subtract(optima[own.mean_tokens].search_best, best.per_seed)
                ),
            )
        )
    return found


def mean_scores(
    cells: Sequence[Cell], mean_tokens: int, evaluator: TabularEvaluator
) -> NDArray[np.float64]:
    """Average the incumbents' scores over seeds.

    Args:
        cells: One strategy at one cost, one cell per seed.
        mean_tokens: The budget.
        evaluator: What they were measured on.

    Returns:
        Mean score of each sample of the report split, `(samples,)`.
    """
    truth, everything = evaluator.truth, range(len(evaluator.samples("report")))
    hashes = [
        run.content_hash for cell in cells for run in cell.budgets if run.mean_tokens == mean_tokens
    ]
    scores = [
        evaluator.score(truth.schedules[truth.rows[each]], "report", everything) for each in hashes
    ]
    means: NDArray[np.float64] = np.mean(scores, axis=0)
    return means


def interval_over_images(
    scores: NDArray[np.float64], other_scores: NDArray[np.float64], evaluator: TabularEvaluator
) -> tuple[float, float]:
    """Say how far a difference of relative accuracies may be one of the report split's images.

    As relative accuracy is linear in the scores, that of mean scores is the mean over seeds.

    Args:
        scores: Scores on the report split, `(samples,)`.
        other_scores: Those of what is compared, `(samples,)`.
        evaluator: What they were measured on.

    Returns:
        The 95 % interval of first minus second.
    """
    samples = evaluator.samples("report")
    dense = evaluator.score(evaluator.truth.schedules[DENSE_ROW], "report", range(len(samples)))
    found = difference(
        scores,
        other_scores,
        dense,
        [sample.task for sample in samples],
        images=[sample.image for sample in samples],
    )
    return tuple(found.interval)


def share_needed(curve: Curve, wanted: float, cost: int) -> float | None:
    """Find after which share of its samples a curve stays at or above a value.

    Args:
        curve: The mean curve of a strategy.
        wanted: The value.
        cost: Samples that the whole is.

    Returns:
        The share of `cost`; None when the curve ends below the value.
    """
    reached = None
    for samples, mean in zip(reversed(curve.samples), reversed(curve.mean), strict=True):
        if mean < wanted:
            break
        reached = samples / cost
    return reached


def mean_curve(cells: Sequence[Cell], place: int, cost: int) -> Curve:
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
    means, reach = values[known].mean(axis=1), _reach(values[known])
    return Curve(
        samples=tuple(checkpoints[known].tolist()),
        mean=tuple(means.tolist()),
        low=tuple((means - reach).tolist()),
        high=tuple((means + reach).tolist()),
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
    cells: Sequence[Cell], ours: Sequence[Cell] | None, place: int, best: Optimum
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


def _finals(cells: Sequence[Cell], place: int) -> NDArray[np.float64]:
    return np.array([cell.budgets[place].report_accuracy for cell in cells])


def _at(curve: Sequence[tuple[int, float]], checkpoints: NDArray[np.int64]) -> NDArray[np.float64]:
    """Read a curve of steps at checkpoints; NaN before its first step."""
    samples = np.array([step[0] for step in curve])
    values = np.array([np.nan, *(step[1] for step in curve)])
    return values[np.searchsorted(samples, checkpoints, side="right")]


def _reach(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the width of the intervals of means over the last axis."""
    seeds = values.shape[-1]
    deviation = values.std(axis=-1, ddof=1)
    reach: NDArray[np.float64] = (
        student.ppf((1 + LEVEL) / 2, seeds - 1) * deviation / np.sqrt(seeds)
    )
    return reach

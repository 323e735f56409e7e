"""Ours against the best peer, for `search_quality.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from search_quality_estimates import estimate
from search_quality_records import Curve, Optimum, Result, ValuedCell, Verdict
from tabular import DENSE_ROW, TabularEvaluator

from studies.statistics import difference


def verdicts(
    results: Sequence[Result],
    groups: Mapping[tuple[int, str], Sequence[ValuedCell]],
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
    cells: Sequence[ValuedCell], mean_tokens: int, evaluator: TabularEvaluator
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

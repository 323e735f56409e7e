"""What the scores of `methods_effects.py` add up to: differences, trends, orders and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from methods_contrasts import Contrast
from methods_effects_records import (
    AgainstControl,
    AtBudget,
    ContrastResult,
    OrderedPair,
    OrderResult,
    Paired,
    Verdict,
)
from methods_orders import PaperOrder
from methods_schedules import BudgetPoint, Entry
from methods_scoring import SPLIT, scores_of
from numpy.typing import NDArray
from scipy.stats import kendalltau

from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import Shape
from search.measured_form import measured_share
from search.measuring import Measurements
from space.flops import price
from studies.statistics import (
    LEVEL,
    Difference,
    Interval,
    difference,
    differences,
    holm,
    relative_accuracy,
)

Scores = NDArray[np.float64]


class Comparisons:
    """Compares schedules by their kept scores.

    Args:
        target: What schedules are priced for.
        kept: Scores on the report split.
    """

    def __init__(self, target: Shape, kept: Measurements) -> None:
        self._target = target
        self._kept = kept
        self._tasks = kept.tasks(SPLIT)
        self._images = kept.images(SPLIT)
        self._dense = scores_of(dense(kept.evaluator.shape), kept)

    def contrast(
        self, contrast: Contrast, pairs: Mapping[BudgetPoint, tuple[Schedule, Schedule]]
    ) -> ContrastResult:
        """Compare a contrast's schedules at every budget, and over the budgets.

        Args:
            contrast: The contrast.
            pairs: Its schedules by budget, the largest first.

        Returns:
            The differences, Holm-corrected over the budgets, and their trend.
        """
        scores = [
            (scores_of(first, self._kept), scores_of(second, self._kept))
            for first, second in pairs.values()
        ]
        found = corrected([self._difference(first, second) for first, second in scores])
        halvings = [np.log2(self._target.visual_tokens / point.tokens) for point in pairs]
        return ContrastResult(
            name=contrast.name,
            first=contrast.first,
            second=contrast.second,
            equal=contrast.equal,
            papers=contrast.papers,
            budgets=tuple(
                AtBudget(
                    **_paired(here, claimed=contrast.claimed),
                    tokens=point.tokens,
                    first_accuracy=self._relative(first),
                    second_accuracy=self._relative(second),
                    first_tflops=price(pairs[point][0], self._target).tflops,
                    second_tflops=price(pairs[point][1], self._target).tflops,
                    measured_share_of_tokens=measured_share(
                        pairs[point][0], self._kept.evaluator.shape
                    ),
                    paper_points=contrast.paper_points.get(point.tokens),
                )
                for point, (first, second), here in zip(pairs, scores, found, strict=True)
            ),
            trend=(
                Paired(
                    **_paired(
                        trend(scores, halvings, self._dense, self._tasks, self._images),
                        claimed=contrast.grows,
                    )
                )
                if len(pairs) > 1
                else None
            ),
            claimed=contrast.claimed,
            trend_claimed=contrast.grows,
        )

    def order(self, order: PaperOrder, entries: Mapping[str, Entry]) -> OrderResult | None:
        """Compare a paper's order of methods with the measured one.

        Args:
            order: The paper's order.
            entries: The methods at its budget.

        Returns:
            Both orders and all pairs; None when fewer than two of its methods were measured.
        """
        names = sorted(order.percent, key=lambda name: -order.percent[name])
        names = [name for name in names if name in entries and entries[name].schedules]
        if len(names) < 2:
            return None
        scores = {name: self._mean_scores(entries[name]) for name in names}
        pairs = list(combinations(names, 2))
        found = corrected(
            [self._difference(scores[better], scores[worse]) for better, worse in pairs]
        )
        papers = [order.percent[name] for name in names]
        ours = [100 * self._relative(scores[name]) for name in names]
        return OrderResult(
            source=order.source,
            tokens=order.tokens,
            methods=tuple(names),
            paper_percent=tuple(papers),
            percent=tuple(ours),
            kendall_tau=float(kendalltau(papers, ours).statistic),
            pairs=tuple(
                OrderedPair(
                    **_paired(here),
                    better=better,
                    worse=worse,
                    paper_points=order.percent[better] - order.percent[worse],
                )
                for (better, worse), here in zip(pairs, found, strict=True)
            ),
        )

    def controls(self, point: BudgetPoint, entries: Mapping[str, Entry]) -> list[AgainstControl]:
        """Compare every method with every control at one budget.

        Args:
            point: The budget.
            entries: Methods and controls at this budget.

        Returns:
            Method minus control, Holm-corrected over the methods.
        """
        measured = {name: entry for name, entry in entries.items() if entry.schedules}
        methods = {
            name: self._mean_scores(entry)
            for name, entry in measured.items()
            if not entry.method.control
        }
        return [
            AgainstControl(
                **_paired(_negated(found)), tokens=point.tokens, control=control, method=name
            )
            for control, entry in measured.items()
            if entry.method.control and methods
            for name, found in differences(
                self._mean_scores(entry), methods, self._dense, self._tasks, images=self._images
            ).items()
        ]

    def _mean_scores(self, entry: Entry) -> Scores:
        """Scores of a method, meaned over its draws where it has several."""
        scores = [scores_of(schedule, self._kept) for schedule in entry.schedules]
        return np.asarray(np.mean(scores, axis=0))

    def _difference(self, first: Scores, second: Scores) -> Difference:
        return difference(first, second, self._dense, self._tasks, images=self._images)

    def _relative(self, scores: Scores) -> float:
        return relative_accuracy(scores, self._dense, self._tasks)


def trend(
    pairs: Sequence[tuple[Scores, Scores]],
    halvings: Sequence[float],
    dense_scores: Scores,
    tasks: Sequence[str],
    images: Sequence[str] | None = None,
) -> Difference:
    """Least-squares slope, over halvings of the tokens, of a difference of relative accuracies.

    Args:
        pairs: Scores of the first and the second schedule at each budget, each `(samples,)`.
        halvings: How often tokens were halved at each budget; at least two values.
        dense_scores: Score of the dense model, `(samples,)`.
        tasks: Task of each sample.
        images: Image of each sample; None where each has its own.

    Returns:
        The slope per halving, with its interval; samples are paired over all budgets.

    Raises:
        DataError: Scores cannot be paired.
    """
    centred = np.asarray(halvings) - np.mean(halvings)
    weights = centred / np.sum(centred**2)
    # The slope is the sum of the differences with these weights, and relative accuracy is linear in
    # the scores: so it is the difference of the weighted sums of the scores.
    first, second = (weights @ np.stack(scores) for scores in zip(*pairs, strict=True))
    return difference(first, second, dense_scores, tasks, images=images)


def corrected(family: Sequence[Difference]) -> list[Difference]:
    """Correct differences for their number.

    Args:
        family: Differences, each tested alone.

    Returns:
        The same with Holm's p-values, in the order given.
    """
    p_values = holm([found.p_value for found in family])
    return [
        replace(found, p_value=p_value, significant=found.significant and p_value < 1 - LEVEL)
        for found, p_value in zip(family, p_values, strict=True)
    ]


def _negated(found: Difference) -> Difference:
    low, high = found.interval
    return replace(found, estimate=-found.estimate, interval=Interval(-high, -low))


def _paired(found: Difference, *, claimed: bool = True) -> dict[str, Any]:
    """The fields of `Paired`; `claimed` says whether papers have the first above the second."""
    verdict: Verdict = "not significant"
    if found.significant and claimed:
        verdict = "agrees" if found.estimate > 0 else "disagrees"
    elif found.significant:
        verdict = "no claim"
    return {
        "difference": found.estimate,
        "interval_95": found.interval,
        "p_value": found.p_value,
        "verdict": verdict,
    }

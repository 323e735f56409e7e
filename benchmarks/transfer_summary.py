"""How far schedules that are good on one model are good on another: statistics over two tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from records import Record
from scipy.stats import spearmanr
from tabular import DENSE_ROW, TabularEvaluator
from tabular_data import GroundTruth

DRAWS = 2_000
"""Bootstrap draws of schedules."""


class Estimate(Record):
    """A value with its 95 % interval over draws of schedules."""

    value: float
    interval_95: tuple[float, float]


class Transfer(Record):
    """One budget of one other model.

    Attributes:
        mean_tokens: The budget on the embedded model: visual tokens as a mean over layers.
        tokens_there: The same on the other model, mean over schedules: layers are rounded.
        schedules: Schedules that were carried over.
        correlation: Spearman's rank correlation between relative accuracy on the embedded model's
            search split and on the other model's report split.
        own_correlation: The same between the other model's own search and report split: what
            measuring on the model itself gives.
        regret: What the schedule that is best on the embedded model lacks, on the other model's
            report split, to the one that is best on that model's own search split.
        regret_of_chance: What a schedule taken at random lacks to it.
    """

    mean_tokens: int
    tokens_there: float
    schedules: int
    correlation: Estimate
    own_correlation: Estimate
    regret: Estimate
    regret_of_chance: Estimate


class OtherModel(Record):
    """A model that schedules were carried over to.

    Attributes:
        measured_on: Model and benchmark, in words.
        decoder_layers: Its layers.
        dense_accuracy: Mean accuracy over tasks on the report split, without pruning.
        budgets: Results by budget.
    """

    measured_on: str
    decoder_layers: int
    dense_accuracy: float
    budgets: tuple[Transfer, ...]


class Values(Record):
    """Relative accuracy of the schedules carried over, all in one order.

    Attributes:
        proxy: On the embedded model's search split, `(schedules,)`.
        search: On the other model's search split, `(schedules,)`.
        report: On the other model's report split, `(schedules,)`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    proxy: NDArray[np.float64]
    search: NDArray[np.float64]
    report: NDArray[np.float64]

    def drawn(self, places: NDArray[np.int64]) -> Values:
        """Return the values of some of the schedules."""
        return Values(
            proxy=self.proxy[places], search=self.search[places], report=self.report[places]
        )


def transfer(values: Values, mean_tokens: int, tokens_there: float) -> Transfer:
    """Sum up one budget.

    Intervals are over schedules: those carried over are a sample of the lattice. Samples of the
    benchmark are the same in all draws.

    Args:
        values: Relative accuracies.
        mean_tokens: The budget.
        tokens_there: Mean tokens on the other model.

    Returns:
        The summary.
    """
    count = len(values.report)
    generator = np.random.default_rng(mean_tokens)
    found = [measures(values)]
    found += [measures(values.drawn(generator.integers(count, size=count))) for _ in range(DRAWS)]
    table = np.array(found)
    low, high = np.nanpercentile(table[1:], [2.5, 97.5], axis=0)
    estimates = [
        Estimate(value=float(value), interval_95=(float(below), float(above)))
        for value, below, above in zip(table[0], low, high, strict=True)
    ]
    return Transfer(
        mean_tokens=mean_tokens,
        tokens_there=tokens_there,
        schedules=count,
        correlation=estimates[0],
        own_correlation=estimates[1],
        regret=estimates[2],
        regret_of_chance=estimates[3],
    )


def measures(values: Values) -> tuple[float, float, float, float]:
    """Return both correlations and both regrets, in the order of `Transfer`'s fields."""
    own_best = values.report[np.argmax(values.search)]
    return (
        rank_correlation(values.proxy, values.report),
        rank_correlation(values.search, values.report),
        float(own_best - values.report[np.argmax(values.proxy)]),
        float(own_best - values.report.mean()),
    )


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation; not a number where either is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def dense_accuracy(truth: GroundTruth) -> float:
    """Mean accuracy over tasks of the dense model on the report split."""
    tasks = np.array(truth.about.splits["report"].tasks)
    right = truth.right["report"][DENSE_ROW]
    return float(np.mean([right[tasks == task].mean() for task in np.unique(tasks)]))


def other_model(proxy: GroundTruth, rows: NDArray[np.int64], other: GroundTruth) -> OtherModel:
    """Compare what schedules do on the embedded model and on another one.

    Args:
        proxy: The embedded model's table.
        rows: Row in it of each schedule that `other` has after dense, in the same order.
        other: The other model's table.

    Returns:
        The comparison by budget.
    """
    at_proxy = TabularEvaluator(proxy).relative_accuracies("search")[rows]
    table = TabularEvaluator(other)
    search, report = (table.relative_accuracies(split)[1:] for split in ("search", "report"))
    tokens, budgets = other.tokens[1:].mean(axis=1), other.budgets[1:]
    summaries = []
    for budget in sorted(set(budgets.tolist()), reverse=True):
        chosen = np.flatnonzero(budgets == budget)
        values = Values(proxy=at_proxy[chosen], search=search[chosen], report=report[chosen])
        summaries.append(transfer(values, budget, float(tokens[chosen].mean())))
    return OtherModel(
        measured_on=other.about.measured_on,
        decoder_layers=other.about.shape.decoder_layers,
        dense_accuracy=dense_accuracy(other),
        budgets=tuple(summaries),
    )

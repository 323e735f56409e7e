"""One cell of `search_quality.py`: a strategy with a seed, at all budgets."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import optuna
from search_quality_records import BudgetRun, Cell
from search_quality_summary import next_checkpoint
from tabular import TabularEvaluator, halves
from tabular_data import GroundTruth, read_ground_truth

from pruners.errors import DataError
from search.interruption import SearchInterruptedError
from search.outcomes import SearchOutcome, TrialReport
from search.racing import make_blocks
from search.search_history import SearchHistory
from search.searching import search_schedules
from search.settings import SearchSettings
from search.strategies import make_strategy
from search.strategies.base import SearchState, Strategy
from space.budgets import Budget
from space.coding import SearchSpace

BLOCK = 25
"""Samples per block, for all strategies."""

TRIALS_PER_AFFORDABLE = 2
FEWEST_TRIALS = 20
MOST_REPEATS = 40
"""A search ends at twice the trials that it can afford, and after so many in a row that proposed
schedules known already. Those are free, and many points of the space are one schedule of the table,
so that some strategies come to propose nothing else."""


class Job(NamedTuple):
    """What a cell shall measure.

    Attributes:
        strategy: Name of the strategy.
        cost: Samples that it may score per budget.
        seed: Seed of the search; when tuning also of the halves.
        samples_per_trial: Samples of each trial; None where the strategy decides.
        budgets: Mean visual tokens.
        tuning: Whether halves of the search split are used.
    """

    strategy: str
    cost: int
    seed: int
    samples_per_trial: int | None
    budgets: tuple[int, ...]
    tuning: bool

    @property
    def file(self) -> str:
        """Name of the cell's file."""
        per_trial = self.samples_per_trial or "own"
        budgets = "-".join(map(str, self.budgets))
        return f"{self.strategy}/{self.cost}-{per_trial}-seed-{self.seed}-tokens-{budgets}.json"

    @property
    def settings(self) -> SearchSettings:
        """How each budget is searched."""
        affordable = self.cost // (self.samples_per_trial or BLOCK)
        return SearchSettings(
            strategy=self.strategy,
            trials=max(FEWEST_TRIALS, TRIALS_PER_AFFORDABLE * affordable),
            evaluations=self.cost,
            seed=self.seed,
            block_size=BLOCK,
            samples_per_trial=self.samples_per_trial,
        )


def start_worker() -> None:
    """Keep Optuna quiet in a process that runs cells."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


@cache
def _truth(path: Path) -> GroundTruth:
    """One per process."""
    return read_ground_truth(path)


@cache
def table_evaluator(path: Path, tuning_seed: int | None = None) -> TabularEvaluator:
    """Make the evaluator of a table.

    Args:
        path: What `ground_truth.py` wrote.
        tuning_seed: Seed of the halves of its search split; None for both splits as they are.

    Returns:
        The evaluator.
    """
    truth = _truth(path)
    return TabularEvaluator(truth, *(() if tuning_seed is None else halves(truth, tuning_seed)))


@cache
def report_accuracies(path: Path, tuning_seed: int | None = None) -> Mapping[str, float]:
    """Look up what schedules are worth on the report split, or on the half that stands in for it.

    Args:
        path: What `ground_truth.py` wrote.
        tuning_seed: As for `table_evaluator`.

    Returns:
        The relative accuracy by content hash.
    """
    evaluator = table_evaluator(path, tuning_seed)
    values = evaluator.relative_accuracies("report")
    return {content_hash: float(values[row]) for content_hash, row in evaluator.truth.rows.items()}


def run_job(table: Path, job: Job) -> Cell:
    """Search all budgets with one strategy and seed.

    Args:
        table: What `ground_truth.py` wrote.
        job: What to search.

    Returns:
        The incumbents; the report split is not looked at.
    """
    started = time.monotonic()
    evaluator = table_evaluator(table, job.seed if job.tuning else None)
    spaces = [
        SearchSpace(evaluator.shape, Budget("tokens", tokens), layer_step=1)
        for tokens in job.budgets
    ]
    studies = [optuna.create_study(direction="maximize") for _ in spaces]
    strategy = make_strategy(job.settings)
    watch = _Watch(evaluator, strategy, job, dict(zip(spaces, studies, strict=True)))
    measurements = evaluator.measurements()
    outcomes: list[SearchOutcome] = []
    every = range(len(spaces))
    for pool in [every] if strategy.shares_budgets else [[each] for each in every]:
        outcomes += search_schedules(
            measurements,
            [spaces[each] for each in pool],
            job.settings,
            studies=[studies[each] for each in pool],
            strategy=strategy,
            on_trial=watch.note,
        )
    runs = []
    for space, outcome in zip(spaces, outcomes, strict=True):
        watch.look(space.budget)
        found = watch.incumbents.get(space.budget)
        if found is None:
            raise DataError(
                f"{job.strategy} has no schedule of {space.budget} after {job.cost} samples; give "
                "it fewer samples per trial"
            )
        runs.append(
            BudgetRun(
                mean_tokens=int(space.budget.value),
                trials=outcome.trials,
                samples=outcome.evaluations,
                incumbents=tuple(found),
            )
        )
    return Cell(
        strategy=job.strategy,
        cost=job.cost,
        seed=job.seed,
        samples_per_trial=job.samples_per_trial,
        table=evaluator.fingerprint,
        seconds=round(time.monotonic() - started, 2),
        budgets=tuple(runs),
    )


class _Watch:
    """Notes the incumbents while searches run, whenever the curves have a checkpoint."""

    def __init__(
        self,
        evaluator: TabularEvaluator,
        strategy: Strategy,
        job: Job,
        studies: Mapping[SearchSpace, optuna.Study],
    ) -> None:
        self.incumbents: dict[Budget, list[tuple[int, str]]] = {}
        self._job = job
        self._strategy = strategy
        tasks = [sample.task for sample in evaluator.samples("search")]
        sizes = tuple(map(len, make_blocks(tasks, BLOCK, job.seed)))
        form = evaluator.measurements().measured_form
        self._histories = {
            space.budget: SearchHistory(
                study, self._strategy.space(space), space.budget, sizes, form
            )
            for space, study in studies.items()
        }
        self._repeats = 0
        self._next: dict[Budget, int] = dict.fromkeys(self._histories, 0)

    def note(self, report: TrialReport) -> None:
        """Look at the incumbent after a trial, if as many samples were scored as a checkpoint."""
        self._histories[report.budget].refresh()
        if self._samples(report.budget) >= self._next[report.budget]:
            self.look(report.budget)
        self._repeats = self._repeats + 1 if report.duplicate else 0
        if self._repeats >= MOST_REPEATS:
            self._repeats = 0
            raise SearchInterruptedError

    def look(self, budget: Budget) -> None:
        """Note the incumbent of a budget: the first of the strategy's ranking."""
        samples = self._samples(budget)
        self._next[budget] = next_checkpoint(samples, self._job.cost)
        best = next(iter(self._strategy.ranking(self._state(budget))), None)
        if best is None:
            return
        noted = self.incumbents.setdefault(budget, [])
        if not noted or noted[-1][1] != best.measured:
            noted.append((samples, best.measured))

    def _samples(self, budget: Budget) -> int:
        """Samples that count for a budget: a share of all where budgets are searched together."""
        if self._strategy.shares_budgets:
            total = sum(history.evaluations for history in self._histories.values())
            return total // len(self._histories)
        return self._histories[budget].evaluations

    def _state(self, budget: Budget) -> SearchState:
        others = tuple(
            history.state(self._job.seed, None)
            for other, history in self._histories.items()
            if other != budget and self._strategy.shares_budgets
        )
        limit = self._job.cost * (1 + len(others))
        return self._histories[budget].state(self._job.seed, limit, others)

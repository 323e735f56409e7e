"""The search of one budget or several: a strategy proposes, blocks of samples are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from search.block_measuring import BlockMeter
from search.budget_search import BudgetSearch
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.outcomes import SearchOutcome, Stopped, TrialReport
from search.settings import SearchSettings
from search.strategies import make_strategy
from search.strategies.base import SearchState, Strategy
from space.coding import SearchSpace

if TYPE_CHECKING:
    import optuna

OnTrial = Callable[[TrialReport], None]
"""Called after every trial."""


def search_schedule(
    measurements: Measurements,
    space: SearchSpace,
    settings: SearchSettings,
    *,
    study: optuna.Study | None = None,
    strategy: Strategy | None = None,
    on_trial: OnTrial = lambda report: None,
) -> SearchOutcome:
    """Search the schedule of one budget with the highest relative accuracy on the search split.

    Args:
        measurements: Scores of the measured model; what they already know costs nothing.
        space: The schedules to search, all of which meet the budget.
        settings: How to search.
        study: The study to continue; a new one in memory when None. Its sampler is set here.
        strategy: How schedules are chosen; the strategy that the settings name when None.
        on_trial: Called after every trial.

    Returns:
        The schedules found; when `measurements` raises `SearchInterruptedError`, those found until
        then.

    Raises:
        DataError: The dense model scores 0 on a task, so that nothing is relative to it.
        SettingsError: The strategy cannot search this space, or with this evaluator.
        PrunetuneError: The evaluator fails.
    """
    studies = None if study is None else (study,)
    (outcome,) = search_schedules(
        measurements, (space,), settings, studies=studies, strategy=strategy, on_trial=on_trial
    )
    return outcome


def search_schedules(
    measurements: Measurements,
    spaces: Sequence[SearchSpace],
    settings: SearchSettings,
    *,
    studies: Sequence[optuna.Study] | None = None,
    strategy: Strategy | None = None,
    on_trial: OnTrial = lambda report: None,
) -> tuple[SearchOutcome, ...]:
    """Search the best schedule of each of several budgets.

    A strategy that shares budgets gets them in turn, the one with the fewest trials first, and
    spends as much on all of them as the settings allow each. Other strategies search one budget
    after the other.

    Args:
        measurements: Scores of the measured model; what they already know costs nothing.
        spaces: The schedules to search, one space per budget.
        settings: How to search each.
        studies: The study of each budget to continue; new ones in memory when None. Their samplers
            are set here.
        strategy: How schedules are chosen; the strategy that the settings name when None.
        on_trial: Called after every trial.

    Returns:
        What was found at each budget, in their order; when `measurements` raises
        `SearchInterruptedError`, what was found until then.

    Raises:
        DataError: The dense model scores 0 on a task, so that nothing is relative to it.
        SettingsError: The strategy cannot search a space, or with this evaluator.
        PrunetuneError: The evaluator fails.
    """
    chosen = strategy or make_strategy(settings)
    chosen.prepare(measurements.evaluator)
    size = settings.block_size or chosen.block_size
    meter = BlockMeter(measurements, chosen.signal, size, settings.seed)
    if studies is None:
        studies = [_study_in_memory() for _ in spaces]
    searches = [
        BudgetSearch(study, space, chosen.space(space), chosen, meter, settings.seed)
        for space, study in zip(spaces, studies, strict=True)
    ]
    together = [searches] if chosen.shares_budgets else [[search] for search in searches]
    try:
        meter.score_dense()
        for pool in together:
            _run_together(pool, settings, on_trial)
    except SearchInterruptedError:
        for search in searches:
            search.stopped = search.stopped or "interrupted"
    return tuple(
        search.outcome(_others(search, searches) if chosen.shares_budgets else ())
        for search in searches
    )


def _run_together(
    pool: Sequence[BudgetSearch], settings: SearchSettings, on_trial: OnTrial
) -> None:
    """Search budgets in turn until what they share is used up."""
    started = time.monotonic()
    trials = settings.trials * len(pool)
    timeout = None if settings.timeout is None else settings.timeout * len(pool)
    limit = None if settings.evaluations is None else settings.evaluations * len(pool)
    while running := [search for search in pool if search.stopped is None]:
        for search in pool:
            search.history.refresh()
        spent = sum(search.history.evaluations for search in pool)
        stopped: Stopped | None = None
        if sum(len(search.history.finished) for search in pool) >= trials:
            stopped = "trials"
        elif timeout is not None and time.monotonic() - started >= timeout:
            stopped = "timeout"
        elif limit is not None and limit - spent < min(running[0].block_sizes):
            stopped = "evaluations"
        if stopped is None:
            search = min(running, key=lambda each: len(each.history.finished))
            others = _others(search, pool, limit)
            room = None if limit is None else limit - spent
            report, stopped = search.run_trial(limit, others, room)
            if report is not None:
                on_trial(report)
        if stopped == "converged":
            search.stopped = stopped
        elif stopped is not None:
            for each in running:
                each.stopped = stopped


def _others(
    search: BudgetSearch, pool: Sequence[BudgetSearch], limit: int | None = None
) -> tuple[SearchState, ...]:
    """Return the states of the other budgets."""
    return tuple(each.state(limit) for each in pool if each is not search)


def _study_in_memory() -> optuna.Study:
    import optuna

    return optuna.create_study(direction="maximize")

"""The search of one budget or several: a strategy proposes, blocks of samples are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.block_measuring import BlockMeter
from search.budget_search import BudgetSearch
from search.conducting import Conductor, OnTrial, other_states
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.outcomes import SearchOutcome
from search.settings import SearchSettings
from search.strategies import make_strategy
from search.strategies.base import Strategy
from space.coding import SearchSpace

if TYPE_CHECKING:
    import optuna


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
            Conductor(pool, measurements, settings, on_trial).run()
    except SearchInterruptedError:
        for search in searches:
            search.stopped = search.stopped or "interrupted"
    return tuple(
        search.outcome(other_states(search, searches) if chosen.shares_budgets else ())
        for search in searches
    )


def _study_in_memory() -> optuna.Study:
    import optuna

    return optuna.create_study(direction="maximize")

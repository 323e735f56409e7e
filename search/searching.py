"""The search of one budget or several: a strategy proposes, blocks of samples are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from search.block_measuring import BlockMeter
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.outcomes import Candidate, SearchOutcome, Stopped, TrialReport
from search.search_history import (
    BLOCKS_ATTRIBUTE,
    DUPLICATE_ATTRIBUTE,
    RACED_OUT_ATTRIBUTE,
    SearchHistory,
)
from search.settings import SearchSettings
from search.strategies import make_strategy
from search.strategies.base import Proposal, SearchState, Strategy
from search.trial_running import TrialRunner
from space.coding import SearchSpace
from space.parameters import check_point
from studies.records import ORIGIN_ATTRIBUTE

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
        SettingsError: The strategy cannot search this space.
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
        SettingsError: The strategy cannot search a space.
        PrunetuneError: The evaluator fails.
    """
    chosen = strategy or make_strategy(settings)
    meter = BlockMeter(measurements, chosen.signal, settings.block_size, settings.seed)
    if studies is None:
        studies = [_study_in_memory() for _ in spaces]
    searches = [
        _BudgetSearch(study, space, chosen.space(space), chosen, meter, settings.seed)
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
    return tuple(search.outcome() for search in searches)


def _run_together(
    pool: Sequence[_BudgetSearch], settings: SearchSettings, on_trial: OnTrial
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
            others = tuple(each.state(limit) for each in pool if each is not search)
            room = None if limit is None else limit - spent
            report, stopped = search.run_trial(limit, others, room)
            if report is not None:
                on_trial(report)
        if stopped == "converged":
            search.stopped = stopped
        elif stopped is not None:
            for each in running:
                each.stopped = stopped


class _BudgetSearch:
    """The search of one budget under way."""

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        own_space: SearchSpace,
        strategy: Strategy,
        meter: BlockMeter,
        seed: int,
    ) -> None:
        from optuna.samplers import RandomSampler

        # For trials whose point is given; strategies that need a sampler set their own.
        study.sampler = RandomSampler(seed=seed)
        self.history = SearchHistory(study, own_space, space.budget, meter.sizes)
        self.block_sizes = meter.sizes
        self.stopped: Stopped | None = None
        self._strategy = strategy
        self._meter = meter
        self._seed = seed
        self._runner = TrialRunner(meter, self.history, races=strategy.races)
        self._seconds = 0.0

    def state(self, limit: int | None, others: tuple[SearchState, ...] = ()) -> SearchState:
        """Put together what the strategy may know."""
        return self.history.state(self._seed, limit, others)

    def run_trial(
        self, limit: int | None, others: tuple[SearchState, ...], room: int | None
    ) -> tuple[TrialReport | None, Stopped | None]:
        """Let the strategy choose, measure, and keep the result in the study.

        Args:
            limit: Samples that trials may score in all.
            others: States of the budgets that share it.
            room: Samples of it that are left.

        Returns:
            What came out, None when nothing was measured; and why the search ends, if it does.
        """
        started = time.monotonic()
        try:
            return self._run_trial(self.state(limit, others), room)
        finally:
            self._seconds += time.monotonic() - started

    def _run_trial(
        self, state: SearchState, room: int | None
    ) -> tuple[TrialReport | None, Stopped | None]:
        from optuna.trial import TrialState

        proposal = self._strategy.propose(state)
        if proposal is None:
            return None, "converged"
        study = self.history.study
        trial = self._ask(proposal) if isinstance(proposal, Proposal) else proposal
        try:
            wanted = trial.user_attrs.get(BLOCKS_ATTRIBUTE, self._strategy.blocks_of_a_trial(state))
            result = self._runner.run(trial, max(1, min(wanted, len(self.block_sizes))), room)
        except BaseException:
            # Its place in the study stays free: the next run proposes the same schedule again.
            study.tell(trial, state=TrialState.FAIL)
            raise
        stopped: Stopped | None = "evaluations" if result.out_of_samples else None
        if result.value is None:
            study.tell(trial, state=TrialState.FAIL)
            return None, stopped
        frozen = study.tell(trial, result.value)
        self.history.refresh()
        return self._report(frozen, result.value), stopped

    def outcome(self) -> SearchOutcome:
        """Sum up what was found."""
        assert self.stopped is not None  # asked for when it has ended
        return SearchOutcome(
            candidates=self._candidates(),
            trials=len(self.history.finished),
            evaluations=self.history.evaluations,
            seconds=self._seconds,
            stopped=self.stopped,
        )

    def _ask(self, proposal: Proposal) -> optuna.Trial:
        """Make a trial of a proposal, or take up one that an ended process has left.

        A process that was killed leaves what the strategy would propose now.
        """
        from optuna.trial import TrialState

        study = self.history.study
        check_point(proposal.point, self.history.space.parameters)
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            attributes: dict[str, int | str] = {BLOCKS_ATTRIBUTE: proposal.blocks}
            if proposal.origin is not None:
                attributes[ORIGIN_ATTRIBUTE] = proposal.origin
            study.enqueue_trial(dict(proposal.point), user_attrs=attributes)
        return study.ask()

    def _report(self, frozen: optuna.trial.FrozenTrial, value: float) -> TrialReport:
        history = self.history
        tried = history.tried
        blocks = max((each.blocks for each in tried if not each.raced_out), default=0)
        best = history.best(blocks)
        if best is None:
            accuracy = float("nan")  # nothing that meets the budget is known on so many blocks
        else:
            accuracy = best.estimate if self._meter.signal == "accuracy" else best.accuracies.mean()
        return TrialReport(
            budget=history.budget,
            finished=len(history.finished),
            value=value,
            best=float(accuracy),
            distinct=sum(each.within_budget for each in tried),
            samples=sum(self.block_sizes[: len(frozen.intermediate_values)]),
            raced_out=RACED_OUT_ATTRIBUTE in frozen.user_attrs,
            duplicate=DUPLICATE_ATTRIBUTE in frozen.user_attrs,
        )

    def _candidates(self) -> tuple[Candidate, ...]:
        by_accuracy = self._meter.signal == "accuracy"
        ranking = self._strategy.ranking(self.state(None))
        samples = {blocks: self._meter.samples(blocks) for blocks in {t.blocks for t in ranking}}
        return tuple(
            Candidate(
                schedule=tried.schedule,
                measured=self._meter.measurements.measured_form(tried.schedule),
                value=tried.estimate if by_accuracy else float(tried.accuracies.mean()),
                trial=tried.trial,
                samples=samples[tried.blocks],
            )
            for tried in ranking
        )


def _study_in_memory() -> optuna.Study:
    import optuna

    return optuna.create_study(direction="maximize")

"""The search of one budget under way: proposals become trials, trials are kept in its study."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pruners.errors import DataError
from pruners.schedule import Schedule
from search.block_measuring import BlockMeter
from search.outcomes import Candidate, SearchOutcome, Stopped, TrialReport
from search.search_history import (
    BLOCKS_ATTRIBUTE,
    DUPLICATE_ATTRIBUTE,
    RACED_OUT_ATTRIBUTE,
    SearchHistory,
)
from search.strategies.base import InFlight, Proposal, SearchState, Strategy
from search.trial_running import Course, TrialRunner
from space.coding import SearchSpace
from space.parameters import check_point
from studies.records import ORIGIN_ATTRIBUTE

if TYPE_CHECKING:
    import optuna


class TrialInFlight:
    """A trial that has begun and not ended.

    Attributes:
        search: The budget that it belongs to.
        trial: The trial.
        measured: What is measured of it.
        blocks: On how many blocks it shall be known.
        samples: Samples that it has taken so far.
        seen: What strategies see of it.
    """

    def __init__(
        self, search: BudgetSearch, trial: optuna.Trial, measured: Schedule, blocks: int
    ) -> None:
        self.search = search
        self.trial = trial
        self.measured = measured
        self.blocks = blocks
        self.samples = 0
        self.seen = InFlight(
            trial.params, measured.content_hash, trial.user_attrs.get(ORIGIN_ATTRIBUTE)
        )


class BudgetSearch:
    """The search of one budget.

    Args:
        study: The budget's Optuna study; its sampler is set here.
        space: The schedules that may be exported.
        own_space: The space that the strategy proposes in.
        strategy: Chooses schedules.
        meter: Measures them.
        seed: Seed of the search.
    """

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
        form = meter.measurements.measured_form
        self.history = SearchHistory(study, own_space, space.budget, meter.sizes, form)
        self.block_sizes = meter.sizes
        self.stopped: Stopped | None = None
        self._strategy = strategy
        self._meter = meter
        self._seed = seed
        self._runner = TrialRunner(meter, self.history, races=strategy.races)
        self._in_flight: list[TrialInFlight] = []
        self._leftovers = True  # trials that an ended process has left may be waiting
        self.seconds = 0.0
        """Wall-clock time spent on it."""

    def state(self, limit: int | None, others: tuple[SearchState, ...] = ()) -> SearchState:
        """Put together what the strategy may know."""
        in_flight = tuple(flight.seen for flight in self._in_flight)
        return self.history.state(self._seed, limit, others, in_flight)

    @property
    def begun(self) -> int:
        """Trials that have finished or are in flight."""
        return self.history.trials + len(self._in_flight)

    def begin(self, limit: int | None, others: tuple[SearchState, ...]) -> TrialInFlight | None:
        """Let the strategy choose what to measure next.

        Args:
            limit: Samples that trials may score in all.
            others: States of the budgets that share it.

        Returns:
            The trial, not yet measured; None when the strategy proposes nothing.
        """
        state = self.state(limit, others)
        proposal = self._strategy.propose(state)
        if not isinstance(proposal, Proposal):
            self.history.refresh()  # a strategy that asks by itself may also have finished trials
        if proposal is None:
            return None
        trial = self._ask(proposal) if isinstance(proposal, Proposal) else proposal
        try:
            wanted = trial.user_attrs.get(BLOCKS_ATTRIBUTE, self._strategy.blocks_of_a_trial(state))
            measured = self._runner.decode(trial)
        except BaseException:
            self._fail(trial)
            raise
        blocks = max(1, min(wanted, len(self.block_sizes)))
        flight = TrialInFlight(self, trial, measured, blocks)
        self._in_flight.append(flight)
        return flight

    def course(self, flight: TrialInFlight, has_room: Callable[[int], bool]) -> Course:
        """Begin to measure a trial; see `TrialRunner.run`."""
        return self._runner.run(flight.trial, flight.measured, flight.blocks, has_room)

    def finish(self, flight: TrialInFlight, value: float | None) -> TrialReport | None:
        """Keep the result of a trial in the study.

        Args:
            flight: The trial.
            value: What came out; None when nothing was measured, or something went wrong: then its
                place in the study stays free, and the next run proposes the same schedule again.

        Returns:
            What is known now; None without a value.

        Raises:
            DataError: The value is no number, which the study would not keep.
        """
        self._in_flight.remove(flight)
        if value is None:
            self._fail(flight.trial)
            return None
        if math.isnan(value):  # Optuna would call it failed, and the search would not end
            self._fail(flight.trial)
            raise DataError(
                f"trial {flight.trial.number} at {self.history.budget.label} has no number for a "
                "value: the scores of its samples cannot be averaged; evaluators should give "
                "scores between 0 and 1"
            )
        frozen = self.history.study.tell(flight.trial, value)
        self.history.take(frozen)
        return self._report(frozen, value)

    def outcome(self, others: tuple[SearchState, ...]) -> SearchOutcome:
        """Sum up what was found, given what is known at the budgets that are shared."""
        assert self.stopped is not None  # asked for when it has ended
        return SearchOutcome(
            candidates=self._candidates(others),
            trials=self.history.trials,
            evaluations=self.history.evaluations,
            seconds=self.seconds,
            stopped=self.stopped,
        )

    def _ask(self, proposal: Proposal) -> optuna.Trial:
        """Make a trial of a proposal, or take up one that an ended process has left.

        A process that was killed leaves what the strategy would propose now.
        """
        from optuna.trial import TrialState

        study = self.history.study
        check_point(proposal.point, self.history.space.parameters)
        if self._leftovers:
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            self._leftovers = bool(waiting)
        if not self._leftovers:
            attributes: dict[str, int | str] = {BLOCKS_ATTRIBUTE: proposal.blocks}
            if proposal.origin is not None:
                attributes[ORIGIN_ATTRIBUTE] = proposal.origin
            study.enqueue_trial(dict(proposal.point), user_attrs=attributes)
        return study.ask()

    def _fail(self, trial: optuna.Trial) -> None:
        from optuna.trial import TrialState

        self.history.study.tell(trial, state=TrialState.FAIL)

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
            finished=history.trials,
            value=value,
            best=float(accuracy),
            distinct=sum(each.within_budget for each in tried),
            samples=sum(self.block_sizes[: len(frozen.intermediate_values)]),
            raced_out=frozen.user_attrs.get(RACED_OUT_ATTRIBUTE, False),
            duplicate=DUPLICATE_ATTRIBUTE in frozen.user_attrs,
        )

    def _candidates(self, others: tuple[SearchState, ...]) -> tuple[Candidate, ...]:
        by_accuracy = self._meter.signal == "accuracy"
        ranking = self._strategy.ranking(self.state(None, others))
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

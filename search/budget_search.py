"""The search of one budget under way: proposals become trials, trials are kept in its study."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from search.block_measuring import BlockMeter
from search.outcomes import Candidate, SearchOutcome, Stopped, TrialReport
from search.search_history import (
    BLOCKS_ATTRIBUTE,
    DUPLICATE_ATTRIBUTE,
    RACED_OUT_ATTRIBUTE,
    SearchHistory,
)
from search.strategies.base import Proposal, SearchState, Strategy
from search.trial_running import TrialRunner
from space.coding import SearchSpace
from space.parameters import check_point
from studies.records import ORIGIN_ATTRIBUTE

if TYPE_CHECKING:
    import optuna


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

    def outcome(self, others: tuple[SearchState, ...]) -> SearchOutcome:
        """Sum up what was found, given what is known at the budgets that are shared."""
        assert self.stopped is not None  # asked for when it has ended
        return SearchOutcome(
            candidates=self._candidates(others),
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

"""Trials in flight: as many as there are workers, and no schedule twice."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from search.budget_search import BudgetSearch, TrialInFlight
from search.measuring import Measurements
from search.outcomes import Stopped, TrialReport
from search.settings import SearchSettings
from search.strategies.base import SearchState
from search.trial_running import Course, TrialResult
from search.workers.assignments import Assignment, Measured

OnTrial = Callable[[TrialReport], None]
"""Called after every trial."""


class Conductor:
    """Searches budgets in turn until what they share is used up.

    Each worker measures a block of another trial. A trial whose schedule another one measures
    waits for that one; then it costs nothing, or goes on where that one ended.

    Args:
        searches: The budgets, which share their limits.
        measurements: Scores of the measured model, with the workers.
        settings: How to search each budget.
        on_trial: Called after every trial.
    """

    def __init__(
        self,
        searches: Sequence[BudgetSearch],
        measurements: Measurements,
        settings: SearchSettings,
        on_trial: OnTrial,
    ) -> None:
        self._searches = searches
        self._measurements = measurements
        self._on_trial = on_trial
        self._trials = settings.trials * len(searches)
        self._timeout = None if settings.timeout is None else settings.timeout * len(searches)
        self._limit = None if settings.evaluations is None else settings.evaluations * len(searches)
        self._started = time.monotonic()
        self._courses: dict[TrialInFlight, Course] = {}
        self._measuring: dict[Future[Measured], tuple[TrialInFlight, Assignment]] = {}
        self._waiting: deque[TrialInFlight] = deque()
        self._silent: set[BudgetSearch] = set()
        """Those that have nothing to propose before a trial ends."""
        self._out_of_samples = False

    def run(self) -> None:
        """Search until every budget has a reason to stop.

        Raises:
            SearchInterruptedError: The user asked to stop; trials in flight have failed.
            PrunetuneError: The evaluator fails, or the workers.
        """
        try:
            while True:
                before = time.monotonic()
                self._begin_trials()
                busy = [flight.search for flight in (*self._courses, *self._waiting)]
                if not busy:
                    return
                self._take_answers()
                for search in busy:
                    search.seconds += (time.monotonic() - before) / len(busy)
        except BaseException:
            for flight in (*self._courses, *self._waiting):
                # Where the storage itself has failed, the next run finds these trials running.
                with suppress(Exception):
                    flight.search.finish(flight, None)
            raise

    def _begin_trials(self) -> None:
        """Begin trials while there are workers for them and something to measure."""
        while self._has_place():
            running = [search for search in self._searches if search.stopped is None]
            asked = [search for search in running if search not in self._silent]
            if not asked:
                return
            stopped = self._limit_reached(running)
            if stopped is None:
                search = min(asked, key=lambda each: each.begun)
                others = other_states(search, self._searches, self._limit)
                flight = search.begin(self._limit, others)
                if flight is not None:
                    self._start(flight)
                elif self._in_flight:
                    self._silent.add(search)
                else:
                    # A strategy may have spent the last trials on schedules above the budget.
                    search.stopped = self._limit_reached(running) or "converged"
            elif self._in_flight:
                return
            else:
                for search in running:
                    search.stopped = stopped

    @property
    def _in_flight(self) -> int:
        return len(self._courses) + len(self._waiting)

    def _has_place(self) -> bool:
        """Whether a worker is free, and not too many trials wait for others."""
        workers = self._measurements.workers
        return len(self._courses) < workers and len(self._waiting) < workers

    def _limit_reached(self, running: Sequence[BudgetSearch]) -> Stopped | None:
        """Return why no further trial may begin, if so."""
        if self._out_of_samples:
            return "evaluations"
        if sum(search.begun for search in self._searches) >= self._trials:
            return "trials"
        if self._timeout is not None and time.monotonic() - self._started >= self._timeout:
            return "timeout"
        if not self._has_room(min(running[0].block_sizes)):
            return "evaluations"
        return None

    def _has_room(self, samples: int) -> bool:
        """Whether so many more samples may be scored."""
        if self._limit is None:
            return True
        finished = sum(search.history.evaluations for search in self._searches)
        taken = sum(flight.samples for flight in self._courses)
        return finished + taken + samples <= self._limit

    def _start(self, flight: TrialInFlight) -> None:
        """Begin to measure a trial, unless another one measures the same."""
        measured = flight.measured.content_hash
        if any(other.measured.content_hash == measured for other in self._courses):
            self._waiting.append(flight)
            return

        def take(samples: int) -> bool:
            if not self._has_room(samples):
                return False
            flight.samples += samples
            return True

        self._courses[flight] = flight.search.course(flight, take)
        self._go_on(flight)

    def _go_on(self, flight: TrialInFlight) -> None:
        """Run a trial up to the next block that a worker must measure, or to its end."""
        try:
            assignment = next(self._courses[flight])
        except StopIteration as end:
            self._end(flight, end.value)
        else:
            future = self._measurements.begin(assignment)
            self._measuring[future] = (flight, assignment)

    def _end(self, flight: TrialInFlight, result: TrialResult) -> None:
        del self._courses[flight]
        self._silent.clear()
        self._out_of_samples |= result.out_of_samples
        report = flight.search.finish(flight, result.value)
        if report is not None:
            self._on_trial(report)

    def _take_answers(self) -> None:
        """Wait for workers, and go on with the trials whose blocks are measured."""
        measured = []
        for future in self._measurements.wait(self._measuring):
            flight, assignment = self._measuring.pop(future)
            self._measurements.keep(assignment, future)
            measured.append(flight)
        for flight in measured:  # not sooner: an interruption ends this, and all shall be kept
            self._go_on(flight)
        for _ in range(len(self._waiting)):
            self._start(self._waiting.popleft())  # it waits on, behind, while it has to


def other_states(
    search: BudgetSearch, searches: Sequence[BudgetSearch], limit: int | None = None
) -> tuple[SearchState, ...]:
    """Return the states of the other budgets."""
    return tuple(each.state(limit) for each in searches if each is not search)

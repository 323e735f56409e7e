"""Workers that measure on a simulated clock, which also counts what the driver takes."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

import numpy as np
import optuna
from sqlalchemy import event
from sqlalchemy.engine import Engine

from pruners.published import dense
from search.evaluators import Evaluator
from search.measuring import Measurements
from search.outcomes import TrialReport
from search.planning import Plan
from search.searching import search_schedules
from search.settings import SearchSettings
from search.workers.assignments import Assignment, Measured
from search.workers.pool import OwnProcess
from studies.storage import StudyFolder

SPREAD = 0.3
"""Standard deviation of the logarithm of a block's duration."""


@dataclass(frozen=True)
class Simulation:
    """What a search did on the simulated clock.

    Attributes:
        workers: Workers.
        trials: Trials that finished.
        seconds: From the start to the last trial's beginning.
        busy_seconds: What workers measured in that time, together.
        driver_seconds: What the driver took in the whole search, as measured.
        measured_twice: Samples that were measured more than once under a schedule.
    """

    workers: int
    trials: int
    seconds: float
    busy_seconds: float
    driver_seconds: float
    measured_twice: int

    @property
    def efficiency(self) -> float:
        """Share of the workers' time that they measured."""
        return self.busy_seconds / (self.workers * self.seconds)


class SimulatedPool(OwnProcess):
    """Workers elsewhere, whose answers are worked out here at the moment when they are due.

    Args:
        evaluator: What they measure with.
        workers: How many they are.
        seconds: Mean duration of an assignment.
    """

    def __init__(self, evaluator: Evaluator, workers: int, seconds: float) -> None:
        super().__init__(evaluator)
        self.capacity = workers
        self._mean = seconds
        self._random = np.random.default_rng(0)
        self._due: dict[Future[Measured], tuple[float, Assignment]] = {}
        self._spans: list[tuple[float, float]] = []
        self._seen: set[tuple[str, str, int]] = set()
        self._twice = 0
        self._jumped = 0.0
        self._not_counted = 0.0
        self._started = time.perf_counter()

    @property
    def now(self) -> float:
        """The simulated time: the driver's seconds, and those that were jumped over."""
        return time.perf_counter() - self._started - self._not_counted + self._jumped

    def start(self) -> None:
        """Start the clock; what was measured before, such as dense, does not count."""
        self._started, self._jumped, self._not_counted = time.perf_counter(), 0.0, 0.0
        self._spans.clear()

    def submit(self, assignment: Assignment) -> Future[Measured]:
        """Let a worker measure."""
        assert len(self._due) < self.capacity  # trials in flight are as many as workers
        future: Future[Measured] = Future()
        duration = self._mean * self._random.lognormal(-(SPREAD**2) / 2, SPREAD)
        begun = self.now
        self._due[future] = (begun + duration, assignment)
        if assignment.schedule.stages:
            self._spans.append((begun, begun + duration))
        for index in assignment.indices:
            key = (assignment.schedule.content_hash, assignment.split, index)
            self._twice += key in self._seen
            self._seen.add(key)
        return future

    def wait(self, futures: Collection[Future[Measured]], seconds: float) -> set[Future[Measured]]:
        """Jump to the moment when the next worker is done, and take all that are."""
        if not futures or seconds == 0:
            return set()
        self._jumped += max(0.0, min(self._due[future][0] for future in futures) - self.now)
        done = {future for future in futures if self._due[future][0] <= self.now}
        before = time.perf_counter()
        for future in done:
            future.set_result(super().submit(self._due.pop(future)[1]).result())
        self._not_counted += time.perf_counter() - before  # the workers', not the driver's
        return done

    def result(self, trials: int) -> Simulation:
        """Sum up."""
        last = max(begun for begun, _ in self._spans)
        return Simulation(
            workers=self.capacity,
            trials=trials,
            seconds=last,
            busy_seconds=sum(min(end, last) - begun for begun, end in self._spans),
            driver_seconds=self.now - self._jumped,
            measured_twice=self._twice,
        )


class StatementCount:
    """Counts the statements that are sent to databases while the block runs."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> Self:
        event.listen(Engine, "before_cursor_execute", self._count)
        return self

    def __exit__(self, *error: object) -> None:
        event.remove(Engine, "before_cursor_execute", self._count)

    def _count(self, *arguments: object) -> None:
        self.number += 1


def simulate(
    plan: Plan, settings: SearchSettings, pool: SimulatedPool, folder: StudyFolder | None
) -> Simulation:
    """Run a search on a simulated clock.

    Args:
        plan: What to search, at one budget.
        settings: How.
        pool: The workers.
        folder: The study's folder; None to keep everything in memory.

    Returns:
        What happened.
    """
    (space,) = plan.spaces
    if folder is None:
        study = optuna.create_study(direction="maximize")
        measurements = Measurements(plan.evaluator, pool=pool)
    else:
        study = folder.study(str(space.budget))
        measurements = Measurements(
            plan.evaluator, folder.scores, check=folder.keep_alive, pool=pool
        )
    finished = 0

    def count(report: TrialReport) -> None:
        nonlocal finished
        finished += 1

    # Dense is scored first in any search: here before the clock starts.
    measurements.scores(dense(plan.evaluator.shape), "search", range(500))
    pool.start()
    search_schedules(measurements, (space,), settings, studies=(study,), on_trial=count)
    return pool.result(finished)

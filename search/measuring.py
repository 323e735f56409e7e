"""Scores of schedules on the measured model, none of them measured twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from search.evaluators import Evaluator, Probe, ProbingEvaluator, SampleKey, require_probing
from search.measured_form import as_measured
from search.sample_limits import equal_shares
from search.workers.assignments import Assignment, Measured, Question
from search.workers.pool import OwnProcess, WorkerPool
from studies.scores import SampleProbe, ScoreCache

_CHECK_EVERY = 0.5  # seconds between checks while workers measure


class Measurements:
    """Scores of schedules from one evaluator, kept in a cache.

    Args:
        evaluator: What measures; with a pool, it only says what there is to measure.
        cache: Where scores are kept; in memory when None.
        check: Called before each block is measured, and while waiting; may raise to stop.
        limits: Most samples to use, by split; drawn at random, in equal shares of the tasks.
        seed: Seed of that draw.
        measured_form: What is measured in a schedule's place, in a form that is the same for all
            that behave alike; `as_measured` when None. Evaluators that know only some schedules
            give the nearest of those.
        pool: Workers that measure in the evaluator's place; this process itself when None.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        cache: ScoreCache | None = None,
        check: Callable[[], None] = lambda: None,
        limits: Mapping[str, int] | None = None,
        seed: int = 0,
        measured_form: Callable[[Schedule], Schedule] | None = None,
        pool: WorkerPool | None = None,
    ) -> None:
        self.evaluator = evaluator
        self._pool: WorkerPool = OwnProcess(evaluator) if pool is None else pool
        self._measured_form = measured_form
        self._cache = cache if cache is not None else ScoreCache(Path(":memory:"))
        self._check = check
        self._limits = dict(limits or {})
        self._seed = seed
        self._chosen: dict[str, list[int]] = {}

    def samples(self, split: str) -> list[SampleKey]:
        """List the samples of a split that are used, in an order that never changes."""
        samples = self.evaluator.samples(split)
        return [samples[index] for index in self._indices(split)]

    def tasks(self, split: str) -> list[str]:
        """List the task of each of `samples`."""
        return [sample.task for sample in self.samples(split)]

    def images(self, split: str) -> list[str]:
        """List the image of each of `samples`."""
        return [sample.image for sample in self.samples(split)]

    @cached_property
    def probing(self) -> ProbingEvaluator | None:
        """The evaluator, if it can probe; else None."""
        return self.evaluator if isinstance(self.evaluator, ProbingEvaluator) else None

    def measured_form(self, schedule: Schedule) -> Schedule:
        """Return what is measured in a schedule's place.

        Args:
            schedule: A schedule for any depth.

        Returns:
            A schedule with layers of the measured model's depth.
        """
        if self._measured_form is not None:
            return self._measured_form(schedule)
        return as_measured(schedule, self.evaluator.shape)

    def scores(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Score samples, measuring only those not yet known.

        Args:
            schedule: A schedule as `measured_form` gives it.
            split: Name of the split.
            indices: Indices into `samples(split)`; measured together, so give one block.

        Returns:
            Scores in the order asked, `(len(indices),)`.

        Raises:
            PrunetuneError: The evaluator cannot score the schedule.
        """
        self.measure([schedule], split, [indices])
        names, _ = self._asked(split, indices)
        known = self._cache.get(schedule.content_hash, split, names)
        return np.array([known[name] for name in names])

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        """Probe samples, measuring only those not yet probed; `scores` then knows them too.

        Args:
            schedule: A schedule as `measured_form` gives it.
            split: Name of the split.
            indices: Indices into `samples(split)`; measured together, so give one block.

        Returns:
            The probe, in the order asked.

        Raises:
            SettingsError: The evaluator does not probe.
            PrunetuneError: The evaluator cannot score the schedule.
        """
        require_probing(self.evaluator)
        self.measure([schedule], split, [indices], probes=True)
        names, _ = self._asked(split, indices)
        known = self._cache.get_probes(schedule.content_hash, split, names)
        columns = np.array([known[name] for name in names]).reshape(-1, len(Probe._fields))
        return Probe(*columns.T)

    @property
    def workers(self) -> int:
        """How many blocks can be measured at once now."""
        return self._pool.capacity

    def measure(
        self,
        schedules: Sequence[Schedule],
        split: str,
        blocks: Sequence[Sequence[int]],
        *,
        probes: bool = False,
    ) -> None:
        """Measure what is not yet known of schedules on samples, on all workers at once.

        Args:
            schedules: Schedules as `measured_form` gives them.
            split: Name of the split.
            blocks: Indices into `samples(split)`, in blocks that are measured together; all
                schedules see a block before the next.
            probes: Whether to probe.

        Raises:
            PrunetuneError: The evaluator cannot score a schedule.
        """
        under_way: dict[Future[Measured], Assignment] = {}
        begun: set[tuple[str, int]] = set()
        for block in blocks:
            for schedule in schedules:
                assignment = self.missing(schedule, split, block, probes=probes)
                if assignment is None or (schedule.content_hash, block[0]) in begun:
                    continue
                begun.add((schedule.content_hash, block[0]))
                under_way[self.begin(assignment)] = assignment
                self._keep_done(under_way, seconds=0)
        while under_way:
            self._keep_done(under_way, _CHECK_EVERY)

    def missing(
        self, schedule: Schedule, split: str, indices: Sequence[int], *, probes: bool = False
    ) -> Assignment | None:
        """Say what must be measured before `scores`, or `probe`, knows samples.

        Args:
            schedule: A schedule as `measured_form` gives it.
            split: Name of the split.
            indices: Indices into `samples(split)`.
            probes: Whether probes are wanted.

        Returns:
            What to `begin`; None when all is known.
        """
        names, used = self._asked(split, indices)
        look_up = self._cache.get_probes if probes else self._cache.get
        known = look_up(schedule.content_hash, split, names)
        missing = {
            name: index for name, index in zip(names, used, strict=True) if name not in known
        }
        if not missing:
            return None
        return Assignment(schedule, split, tuple(missing.values()), probes)

    def begin(self, assignment: Assignment) -> Future[Measured]:
        """Give an assignment to the workers.

        Args:
            assignment: What `missing` returned.

        Returns:
            Its answer to come, for `wait`.
        """
        self._check()
        return self._pool.submit(assignment)

    def wait(
        self, futures: Collection[Future[Measured]], seconds: float = _CHECK_EVERY
    ) -> set[Future[Measured]]:
        """Wait until some assignments are measured.

        Args:
            futures: What `begin` returned.
            seconds: Longest time to wait.

        Returns:
            Those that are done, maybe none.
        """
        done = self._pool.wait(futures, seconds)
        if not done:
            self._check()
        return done

    def ask(self, question: Question) -> Any:
        """Have something worked out where the model is.

        Args:
            question: What.

        Returns:
            The answer.

        Raises:
            SearchInterruptedError: The user asked to stop.
            PrunetuneError: It cannot be worked out.
        """
        self._check()
        answer = self._pool.submit(question)
        while not self.wait([answer]):
            pass
        return answer.result()

    def keep(self, assignment: Assignment, answer: Future[Measured]) -> None:
        """Keep what a worker has measured, so that it is known from now on.

        Args:
            assignment: The assignment.
            answer: Its answer, which is done.

        Raises:
            PrunetuneError: The evaluator could not score the schedule.
        """
        measured = answer.result()
        samples = self.evaluator.samples(assignment.split)
        names = [samples[index].identifier for index in assignment.indices]
        content_hash, split = assignment.schedule.content_hash, assignment.split
        if isinstance(measured, Probe):
            rows = zip(*(values.tolist() for values in measured), strict=True)
            probes = dict(zip(names, map(SampleProbe._make, rows), strict=True))
            self._cache.put_probes(content_hash, split, probes)
        else:
            scores = dict(zip(names, map(float, measured), strict=True))
            self._cache.put(content_hash, split, scores)

    def _keep_done(self, under_way: dict[Future[Measured], Assignment], seconds: float) -> None:
        """Keep what is done of some assignments, waiting for a while."""
        for future in self.wait(under_way, seconds):
            self.keep(under_way.pop(future), future)

    def _asked(self, split: str, indices: Sequence[int]) -> tuple[list[str], list[int]]:
        """Return the identifiers of samples, and their indices into all of the split's."""
        samples = self.evaluator.samples(split)
        chosen = self._indices(split)
        used = [chosen[index] for index in indices]
        return [samples[index].identifier for index in used], used

    def _indices(self, split: str) -> list[int]:
        """Indices of the used samples into all samples of a split, rising."""
        if split not in self._chosen:
            samples = self.evaluator.samples(split)
            limit = self._limits.get(split, len(samples))
            tasks = [sample.task for sample in samples]
            self._chosen[split] = equal_shares(tasks, limit, self._seed)
        return self._chosen[split]

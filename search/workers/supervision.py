"""A pool whose workers may die, hang, come late or never come back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from pruners.errors import WorkerError
from search.workers.assignments import Order

MOST_LOSSES = 3
"""Workers that may be lost with one assignment, or by starting in a row, before that is given up:
the cause is then not by chance."""

DEFAULT_PATIENCE = 900.0
"""Seconds for a worker to load its model or to measure an assignment: a block of 50 samples, on a
7B model's slowest device in reach, with what loading takes."""

_POLL = 0.2  # seconds between looks at the clock; answers are noticed at once


class Worker(Protocol):
    """One worker, from its start to its end."""

    ready: Future[str]
    """Is done when it can measure; holds its evaluator's fingerprint."""

    waits_for_place: bool
    """Whether it may have to wait for resources before it starts; such a start is never late."""

    def submit(self, order: Order) -> Future[Any]:
        """Begin to measure; one assignment at a time."""

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error of its futures says that the worker itself is gone."""

    def end(self, *, at_once: bool) -> None:
        """End its process; when not at once, after what it is doing."""


@dataclass
class _Duty:
    """An assignment on its way."""

    order: Order
    answer: Future[Any]
    losses: int = 0


@dataclass
class _Place:
    """A worker's place in the pool, taken by one worker after another."""

    number: int
    worker: Worker
    since: float = field(default_factory=time.monotonic)
    """When it began what it is doing: starting, or its duty."""
    losses: int = 0
    ready: bool = False
    duty: _Duty | None = None
    doing: Future[Any] | None = None


class SupervisedPool:
    """Gives assignments to workers; whoever is lost is replaced, and what it measured repeated.

    Args:
        start: Starts the worker of a place, given its number.
        places: How many workers there shall be.
        fingerprint: Fingerprint that the workers' evaluators must have.
        patience: Seconds after which a worker that does not answer is ended and replaced.
        on_close: Called when all workers have been ended.

    Raises:
        WorkerError: A worker cannot be started; those that were have been ended.
    """

    def __init__(
        self,
        start: Callable[[int], Worker],
        places: int,
        fingerprint: str,
        patience: float = DEFAULT_PATIENCE,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._start_worker = start
        self._fingerprint = fingerprint
        self._patience = patience
        self._on_close = on_close
        self._queue: deque[_Duty] = deque()
        self._places: list[_Place] = []
        try:
            for number in range(places):
                self._places.append(_Place(number, self._start(number)))
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> int:
        """Workers that are ready, at least 1."""
        return max(1, sum(place.ready for place in self._places))

    def submit(self, order: Order) -> Future[Any]:
        """Take on an assignment; the next free worker gets it."""
        duty = _Duty(order, Future())
        self._queue.append(duty)
        self._look_around()
        return duty.answer

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        """Wait until some assignments are measured, and keep the workers at it."""
        end = time.monotonic() + seconds
        while True:
            self._look_around()
            done = {future for future in futures if future.done()}
            left = end - time.monotonic()
            if done or left <= 0:
                return done
            wait(self._pending(), min(left, _POLL), FIRST_COMPLETED)

    def close(self) -> None:
        """End all workers."""
        with ExitStack() as stack:  # one that cannot be ended keeps no other from it
            stack.callback(self._on_close)
            for place in self._places:
                at_once = not place.ready or place.duty is not None
                stack.callback(place.worker.end, at_once=at_once)
            self._places = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, number: int) -> Worker:
        try:
            return self._start_worker(number)
        except OSError as error:
            raise WorkerError(
                f"worker {number} cannot be started ({error.strerror or error}); use fewer "
                "--workers, or allow more processes"
            ) from error

    def _pending(self) -> Sequence[Future[Any]]:
        """What workers are about to do."""
        starting = [place.worker.ready for place in self._places if not place.ready]
        return [*starting, *(place.doing for place in self._places if place.doing is not None)]

    def _look_around(self) -> None:
        """Take in what has happened to the workers, and give the free ones something to do."""
        for place in self._places:
            if place.doing is not None:
                self._look_at_duty(place, place.doing)
            if not place.ready:
                self._look_at_start(place)
            if place.ready and place.duty is None and self._queue:
                self._give(place, self._queue.popleft())

    def _give(self, place: _Place, duty: _Duty) -> None:
        place.duty, place.since = duty, time.monotonic()
        try:
            place.doing = place.worker.submit(duty.order)
        except Exception as error:  # whatever a library raises for a worker that is gone
            if not place.worker.is_loss(error):
                raise
            # It was lost before, while it had nothing to do.
            self._queue.appendleft(duty)
            place.duty = None
            self._replace(place, str(error))

    def _look_at_start(self, place: _Place) -> None:
        ready = place.worker.ready
        if not ready.done():
            late = time.monotonic() - place.since > self._patience
            if late and not place.worker.waits_for_place:
                self._replace(place, f"it was not ready within {self._patience:g} s")
            elif late and not any(each.ready for each in self._places):
                raise WorkerError(
                    f"no worker was ready within {self._patience:g} s: the cluster has no free "
                    "place for one (`ray status` shows what it has); add machines, or wait longer "
                    "with --worker-timeout"
                )
            return
        error = ready.exception()
        if error is None:
            self._check_fingerprint(ready.result())
            place.ready, place.losses = True, 0
        elif place.worker.is_loss(error):
            self._replace(place, str(error))
        else:
            raise error

    def _check_fingerprint(self, found: str) -> None:
        if found != self._fingerprint:
            raise WorkerError(
                f"a worker measures another model (fingerprint {found[:12]}, expected "
                f"{self._fingerprint[:12]}): its machine holds other files under the same name; "
                "give all machines the same model and the same version of prunetune"
            )

    def _look_at_duty(self, place: _Place, doing: Future[Any]) -> None:
        assert place.duty is not None  # what it is doing
        if not doing.done():
            if time.monotonic() - place.since > self._patience:
                self._replace(place, f"it did not answer for {self._patience:g} s")
            return
        error = doing.exception()
        if error is not None and place.worker.is_loss(error):
            self._replace(place, str(error))
            return
        answer = place.duty.answer
        place.duty = place.doing = None
        if error is None:
            answer.set_result(doing.result())
        else:
            answer.set_exception(error)

    def _replace(self, place: _Place, reason: str) -> None:
        """Start another worker in a place; what the lost one was measuring comes first again."""
        place.worker.end(at_once=True)
        duty = place.duty
        if duty is None:
            place.losses += 1
            if place.losses >= MOST_LOSSES:
                raise WorkerError(
                    f"worker {place.number} was lost {place.losses} times before it was ready "
                    f"(last: {reason}); look at its messages above, or use fewer --workers if "
                    "memory is short"
                )
        else:
            duty.losses += 1
            if duty.losses < MOST_LOSSES:
                self._queue.appendleft(duty)
            else:
                duty.answer.set_exception(
                    WorkerError(
                        f"{duty.losses} workers were lost while measuring {duty.order} "
                        f"(last: {reason}); if memory is short, use fewer --workers or a smaller "
                        "--batch-size; if it takes long, a longer --worker-timeout. The same "
                        "command continues"
                    )
                )
        place.duty = place.doing = None
        place.ready, place.since = False, time.monotonic()
        place.worker = self._start(place.number)

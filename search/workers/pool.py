"""What a search needs of those who measure for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, Protocol, Self

from search.evaluators import Evaluator
from search.workers.assignments import Order

EvaluatorMaker = Callable[[], Evaluator]
"""Makes the evaluator of a worker in its own process; must be picklable."""


class WorkerPool(Protocol):
    """Measures assignments, several at a time where it has several workers.

    For one thread: nothing happens but within calls of it.
    """

    @property
    def capacity(self) -> int:
        """How many assignments it can measure at once now, at least 1."""

    def submit(self, order: Order) -> Future[Any]:
        """Take on an assignment.

        Args:
            order: What to do.

        Returns:
            What will hold the answer, or a `PrunetuneError`; to be waited for with `wait` only.
        """

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        """Wait until some of what `submit` returned is done.

        Args:
            futures: What to wait for.
            seconds: Longest time to wait.

        Returns:
            Those that are done, maybe none.

        Raises:
            WorkerError: There are no workers to measure, and there will be none.
        """

    def close(self) -> None:
        """End all workers; what they were measuring is lost."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class OwnProcess:
    """Measures in this process, at once.

    Args:
        evaluator: What measures.
    """

    capacity = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def submit(self, order: Order) -> Future[Any]:
        """Measure; errors of the evaluator are raised here."""
        future: Future[Any] = Future()
        future.set_result(order.measure(self._evaluator))
        return future

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        """Return them all."""
        return set(futures)

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

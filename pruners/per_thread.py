"""State of the call that is under way, apart for each thread."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class PerThread(threading.local, Generic[T]):
    """A value that each thread sets and reads for itself.

    Attributes:
        value: The thread's value; None until it is set.
    """

    value: T | None = None

    def __reduce__(self) -> tuple[type[PerThread[T]], tuple[()]]:
        # A copy of a pruned model starts with no call under way.
        return type(self), ()


class UnderWay(Generic[T]):
    """The call that each thread has under way."""

    def __init__(self) -> None:
        """Start with none."""
        self._own: PerThread[T] = PerThread()
        self._threads: set[threading.Thread] = set()

    @property
    def value(self) -> T | None:
        """This thread's call."""
        return self._own.value

    @property
    def elsewhere(self) -> bool:
        """Whether another thread has a call under way; one that has ended has none any more."""
        others = self._threads - {threading.current_thread()}
        return any(thread.is_alive() for thread in others)

    def enter(self, call: T) -> None:
        """Start a call of this thread."""
        self._own.value = call
        self._threads.add(threading.current_thread())

    def leave(self) -> T | None:
        """End this thread's call, if there is one.

        Returns:
            The call.
        """
        self._threads.discard(threading.current_thread())
        call, self._own.value = self._own.value, None
        return call

    def __reduce__(self) -> tuple[type[UnderWay[T]], tuple[()]]:
        return type(self), ()

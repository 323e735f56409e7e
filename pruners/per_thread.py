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

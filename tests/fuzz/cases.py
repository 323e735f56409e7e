"""Many inputs, each to be taken or refused in words, in little time and memory."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from pruners.errors import PrunetuneError

Input = TypeVar("Input")

EVERYDAY = 300
"""Cases of most kinds in a run that does not ask for all of them."""

CPU_SECONDS = 20
"""Time of the processor, which other programs do not take from it, that no case may need."""

MEMORY = 2 * 1024**3
"""Bytes beside those of the process at its start that no case may ask for."""

LONGEST_MESSAGE = 4000


class HangError(AssertionError):
    """A case took too long."""


@dataclass
class Cases:
    """Counts the cases of one test.

    Attributes:
        full: Whether all cases are to be run.
        accepted: Inputs that were taken.
        refused: Inputs that were refused with an error of this library.
    """

    full: bool
    accepted: int = 0
    refused: int = 0

    @property
    def count(self) -> int:
        """Cases so far."""
        return self.accepted + self.refused

    def run(
        self,
        inputs: SearchStrategy[Input],
        use: Callable[[Input], object],
        count: int,
        everyday: int = EVERYDAY,
    ) -> None:
        """Use inputs; every error but the library's own makes the test fail, with a small example.

        Args:
            inputs: What may come in.
            use: Everything that the program does with an input.
            count: Cases where all are asked for.
            everyday: Cases where not.
        """
        wanted = self.count + (count if self.full else everyday)

        @settings(
            max_examples=wanted - self.count,
            database=None,
            deadline=None,  # counted in time of the processor instead, below
            derandomize=not self.full,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def one(given_input: Input) -> None:
            try:
                with _little_time():
                    use(given_input)
            except PrunetuneError as error:
                _check_message(str(error))
                self.refused += 1
            else:
                self.accepted += 1

        with _little_memory():
            one()
        assert self.count >= wanted


def _check_message(message: str) -> None:
    assert message.strip()
    assert len(message) <= LONGEST_MESSAGE, message[:LONGEST_MESSAGE]
    assert "Traceback" not in message
    message.encode()  # a terminal could print it


@contextmanager
def _little_time() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError(f"a case took over {CPU_SECONDS} s of the processor")

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


@contextmanager
def _little_memory() -> Iterator[None]:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    previous = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, previous)

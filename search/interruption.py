"""Ending cleanly on Ctrl-C and on SIGTERM."""

from __future__ import annotations

import signal

from studies.signals import FirstSignal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SearchInterruptedError(Exception):
    """The user asked to stop; what is finished is kept."""


class Interruption(FirstSignal):
    """Turns the first SIGINT or SIGTERM into a request that work in progress looks at."""

    def __init__(self) -> None:
        super().__init__(*SIGNALS)

    def check(self) -> None:
        """Stop here if that was asked for; called between blocks of samples.

        Raises:
            SearchInterruptedError: A signal has arrived.
        """
        if self.signal is not None:
            raise SearchInterruptedError

    @property
    def exit_status(self) -> int:
        """The shell's status of a program ended by the signal; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

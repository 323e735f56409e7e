"""Ending cleanly on Ctrl-C and on SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SearchInterruptedError(Exception):
    """The user asked to stop; what is finished is kept."""


class Interruption:
    """Turns the first SIGINT or SIGTERM into a request that work in progress looks at.

    As a context manager it takes over the signals and gives them back. A second signal takes effect
    at once, as if none of this were there.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

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

    def __enter__(self) -> Interruption:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():  # maybe twice: a signal may come amid it
            signal.signal(number, handler)

"""Noticing a signal, so that work in progress can end cleanly."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self


class FirstSignal:
    """Notes the first of some signals; a second one takes effect at once, as if this were not here.

    As a context manager it takes over the signals and gives them back.

    Attributes:
        signal: The signal that has arrived; None until then.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        """Say what to wait for.

        Args:
            *numbers: The signals.
        """
        self.signal: signal.Signals | None = None
        self._numbers = numbers
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in self._numbers:
            self._previous[number] = signal.getsignal(number)  # first: one may arrive at once
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():  # maybe twice: a signal may come amid it
            signal.signal(number, handler)

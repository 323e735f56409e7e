from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from search.interruption import SIGNALS, Interruption, SearchInterruptedError

TraceFunction = Callable[[FrameType, str, Any], Any]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_is_not(number: signal.Signals) -> None:
    second = []
    before = signal.signal(number, lambda *_: second.append(True))
    try:
        with Interruption() as interruption:
            interruption.check()
            assert interruption.exit_status == 0
            os.kill(os.getpid(), number)
            with pytest.raises(SearchInterruptedError):
                interruption.check()
            assert interruption.exit_status == 128 + number
            assert second == []
            os.kill(os.getpid(), number)
            assert second == [True]
    finally:
        signal.signal(number, before)


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_the_moment_its_handler_is_there_is_noted(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    install = signal.signal
    taken: list[int] = []

    def install_and_send(which: int, handler: Any) -> Any:
        previous = install(which, handler)
        if which == number and not taken:
            taken.append(which)
            os.kill(os.getpid(), number)
        return previous

    monkeypatch.setattr(signal, "signal", install_and_send)
    with Interruption() as interruption:
        assert interruption.signal is number
        # A second one would now take effect at once.
        assert signal.getsignal(number) is before[number]
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


@pytest.mark.parametrize("step", range(8))
def test_a_signal_while_handlers_are_given_back_does_no_harm(step: int) -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    steps = 0

    def follow(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        nonlocal steps
        if frame.f_code is not Interruption._restore.__code__:
            return follow if frame.f_code is Interruption.__exit__.__code__ else None
        if event == "line" and signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]:
            if steps == step:
                os.kill(os.getpid(), signal.SIGTERM)
            steps += 1
        return follow

    tracing = sys.gettrace()
    try:
        with Interruption():
            sys.settrace(follow)
    finally:
        sys.settrace(tracing)
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_numpy_is_there_before_torch_is_imported() -> None:
    """Torch looks for numpy as it is loaded and drops what that raises: a Ctrl-C then was lost."""
    order = "import sys, search.planning; print('numpy' in sys.modules, 'torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", order], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["True", "False"]

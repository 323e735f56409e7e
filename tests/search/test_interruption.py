from __future__ import annotations

import os
import signal

import pytest

from search.interruption import Interruption, SearchInterruptedError


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

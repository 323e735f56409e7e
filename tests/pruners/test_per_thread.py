"""Which thread has which call under way."""

from __future__ import annotations

import copy
import pickle
import threading

from pruners.per_thread import UnderWay


def test_each_thread_has_a_call_of_its_own() -> None:
    calls: UnderWay[str] = UnderWay()
    entered, go_on = threading.Event(), threading.Event()
    seen: list[object] = []

    def other() -> None:
        seen.append(calls.value)
        calls.enter("other")
        entered.set()
        assert go_on.wait(60)
        seen.append(calls.leave())

    thread = threading.Thread(target=other)
    calls.enter("own")
    thread.start()
    assert entered.wait(60)
    assert calls.elsewhere
    assert calls.leave() == "own"
    assert calls.value is None
    assert calls.leave() is None
    assert calls.elsewhere
    go_on.set()
    thread.join()
    assert seen == [None, "other"]
    assert not calls.elsewhere


def test_a_thread_that_has_ended_has_no_call() -> None:
    calls: UnderWay[str] = UnderWay()
    thread = threading.Thread(target=calls.enter, args=("never left",))
    thread.start()
    thread.join()
    assert not calls.elsewhere


def test_copies_start_without_a_call() -> None:
    calls: UnderWay[str] = UnderWay()
    calls.enter("own")
    for twin in (copy.deepcopy(calls), pickle.loads(pickle.dumps(calls))):  # noqa: S301
        assert twin.value is None

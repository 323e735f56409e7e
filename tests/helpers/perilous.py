"""An evaluator that notes what it measures, and falls into traps; imported by workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pruners.errors import DataError
from pruners.schedule import Schedule
from search.analytic import AnalyticEvaluator
from search.evaluators import Probe

MEETING = 50
"""Seconds that a worker waits for another; fewer than the tests' pools wait for it."""


class PerilousEvaluator(AnalyticEvaluator):
    """Takes a trap out of its folder before it measures, if there is one: each traps one worker."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._nested = False
        _spring(folder, "load")

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        self._note(schedule, split, indices)
        return super().score(schedule, split, indices)

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        self._note(schedule, split, indices)
        self._nested = True
        try:
            return super().probe(schedule, split, indices)
        finally:
            self._nested = False

    def _note(self, schedule: Schedule, split: str, indices: Sequence[int]) -> None:
        if self._nested:
            return
        _spring(self._folder, "measure")
        line = f"{schedule.content_hash} {split} {','.join(map(str, indices))} {os.getpid()}\n"
        with (self._folder / "log").open("a") as log:
            log.write(line)


def set_traps(folder: Path, occasion: str, kind: str, number: int = 1) -> None:
    """Set traps of a kind: kill, hang, refuse or meet, when a worker loads or measures.

    Who meets waits until another process has measured.
    """
    for count in range(number):
        (folder / f"{occasion}-{kind}-{count}").touch()


def measured(folder: Path) -> list[tuple[str, str, int]]:
    """Read what was measured: schedule, split and sample."""
    if not (folder / "log").exists():
        return []
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return [
        (content_hash, split, int(index))
        for content_hash, split, indices, _ in lines
        for index in indices.split(",")
    ]


def processes(folder: Path) -> set[int]:
    """Read which processes measured."""
    if not (folder / "log").exists():
        return set()
    return {int(line.split()[3]) for line in (folder / "log").read_text().splitlines()}


def _spring(folder: Path, occasion: str) -> None:
    for trap in folder.glob(f"{occasion}-*"):
        try:
            trap.unlink()
        except FileNotFoundError:
            continue  # another worker was in it
        kind = trap.name.split("-")[1]
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "hang":
            time.sleep(1000)
        elif kind == "meet":
            deadline = time.monotonic() + MEETING
            while not processes(folder) - {os.getpid()} and time.monotonic() < deadline:
                time.sleep(0.01)
        else:
            raise DataError("the data is gone; bring it back")

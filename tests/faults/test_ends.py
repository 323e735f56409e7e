"""Runs that are interrupted, killed, or started twice."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tests.faults.programs import (
    ROOT,
    STUDY,
    TRIALS,
    command,
    continues,
    end,
    finished,
    start,
    when,
)

sys.path.insert(0, str(ROOT / "benchmarks"))

from kill_resume import kill_and_resume

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = 50

PHASES: dict[str, Callable[[Path], bool]] = {
    "as it starts": lambda runs: True,
    "with the folder made": lambda runs: (runs / STUDY / "identity.json").exists(),
    "before the first trial": lambda runs: (runs / STUDY / "study.db").exists(),
    "among trials": lambda runs: len(finished(runs)) >= TRIALS // 2,
    "after the trials": lambda runs: len(finished(runs)) >= TRIALS,
    "with a schedule written": lambda runs: (runs / STUDY / "schedule.json").exists(),
    "while results are written": lambda runs: (runs / STUDY / "trials.csv").exists(),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupted(
    phase: str, number: signal.Signals, runs: Path, survived: Callable[[str], None]
) -> None:
    process = start(command(runs))
    if phase == "as it starts":
        time.sleep(0.5)
    when(process, lambda: PHASES[phase](runs), number)
    ended = end(process)
    if number == signal.SIGTERM and phase in ("as it starts", "with the folder made"):
        assert ended.status in (0, 128 + number, -number)  # nothing runs yet that could end well
    else:
        assert ended.status in (0, 128 + number), ended.output
    assert "Traceback" not in ended.output, ended.output
    continues(runs, finished(runs))
    survived("Ctrl-C" if number == signal.SIGINT else "SIGTERM")


def test_a_second_run_of_a_study(runs: Path, survived: Callable[[str], None]) -> None:
    first = start(command(runs, "--trials", "60"))
    while first.poll() is None and not finished(runs):
        time.sleep(0.01)
    second = end(start(command(runs, "--trials", "60")))
    assert second.status == 2, second.output
    second.said("another process is running the study")
    ended = end(first)
    assert ended.status == 0, ended.output
    continues(runs, finished(runs))
    survived("second run")


def test_killed_at_random_moments(runs: Path, survived: Callable[[str, int], None]) -> None:
    program = [sys.executable, str(ROOT / "search" / "run.py")]
    study = ["--budget-tflops", "2", "--model", "analytic", "--trials", "12", "--out", str(runs)]
    outcome = kill_and_resume(
        [*program, *study], runs, KILLS, 12, 2.0, seed=0, console=Console(quiet=True)
    )
    assert outcome.lost == 0
    assert outcome.invalid == 0
    assert outcome.as_uninterrupted == outcome.studies
    survived("kill -9 of the driver", outcome.kills)

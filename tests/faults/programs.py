"""Running the program as a user does, and looking at what it left."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pruners import load_schedule

ROOT = Path(__file__).parents[2]
TRIALS = 12
STUDY = "study"

FINISHED = (
    "SELECT study_name, number, value FROM trials JOIN studies USING (study_id) "
    "JOIN trial_values USING (trial_id) WHERE state = 'COMPLETE'"
)
"""Finished trials in Optuna's tables."""

MEASURED_TWICE = (
    "SELECT study_name, value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
    "JOIN studies USING (study_id) WHERE key = 'measured_hash' AND state = 'COMPLETE' "
    "AND trial_id NOT IN (SELECT trial_id FROM trial_user_attributes "
    "WHERE key IN ('duplicate_of', 'known_blocks')) "
    "GROUP BY study_name, value_json HAVING COUNT(*) > 1"
)
"""Schedules that more than one trial measured from the start."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    output: str

    def said(self, text: str) -> None:
        """Check that it ended in words for a user, with a text among them."""
        assert "Traceback" not in self.output, self.output
        assert text in self.output, self.output


def command(runs: Path, *more: str) -> list[str]:
    """The command of a small study; always the same one."""
    return [
        *(sys.executable, str(ROOT / "search" / "run.py")),
        *("--budget-tflops", "2", "--model", "analytic", "--trials", str(TRIALS)),
        *("--study", STUDY, "--out", str(runs), *more),
    ]


def start(arguments: list[str], prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """Start it; `prepare` is called in the new process."""
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=prepare,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for it."""
    output, _ = process.communicate()
    return Ended(process.returncode, output)


def run(runs: Path, *more: str, prepare: Callable[[], None] | None = None) -> Ended:
    """Run it to its end."""
    return end(start(command(runs, *more), prepare))


def finished(runs: Path) -> dict[int, float]:
    """Finished trials with their values, as any reader of SQLite sees them."""
    database = runs / STUDY / "study.db"
    if not database.exists():
        return {}
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return {number: value for _, number, value in connection.execute(FINISHED)}


def when(
    process: subprocess.Popen[str], reached: Callable[[], bool], number: signal.Signals
) -> None:
    """Send a signal as soon as something is so, or nothing if the process ends before."""
    while process.poll() is None and not reached():
        time.sleep(0.01)
    if process.poll() is None:
        process.send_signal(number)


def continues(runs: Path, before: dict[int, float]) -> None:
    """Check that the same command completes the study, and keeps every trial that had finished."""
    again = run(runs)
    assert again.status == 0, again.output
    again.said("Schedule:")
    after = finished(runs)
    assert {number: after.get(number) for number in before} == before
    assert len(after) >= TRIALS
    assert_measured_once(runs)
    schedule = load_schedule(runs / STUDY / "schedule.json")
    assert schedule.cost is not None
    assert schedule.cost.tflops <= 2
    assert schedule.evidence is not None
    assert set(schedule.evidence.splits) == {"search", "confirm", "report"}


def assert_measured_once(runs: Path) -> None:
    """Check that no two trials that are no repetitions of others have the same schedule."""
    with closing(sqlite3.connect(runs / STUDY / "study.db")) as connection:
        assert connection.execute(MEASURED_TWICE).fetchall() == []

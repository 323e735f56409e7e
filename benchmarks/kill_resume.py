"""Kills studies at random moments and checks that nothing finished is ever lost.

    python benchmarks/kill_resume.py

runs the program's own command once without interruption. Then it starts it as another study and
kills it (SIGKILL) at a random moment, again and again; each time the same command continues the
study. Moments are random within a phase: while starting, in the trial after a random number of
them, or while confirming, reporting and writing. Once all its trials have finished, a study may
complete, and the next kill is of a new one. After every kill, each trial that had finished before
must be there with the same value; each completed study's schedule must load, meet its budget and
carry the evidence of all splits.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pruners import load_schedule
from studies.files import write_text

REPOSITORY = Path(__file__).parent.parent
_KILLS_WHILE_STARTING = 0.25  # share; the others are in trials and at the end
_FINISHED = """
SELECT trials.number, trial_values.value FROM trials JOIN trial_values USING (trial_id)
WHERE trials.state = 'COMPLETE'
"""


@dataclass(frozen=True)
class Outcome:
    """What the kills showed.

    Attributes:
        kills: Processes killed while they ran.
        ended_before_kill: Processes that had already ended well when their moment came.
        trials: Trials of each study.
        finished_after_kill: Finished trials found after each kill.
        lost: Finished trials that were missing or changed after a later kill.
        stale: Trials that were in flight when killed; they count as failed, and are tried again.
        studies: Studies that were killed, continued and completed.
        invalid: Those whose schedule does not load, breaks the budget or lacks evidence.
        as_uninterrupted: Those whose schedule is the one of the study that was not interrupted.
    """

    kills: int
    ended_before_kill: int
    trials: int
    finished_after_kill: list[int]
    lost: int
    stale: int
    studies: int
    invalid: int
    as_uninterrupted: int

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and every study came to a valid end."""
        return not self.lost and not self.invalid


@dataclass(frozen=True)
class Phases:
    """Seconds that each part of an uninterrupted run took."""

    starting: float
    trial: float
    ending: float


def main(
    kills: Annotated[int, typer.Option(min=1)] = 20,
    trials: Annotated[int, typer.Option(min=1)] = 12,
    budget: Annotated[float, typer.Option(help="TFLOPs.")] = 2.0,
    model: Annotated[str, typer.Option(help="embedded or analytic.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON to write.")] = None,
) -> None:
    """Kill, resume, check; exit with 1 when something was lost or invalid."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        command = [
            *(sys.executable, str(REPOSITORY / "search" / "run.py")),
            *("--budget-tflops", str(budget), "--model", model, "--trials", str(trials)),
            *("--out", str(runs)),
        ]
        outcome = kill_and_resume(command, runs, kills, trials, budget, seed, console)
    console.print_json(json.dumps(asdict(outcome)))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(asdict(outcome), indent=2) + "\n")
    console.print("Nothing was lost." if outcome.passed else "FAILED: see above.")
    raise typer.Exit(0 if outcome.passed else 1)


def kill_and_resume(
    command: list[str],
    runs: Path,
    kills: int,
    trials: int,
    budget: float,
    seed: int,
    console: Console,
) -> Outcome:
    """Kill studies at random moments, let each complete, and look at what is there."""
    phases = _uninterrupted(command, runs, trials)
    moments = random.Random(seed)
    finished_after_kill: list[int] = []
    lost = ended = stale = studies = invalid = same = 0
    folder = runs / "killed-0"
    kept: dict[int, float] = {}
    for number in range(1, kills + 1):
        running = [*command, "--study", folder.name]
        ended += not _run_and_kill(running, folder, len(kept), trials, phases, moments)
        finished = _finished_trials(folder)
        lost += _lost(kept, finished)
        kept = finished
        finished_after_kill.append(len(finished))
        console.print(f"{number}/{kills}: killed with {len(finished)} of {trials} finished")
        if len(finished) < trials and number < kills:
            continue
        _run_to_end(running)
        lost += _lost(kept, _finished_trials(folder))
        stale += _failed_trials(folder)
        invalid += not _valid(folder, budget, trials)
        same += _same(folder, runs / "uninterrupted")
        studies += 1
        folder, kept = runs / f"killed-{studies}", {}
    return Outcome(
        kills=kills - ended,
        ended_before_kill=ended,
        trials=trials,
        finished_after_kill=finished_after_kill,
        lost=lost,
        stale=stale,
        studies=studies,
        invalid=invalid,
        as_uninterrupted=same,
    )


def _uninterrupted(command: list[str], runs: Path, trials: int) -> Phases:
    started = time.monotonic()
    process = _start([*command, "--study", "uninterrupted"])
    _wait_for(process, runs / "uninterrupted", 1)
    first = time.monotonic()
    _wait_for(process, runs / "uninterrupted", trials)
    last = time.monotonic()
    _end(process)
    return Phases(first - started, (last - first) / trials, time.monotonic() - last)


def _run_and_kill(
    command: list[str],
    folder: Path,
    finished: int,
    trials: int,
    phases: Phases,
    moments: random.Random,
) -> bool:
    """Kill within a random phase; False when the process had ended well before."""
    process = _start(command)
    if moments.random() < _KILLS_WHILE_STARTING:
        span = phases.starting
    else:
        trial = moments.randint(finished, trials)
        _wait_for(process, folder, trial)
        span = phases.trial if trial < trials else phases.ending
    try:
        process.wait(timeout=moments.uniform(0, span))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    _end(process)
    return False


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _wait_for(process: subprocess.Popen[str], folder: Path, finished: int) -> None:
    """Wait until so many trials have finished, or the process has ended."""
    while process.poll() is None and len(_finished_trials(folder)) < finished:
        time.sleep(0.02)


def _end(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{process.args} failed: {errors}")


def _run_to_end(command: list[str]) -> None:
    _end(_start(command))


def _lost(before: dict[int, float], after: dict[int, float]) -> int:
    return sum(after.get(trial) != value for trial, value in before.items())


def _finished_trials(folder: Path) -> dict[int, float]:
    """Finished trials as any SQLite reader sees them, by number; none before there is a file."""
    database = folder / "study.db"
    if not database.exists():
        return {}
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return dict(connection.execute(_FINISHED).fetchall())


def _failed_trials(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        rows = connection.execute("SELECT COUNT(*) FROM trials WHERE state = 'FAIL'")
        return int(rows.fetchone()[0])


def _valid(folder: Path, budget: float, trials: int) -> bool:
    schedule = load_schedule(folder / "schedule.json")
    return (
        len(_finished_trials(folder)) >= trials
        and schedule.cost is not None
        and schedule.cost.tflops <= budget
        and schedule.evidence is not None
        and set(schedule.evidence.splits) == {"search", "confirm", "report"}
    )


def _same(first: Path, second: Path) -> bool:
    schedules = [load_schedule(folder / "schedule.json") for folder in (first, second)]
    return schedules[0].content_hash == schedules[1].content_hash


if __name__ == "__main__":
    typer.run(main)

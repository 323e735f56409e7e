"""What an interrupted run leaves."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pruners import load_schedule
from search.analytic import AnalyticEvaluator
from search.command_line import run
from search.searching import search_schedules
from studies.results import read_results
from tests.search.job.command import ANALYTIC, FRONT

PROGRAM = Path(__file__).parents[3] / "search" / "run.py"


@pytest.fixture
def _heard_ctrl_c() -> Iterator[None]:
    """A shell that runs in the background hides SIGINT from what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard_ctrl_c")
def test_ctrl_c_while_a_study_starts_leaves_none_in_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    command = ["--budget", "30%", "--trials", "1", "--study", "mine"]
    with monkeypatch.context() as patched:
        patched.setattr("optuna.logging.set_verbosity", interrupt)
        assert run([*ANALYTIC, *command, "--seed", "7"]) == 130
    assert not Path("runs/mine").exists()
    assert run([*ANALYTIC, *command]) == 0
    with monkeypatch.context() as patched:
        patched.setattr("optuna.logging.set_verbosity", interrupt)
        assert run([*ANALYTIC, *command]) == 130
    assert Path("runs/mine/schedule.json").exists()  # what was measured stays


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_leaves_a_schedule_and_continues(number: signal.Signals) -> None:
    command = [sys.executable, str(PROGRAM), *ANALYTIC, "--budget", "30%", "--study", "mine"]
    process = subprocess.Popen(
        [*command, "--trials", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    database = Path("runs/mine/study.db")
    while process.poll() is None and _finished_trials(database) < 3:
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert "the same command continues" in output
    path = Path("runs/mine/schedule.json")
    schedule = load_schedule(path)
    assert schedule.evidence is not None
    assert schedule.evidence.splits.keys() == {"search"}
    assert "not yet confirmed" in schedule.evidence.note

    finished = _finished_trials(database)
    ended = subprocess.run(
        [*command, "--trials", str(finished + 1)], capture_output=True, text=True, check=True
    )
    assert "Continuing" in ended.stdout
    assert _finished_trials(database) == finished + 1
    confirmed = path.read_bytes()
    assert "report" in load_schedule(path).evidence.splits  # type: ignore[union-attr]

    process = subprocess.Popen(
        [*command, "--trials", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and _finished_trials(database) < finished + 3:
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert path.read_bytes() == confirmed


def _finished_trials(database: Path) -> int:
    import sqlite3
    from contextlib import closing

    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
        return int(connection.execute(query).fetchone()[0])


@pytest.mark.usefixtures("_share")
def test_interrupting_budgets_searched_together_leaves_a_schedule_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = AnalyticEvaluator.probe
    calls = []

    def interrupted(self: AnalyticEvaluator, *args: object) -> object:
        calls.append(args)
        if len(calls) == 7:  # in the second trial at the second budget
            signal.raise_signal(signal.SIGINT)
        return probe(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(AnalyticEvaluator, "probe", interrupted)
    assert run([*FRONT, "4"]) == 128 + signal.SIGINT
    assert "the same command continues" in capsys.readouterr().out
    for number in (2, 4):
        schedule = load_schedule(Path(f"runs/front/schedule-{number}-tflops.json"))
        assert schedule.evidence is not None
        assert schedule.evidence.splits["search"].samples == 100
        assert "not yet confirmed" in schedule.evidence.note
        assert schedule.provenance is not None
    with Path("runs/front/trials.csv").open() as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert states.count("complete") == 3
    assert states.count("fail") == 1

    assert run([*FRONT, "4"]) == 0
    assert "Continuing" in capsys.readouterr().out
    for result in read_results(Path("runs/front/results.json")):
        assert (result.trials, result.evaluations) == (4, 400)


@pytest.mark.parametrize("reached", [1, 2])
def test_a_run_that_is_interrupted_keeps_what_is_known_of_budgets_it_has_not_got_to(
    reached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*FRONT[:-1], "--strategy", "random", "--trials"]
    assert run([*command, "2"]) == 0
    folder = Path("runs/front")
    earlier = read_results(folder / "results.json")
    searched = []

    def interrupted(*args: Any, **options: Any) -> object:
        searched.append(args)
        if len(searched) == reached:
            signal.raise_signal(signal.SIGINT)
        return search_schedules(*args, **options)

    monkeypatch.setattr("search.job.search_schedules", interrupted)
    assert run([*command, "4"]) == 128 + signal.SIGINT
    results = read_results(folder / "results.json")
    assert [result.trials for result in results] == [2 if reached == 1 else 4, 2]
    assert results[1] == earlier[1]
    with (folder / "trials.csv").open() as file:
        rows = [row["budget"] for row in csv.DictReader(file) if row["state"] == "complete"]
    assert rows.count("2 TFLOPs") == results[0].trials
    assert rows.count("4 TFLOPs") == 2

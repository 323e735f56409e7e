from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import perilous
import pytest
from processes import runs_still

from pruners.errors import DataError, WorkerError
from pruners.published import dense, published
from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.conducting import OnTrial
from search.measured_form import as_measured
from search.measuring import Measurements
from search.outcomes import TrialReport
from search.searching import search_schedules
from search.settings import SearchSettings
from search.workers.assignments import Assignment, Measured
from search.workers.local import VISIBLE_DEVICES, LocalWorker, worker_environments
from search.workers.supervision import MOST_LOSSES, SupervisedPool
from space.budgets import Budget
from space.coding import SearchSpace

FINGERPRINT = AnalyticEvaluator().fingerprint
DENSE = dense(ANALYTIC_SHAPE)
PRUNED = as_measured(published("visiondrop", tokens=64), ANALYTIC_SHAPE)


def _pool(
    folder: Path, workers: int, patience: float = 60, fingerprint: str = FINGERPRINT
) -> SupervisedPool:
    maker = partial(perilous.PerilousEvaluator, folder)
    return SupervisedPool(lambda number: LocalWorker(maker, {}), workers, fingerprint, patience)


def _assignments(number: int, *, probes: bool = False) -> list[Assignment]:
    return [
        Assignment(PRUNED, "search", tuple(range(10 * each, 10 * each + 10)), probes)
        for each in range(number)
    ]


def _answers(pool: SupervisedPool, assignments: Sequence[Assignment]) -> list[Measured]:
    futures = [pool.submit(assignment) for assignment in assignments]
    left: set[Future[Any]] = set(futures)
    while left:
        left -= pool.wait(left, 1)
    return [future.result() for future in futures]


def test_ctrl_c_is_nothing_to_a_worker_however_early_it_comes() -> None:
    worker = LocalWorker(AnalyticEvaluator, {})
    try:
        (process,) = worker.processes
        while not worker.ready.done():
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.01)
        assert worker.ready.result() == FINGERPRINT
    finally:
        worker.end(at_once=True)


@pytest.mark.parametrize("probes", [False, True])
def test_workers_measure_what_the_evaluator_itself_would(tmp_path: Path, probes: bool) -> None:
    assignments = _assignments(8, probes=probes)
    with _pool(tmp_path, 2) as pool:
        answers = _answers(pool, assignments)
    for assignment, answer in zip(assignments, answers, strict=True):
        np.testing.assert_array_equal(answer, assignment.measure(AnalyticEvaluator()))


@pytest.mark.parametrize(("occasion", "kind"), [("measure", "kill"), ("load", "kill")])
def test_what_a_killed_worker_was_doing_is_done_by_another(
    tmp_path: Path, occasion: str, kind: str
) -> None:
    perilous.set_traps(tmp_path, occasion, kind, number=2)
    assignments = _assignments(6)
    with _pool(tmp_path, 2) as pool:
        answers = _answers(pool, assignments)
    for assignment, answer in zip(assignments, answers, strict=True):
        np.testing.assert_array_equal(answer, assignment.measure(AnalyticEvaluator()))
    assert len(perilous.measured(tmp_path)) == 60


def test_a_hanging_worker_is_replaced(tmp_path: Path) -> None:
    perilous.set_traps(tmp_path, "measure", "hang")
    with _pool(tmp_path, 1, patience=15) as pool:
        (answer,) = _answers(pool, _assignments(1))
    np.testing.assert_array_equal(answer, _assignments(1)[0].measure(AnalyticEvaluator()))


def test_an_assignment_that_ends_every_worker_is_given_up(tmp_path: Path) -> None:
    perilous.set_traps(tmp_path, "measure", "kill", number=MOST_LOSSES)
    with (
        _pool(tmp_path, 1) as pool,
        pytest.raises(WorkerError, match=r"3 workers were lost while measuring 10 samples"),
    ):
        _answers(pool, _assignments(1))
    assert not list(tmp_path.glob("measure-*"))


def test_workers_that_never_become_ready_are_given_up(tmp_path: Path) -> None:
    perilous.set_traps(tmp_path, "load", "kill", number=10)
    with (
        _pool(tmp_path, 1) as pool,
        pytest.raises(WorkerError, match="worker 0 was lost 3 times before it was ready"),
    ):
        _answers(pool, _assignments(1))


@pytest.mark.parametrize("occasion", ["load", "measure"])
def test_what_the_evaluator_refuses_is_said_as_it_says_it(tmp_path: Path, occasion: str) -> None:
    perilous.set_traps(tmp_path, occasion, "refuse")
    with (
        _pool(tmp_path, 1) as pool,
        pytest.raises(DataError, match="the data is gone; bring it back"),
    ):
        _answers(pool, _assignments(1))


def test_workers_that_were_started_end_when_another_cannot_be(tmp_path: Path) -> None:
    started: list[LocalWorker] = []
    closed: list[bool] = []

    def start(number: int) -> LocalWorker:
        if number == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(LocalWorker(partial(perilous.PerilousEvaluator, tmp_path), {}))
        return started[-1]

    with pytest.raises(WorkerError, match=r"worker 1 cannot be started .*; use fewer --workers"):
        SupervisedPool(start, 2, FINGERPRINT, on_close=lambda: closed.append(True))
    (worker,) = started
    (process,) = worker.processes
    assert not process.is_alive()
    assert closed == [True]


def test_a_worker_with_another_model_is_refused(tmp_path: Path) -> None:
    with (
        _pool(tmp_path, 1, fingerprint="0" * 64) as pool,
        pytest.raises(WorkerError, match="measures another model"),
    ):
        _answers(pool, _assignments(1))


DRIVER = """
import sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from perilous import PerilousEvaluator
from search.workers.local import LocalWorker
if __name__ == "__main__":
    worker = LocalWorker(partial(PerilousEvaluator, Path(sys.argv[1])), {})
    worker.ready.result()
    print(worker.processes[0].pid, flush=True)
    time.sleep(1000)
"""


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    repository = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), str(Path(perilous.__file__).parent)],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        os.kill(worker, 0)
        driver.kill()
    deadline = time.monotonic() + 60
    while runs_still(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs_still(worker)


def test_each_worker_gets_one_accelerator_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environments = worker_environments(3)
    assert [each[VISIBLE_DEVICES] for each in environments] == ["3", "5", "3"]
    assert all(int(each["OMP_NUM_THREADS"]) >= 1 for each in environments)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert all("OMP_NUM_THREADS" not in each for each in worker_environments(3))


def test_workers_share_the_cores_that_the_program_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # as Slurm and taskset do
    try:
        (environment,) = worker_environments(1)
    finally:
        os.sched_setaffinity(0, allowed)
    assert environment["OMP_NUM_THREADS"] == "1"


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Any]]:
    """The trials of a search in this process."""
    return _search(Measurements(AnalyticEvaluator()))


def _search(
    measurements: Measurements, on_trial: OnTrial = lambda report: None
) -> list[dict[str, Any]]:
    spaces = [
        SearchSpace(LLAVA_1_5_7B, Budget("tokens", tokens), decoder_stages=3, layer_step=4)
        for tokens in (136, 64)
    ]
    studies = [optuna.create_study(direction="maximize") for _ in spaces]
    settings = SearchSettings(trials=12, least_gain=0)
    search_schedules(measurements, spaces, settings, studies=studies, on_trial=on_trial)
    return [
        {"params": trial.params, "value": trial.value, **trial.user_attrs}
        for study in studies
        for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    ]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_search_on_workers_measures_nothing_twice(
    tmp_path: Path, workers: int, alone: list[dict[str, Any]]
) -> None:
    if workers > 1:  # the first to be ready may otherwise be done before a second is
        perilous.set_traps(tmp_path, "measure", "meet")
    with _pool(tmp_path, workers) as pool:
        trials = _search(Measurements(AnalyticEvaluator(), pool=pool))
    assert len(trials) == 24
    assert max(Counter(perilous.measured(tmp_path)).values()) == 1
    if workers == 1:
        assert trials == alone
    else:
        assert len(perilous.processes(tmp_path)) > 1


def test_a_search_goes_on_when_workers_are_killed(tmp_path: Path) -> None:
    fell_into_it: list[bool] = []

    def kill_one(report: TrialReport) -> None:
        if report.finished % 4 == 0:
            fell_into_it.append(not list(tmp_path.glob("measure-kill-*")))
            perilous.set_traps(tmp_path, "measure", "kill")

    with _pool(tmp_path, 2) as pool:
        trials = _search(Measurements(AnalyticEvaluator(), pool=pool), kill_one)
    assert len(trials) == 24
    assert max(Counter(perilous.measured(tmp_path)).values()) == 1
    assert sum(fell_into_it[1:]) >= 3  # before the first time none was set

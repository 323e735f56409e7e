from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import perilous
import pytest
from optuna.trial import TrialState
from postgresql_server import PASSWORD, PostgresqlServer
from ray_cluster import RayNodes, ray_nodes

from pruners.errors import DataError, WorkerError
from pruners.published import published
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.interruption import Interruption
from search.measured_form import as_measured
from search.search_history import DUPLICATE_ATTRIBUTE
from search.workers.assignments import Assignment
from search.workers.on_ray import RayCluster
from search.workers.settings import WorkerSettings
from search.workers.starting import start_workers
from search.workers.supervision import SupervisedPool
from studies.records import MEASURED_ATTRIBUTE

if "PRUNETUNE_TEST_SERVERS" not in os.environ:
    pytest.importorskip("ray", reason="the extra ray is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

PROGRAM = Path(__file__).parents[3] / "search" / "run.py"
PRUNED = as_measured(published("visiondrop", tokens=64), ANALYTIC_SHAPE)


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with ray_nodes(2) as nodes:
        yield nodes


@pytest.fixture
def cluster(nodes: RayNodes) -> Iterator[RayCluster]:
    cluster = RayCluster.connect(nodes.address, gpus_per_worker=None)
    yield cluster
    cluster.disconnect()


def _pool(cluster: RayCluster, folder: Path, workers: int) -> SupervisedPool:
    maker = partial(perilous.PerilousEvaluator, folder)
    return SupervisedPool(
        lambda number: cluster.start_worker(maker),
        workers,
        AnalyticEvaluator().fingerprint,
        patience=120,
    )


def _measure(pool: SupervisedPool, number: int = 6) -> None:
    """Have assignments measured, and compare with what the evaluator itself says."""
    assignments = [
        Assignment(PRUNED, "search", tuple(range(10 * each, 10 * each + 10)), probes=True)
        for each in range(number)
    ]
    futures = [pool.submit(assignment) for assignment in assignments]
    left = set(futures)
    while left:
        left -= pool.wait(left, 1)
    for assignment, future in zip(assignments, futures, strict=True):
        np.testing.assert_array_equal(future.result(), assignment.measure(AnalyticEvaluator()))


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_actors_measure_and_are_replaced_when_they_die(tmp_path: Path, cluster: RayCluster) -> None:
    assert cluster.gpus_per_worker == 0
    with _pool(cluster, tmp_path, 2) as pool:
        _measure(pool)
        perilous.set_traps(tmp_path, "measure", "kill", 2)
        _measure(pool)
        assert not list(tmp_path.glob("measure-*"))


def test_what_the_evaluator_refuses_is_said_as_it_says_it(
    tmp_path: Path, cluster: RayCluster
) -> None:
    perilous.set_traps(tmp_path, "measure", "refuse")
    with _pool(cluster, tmp_path, 1) as pool, pytest.raises(DataError) as caught:
        _measure(pool)
    assert str(caught.value) == "the data is gone; bring it back"


def test_nodes_join_and_leave_while_the_pool_works(
    tmp_path: Path, nodes: RayNodes, cluster: RayCluster
) -> None:
    with _pool(cluster, tmp_path, 3) as pool:
        _measure(pool)
        assert pool.capacity <= 2  # there is no room for the third
        nodes.join(1)

        def has_three() -> bool:
            pool.wait((), 0.1)
            return pool.capacity == 3

        _wait_for(has_three, "the new node is not used")
        _measure(pool, 12)
        nodes.leave()
        _measure(pool, 12)


def test_without_room_for_any_worker_the_program_says_so(
    tmp_path: Path, cluster: RayCluster
) -> None:
    maker = partial(perilous.PerilousEvaluator, tmp_path)
    greedy = RayCluster(gpus_per_worker=8, places=1)
    fingerprint = AnalyticEvaluator().fingerprint
    with (
        SupervisedPool(lambda number: greedy.start_worker(maker), 1, fingerprint, 1) as pool,
        pytest.raises(WorkerError, match="no worker was ready within 1 s"),
    ):
        _measure(pool)


def test_sigterm_still_asks_the_program_to_end_in_order(nodes: RayNodes) -> None:
    with Interruption() as interruption:
        cluster = RayCluster.connect(nodes.address, gpus_per_worker=None)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cluster.disconnect()
    assert interruption.signal == signal.SIGTERM


def test_a_cluster_that_is_not_there_is_named() -> None:
    settings = WorkerSettings(ray_address="127.0.0.1:1")
    with pytest.raises(WorkerError, match=r"--ray-address 127\.0\.0\.1:1: there is no Ray cluster"):
        start_workers(settings, AnalyticEvaluator, AnalyticEvaluator())


def test_a_study_on_ray_and_postgresql_outlives_a_worker_that_is_killed(
    tmp_path: Path, nodes: RayNodes, postgresql: PostgresqlServer
) -> None:
    database = postgresql.new_database()
    url = postgresql.address(database)
    command = [sys.executable, str(PROGRAM), "--model", "analytic", "--budget-tflops", "3.2"]
    command += ["--trials", "80", "--least-gain", "0", "--study", "study", "--out", str(tmp_path)]
    command += ["--workers", "2", "--ray-address", nodes.address]
    with subprocess.Popen(
        command,
        env={**os.environ, "PRUNETUNE_STORAGE": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:

        def has_begun() -> bool:
            assert program.poll() is None, program.communicate()[0]
            return len(nodes.worker_processes()) == 2 and postgresql.finished_trials(database) > 2

        _wait_for(has_begun, "the study does not begin")
        killed = nodes.kill_worker()
        shown, _ = program.communicate(timeout=300)
    assert program.returncode == 0, shown
    assert killed not in nodes.worker_processes()
    study = optuna.load_study(study_name="study: 3.2 TFLOPs", storage=url)
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(trials) == 80
    schedules = Counter(
        trial.user_attrs[MEASURED_ATTRIBUTE]
        for trial in trials
        if DUPLICATE_ATTRIBUTE not in trial.user_attrs and "known_blocks" not in trial.user_attrs
    )
    assert max(schedules.values()) == 1
    assert (tmp_path / "study" / "schedule.json").exists()
    assert PASSWORD not in shown
    for path in (tmp_path / "study").iterdir():
        assert b"brace" not in path.read_bytes(), path

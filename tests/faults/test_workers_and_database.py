"""Workers, driver and database killed at random moments, on PostgreSQL."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from os import kill
from pathlib import Path

import pytest
from postgresql_server import PostgresqlServer
from processes import runs_still

from tests.faults.programs import FINISHED, MEASURED_TWICE, command, end, start

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = 50
TRIALS = 40


@pytest.fixture
def server(postgresql: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A server that may be killed; the other tests' goes on."""
    with PostgresqlServer() as server:
        yield server


def test_killed_at_random_moments(
    runs: Path,
    server: PostgresqlServer,
    survived: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = server.new_database()
    monkeypatch.setenv("PRUNETUNE_STORAGE", server.address(database))
    chance = random.Random(0)
    kept: set[tuple[object, ...]] = set()
    killed = number = 0
    while killed < KILLS:
        study = f"study-{number}"
        process = start(_command(runs, study))
        _wait_for_some(process, server, database, chance)
        victim = chance.choice(["worker", "driver", "database"])
        workers = _workers(process.pid)
        if process.poll() is None and (workers or victim != "worker"):
            killed += 1
            survived(f"kill -9 of the {victim}")
            if victim == "database":
                server.kill()
            else:
                with suppress(ProcessLookupError):
                    kill(chance.choice(workers) if victim == "worker" else process.pid, 9)
        ended = end(process)
        if victim == "database":
            server.start()
            if ended.status != 0:
                assert ended.status == 2, ended.output
                began = "cannot be used" not in ended.output  # else it was gone beforehand
                ended.said("the same command continues" if began else "--storage")
        elif victim == "driver":
            assert ended.status in (0, -signal.SIGKILL), ended.output
            _wait_for_end(workers)
        else:
            assert ended.status == 0, ended.output
        finished = set(server.execute(FINISHED, database))
        assert kept <= finished
        kept = finished
        assert server.execute(MEASURED_TWICE, database) == []
        if ended.status == 0:
            assert sum(row[0] == f"{study}: 2 TFLOPs" for row in kept) == TRIALS
            assert (runs / study / "schedule.json").exists()
            number += 1
    assert end(start(_command(runs, f"study-{number}"))).status == 0


def _command(runs: Path, study: str) -> list[str]:
    more = ["--study", study, "--trials", str(TRIALS), "--workers", "2", "--least-gain", "0"]
    return command(runs, *more)


def _wait_for_some(
    process: subprocess.Popen[str],
    server: PostgresqlServer,
    database: str,
    chance: random.Random,
) -> None:
    """Wait until there are a few trials more, or, now and then, for a moment only.

    Where fewer are left in the study, this waits for its end, and nothing is killed.
    """
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0, 3))
        return
    wanted = server.finished_trials(database) + chance.randint(1, TRIALS // 4)
    while process.poll() is None and server.finished_trials(database) < wanted:
        time.sleep(0.05)


def _workers(driver: int) -> list[int]:
    """The processes that a driver has spawned to measure."""
    found = []
    with suppress(FileNotFoundError):
        tasks = Path(f"/proc/{driver}/task").glob("*/children")
        for child in {child for task in tasks for child in task.read_text().split()}:
            with suppress(FileNotFoundError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return sorted(found)


def _wait_for_end(processes: list[int]) -> None:
    """Wait until processes are gone, or are only waiting to be collected."""
    deadline = time.monotonic() + 60
    while any(map(runs_still, processes)):
        assert time.monotonic() < deadline, "a worker outlives its driver"
        time.sleep(0.05)

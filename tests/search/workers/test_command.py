"""The command line with workers and a shared storage, as a user gives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from postgresql_server import PASSWORD, PostgresqlServer
from processes import group_runs_still

from search.command_line import run
from search.search_history import DUPLICATE_ATTRIBUTE, KNOWN_BLOCKS_ATTRIBUTE
from studies.records import MEASURED_ATTRIBUTE

PROGRAM = Path(__file__).parents[3] / "search" / "run.py"
COMMAND = ["--model", "analytic", "--budget-tflops", "3.2", "--least-gain", "0", "--quiet"]


def _trials(storage: str, name: str) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=name, storage=storage)
    return study.get_trials(states=(TrialState.COMPLETE,))


def _times_measured(trials: list[optuna.trial.FrozenTrial]) -> Counter[str]:
    """How often each schedule was begun from nothing."""
    return Counter(
        trial.user_attrs[MEASURED_ATTRIBUTE]
        for trial in trials
        if not {DUPLICATE_ATTRIBUTE, KNOWN_BLOCKS_ATTRIBUTE} & trial.user_attrs.keys()
    )


def test_a_study_is_the_same_study_with_any_number_of_workers(tmp_path: Path) -> None:
    identities = set()
    for trials, workers in ((10, []), (20, ["--workers", "2"]), (30, ["--workers", "1"])):
        command = [*COMMAND, "--out", str(tmp_path), "--study", "study", "--trials", str(trials)]
        assert run([*command, *workers]) == 0
        identities.add((tmp_path / "study" / "identity.json").read_bytes())
        found = _trials(f"sqlite:///{tmp_path / 'study' / 'study.db'}", "3.2 TFLOPs")
        assert len(found) == trials
        assert max(_times_measured(found).values()) == 1
    for workers in (1, 4):
        command = [*COMMAND, "--out", str(tmp_path), "--study", f"study-{workers}"]
        assert run([*command, "--trials", "5", "--workers", str(workers)]) == 0
        identities.add((tmp_path / f"study-{workers}" / "identity.json").read_bytes())
    assert len(identities) == 1


def test_a_study_on_postgresql_leaves_its_password_nowhere(
    tmp_path: Path,
    postgresql: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    database = postgresql.new_database()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    storage = postgresql.address(database, password=False)
    command = [*COMMAND[:-1], "--out", str(tmp_path), "--study", "study", "--trials", "6"]
    assert run([*command, "--storage", storage]) == 0
    url = postgresql.address(database)
    assert len(_trials(url, "study: 3.2 TFLOPs")) == 6
    assert run([*command, "--storage", url]) == 2
    shown = capfd.readouterr()
    assert "--storage holds a password" in shown.err
    monkeypatch.setenv("PRUNETUNE_STORAGE", url)
    assert run([*command, "--trials", "8"]) == 0
    assert len(_trials(url, "study: 3.2 TFLOPs")) == 8
    texts = [shown.out, shown.err, *capfd.readouterr()]
    texts += [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*.*")]
    assert len(texts) > 10
    for text in texts:
        assert "s3cret" not in text
    assert (tmp_path / "study" / "trials.csv").read_text().count("3.2 TFLOPs,") == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers is 0"),
        (["--worker-timeout", "0"], "--worker-timeout is 0"),
        (["--worker-timeout", "60"], "--worker-timeout is 60.0: only workers are waited for"),
        (["--worker-gpus", "1"], "--worker-gpus is 1.0: only workers on a Ray cluster"),
        (["--worker-gpus", "-1"], "--worker-gpus is -1"),
        (["--workers", "2", "--device", "cuda:1"], "each worker gets its own"),
        (["--storage", "mysql://host/studies"], "begins with mysql://"),
    ],
)
def test_wrong_values_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run([*COMMAND, "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_workers_too_and_the_study_continues(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), *COMMAND, "--out", str(tmp_path)]
    command += ["--study", "study", "--workers", "2", "--trials", "400"]
    database = tmp_path / "study" / "study.db"
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        deadline = time.monotonic() + 240
        while not database.exists() or not _has_trials(database):
            assert program.poll() is None, program.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to all of its processes
        shown, _ = program.communicate(timeout=120)
    assert program.returncode == 128 + signal.SIGINT, shown
    assert "the same command continues" in shown
    assert "Traceback" not in shown
    deadline = time.monotonic() + 60
    while group_runs_still(program.pid):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.1)
    before = {trial.number for trial in _trials(f"sqlite:///{database}", "3.2 TFLOPs")}
    assert before
    trials = str(len(before) + 5)
    assert run([*COMMAND, "--out", str(tmp_path), "--study", "study", "--trials", trials]) == 0
    after = _trials(f"sqlite:///{database}", "3.2 TFLOPs")
    assert before <= {trial.number for trial in after}
    assert max(_times_measured(after).values()) == 1


def _has_trials(database: Path) -> bool:
    try:
        return len(_trials(f"sqlite:///{database}", "3.2 TFLOPs")) > 3
    except KeyError:
        return False

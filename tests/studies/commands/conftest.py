"""Studies that commands look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest
from running_study import kill_study, start_study

from search.command_line import run

optuna.logging.set_verbosity(optuna.logging.WARNING)
SEARCH = "--model analytic --trials 4 --stages 1 --quiet"


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the studies ``one``, of one budget, and ``two``, of two."""
    folder = tmp_path_factory.mktemp("studies")
    for name, budgets in (("one", "2"), ("two", "2 4")):
        command = f"--budget-tflops {budgets} {SEARCH} --study {name} --seed {len(budgets)}"
        assert run([*command.split(), "--out", str(folder / "runs")]) == 0
    return folder


@pytest.fixture
def runs(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``runs`` in the working directory, with copies of both studies."""
    shutil.copytree(searched / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNETUNE_STORAGE", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def running(runs: Path, identity):
    """A study ``live`` that a process is running, which ends when its input is closed."""
    process = start_study(runs / "live", identity)
    yield process
    kill_study(process)

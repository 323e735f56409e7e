from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from postgresql_server import PASSWORD, PostgresqlServer

from search.command_line import run
from studies.identity import StudyIdentity
from studies.storage import StudyFolder
from studies.storage_address import parse_storage

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_a_study_on_a_server_is_seen_and_removed_without_its_password_showing(
    postgresql: PostgresqlServer,
    identity: StudyIdentity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ""

    def studies(*arguments: str, status: int = 0) -> str:
        nonlocal said
        assert run(["studies", *arguments]) == status
        output = capsys.readouterr()
        said += output.out + output.err
        return output.err if status else output.out

    monkeypatch.chdir(tmp_path)
    database = postgresql.new_database()
    address = postgresql.address(database)
    shared = parse_storage(address, from_environment=True)
    with StudyFolder.open(Path("runs/mine"), identity, shared) as folder:
        study = folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        study.ask()
        # The study has noted the address, and libpq knows where to look for a password.
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        shown = json.loads(studies("status", "mine", "--json"))
        assert shown["state"] == "running"
        assert (shown["budgets"][0]["complete"], shown["budgets"][0]["under_way"]) == (2, 1)
        assert "a process is running" in studies("delete", "mine", "--yes", status=2)
    monkeypatch.setenv("PGPASSWORD", "nonsense")
    assert f"tests@127.0.0.1:{postgresql.port}" in studies("list", status=2)
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PRUNETUNE_STORAGE", address)
    assert json.loads(studies("list", "--json"))[0]["state"] == "stopped"
    Path("empty").mkdir()
    assert run(["studies", "list", "--out", "empty"]) == 0
    said += (without_folder := capsys.readouterr().err)
    assert without_folder.endswith("without a folder in empty: mine: 2 TFLOPs (3 trials)\n")
    trials = json.loads(studies("export", "mine", "--format", "json"))
    assert [trial["objective"] for trial in trials[:2]] == [each.value for each in study.trials[:2]]
    monkeypatch.setenv("PRUNETUNE_STORAGE", postgresql.address("another"))
    assert "keeps its trials in" in studies("show", "mine", status=2)
    monkeypatch.setenv("PRUNETUNE_STORAGE", address)
    studies("delete", "mine", "--yes")
    assert postgresql.execute("SELECT count(*) FROM studies", database) == [(0,)]
    assert not Path("runs/mine").exists()
    assert PASSWORD not in said
    assert "nonsense" not in said

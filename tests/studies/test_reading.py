from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from capabilities import obey_file_modes
from running_study import contents, kill_study, start_study

from pruners import load_schedule, published, save_schedule
from pruners.errors import PrunetuneError, StudyError
from studies.reading import find_studies, read_study
from studies.snapshots import is_running, is_shared_by_runs
from studies.storage import StudyFolder
from studies.storage_address import parse_storage
from studies.trial_access import trials_without_folder

REPOSITORY = Path(__file__).parents[2]
optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def searched(tmp_path, identity):
    """A study with three trials at one of its budgets."""
    folder = tmp_path / "runs" / "first"
    with StudyFolder.open(folder, identity) as study_folder:
        study = study_folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return folder


def test_a_study_at_rest_is_read_and_nothing_changes(searched, identity):
    before = contents(searched)
    stored = read_study(searched)
    assert contents(searched) == before
    assert stored.name == "first"
    assert stored.path == searched
    assert stored.identity == identity
    assert [budget.budget for budget in stored.budgets] == ["2 TFLOPs", "4 TFLOPs"]
    loaded = optuna.load_study(study_name="2 TFLOPs", storage=f"sqlite:///{searched / 'study.db'}")
    low, high = stored.budgets
    assert [trial.objective for trial in low.trials] == [trial.value for trial in loaded.trials]
    assert [trial.parameters for trial in low.trials] == [trial.params for trial in loaded.trials]
    assert (low.result, low.schedule, low.schedule_path) == (None, None, None)
    assert high.trials == ()


def test_a_study_is_read_wherever_its_folder_is(searched, tmp_path):
    moved = searched.rename(tmp_path / "50%20off {v1} ?mode=rwc#é")
    assert len(read_study(moved).budgets[0].trials) == 3


def test_a_study_without_trials_is_read(tmp_path, identity):
    StudyFolder.open(tmp_path / "new", identity).close()
    before = contents(tmp_path)
    stored = read_study(tmp_path / "new")
    assert [budget.trials for budget in stored.budgets] == [(), ()]
    assert contents(tmp_path) == before


def test_an_exported_schedule_comes_with_its_file(searched):
    file = searched / "schedule-4-tflops.json"
    save_schedule(published("visiondrop", tokens=64), file)
    low, high = read_study(searched).budgets
    assert low.schedule is None
    assert high.schedule_path == file
    assert high.schedule == load_schedule(file)


def test_a_running_study_is_read_along_and_a_killed_one_from_a_copy(tmp_path, identity):
    folder = tmp_path / "study"
    process = start_study(folder, identity)
    try:
        assert is_running(folder)
        states = [trial.state for trial in read_study(folder).budgets[0].trials]
        assert states == ["complete", "running"]
    finally:
        kill_study(process)
    assert not is_running(folder)
    before = contents(folder)
    assert folder / "study.db-wal" in before  # its trials are in there
    states = [trial.state for trial in read_study(folder).budgets[0].trials]
    assert states == ["complete", "running"]
    assert contents(folder) == before
    with StudyFolder.open(folder, identity):  # reading has not stood in the way of going on
        assert is_running(folder)


def test_a_folder_that_may_not_be_written_is_read(searched):
    program = [sys.executable, "search/run.py", "studies", "status", str(searched), "--json"]
    searched.chmod(0o555)
    try:
        ended = subprocess.run(
            program, cwd=REPOSITORY, preexec_fn=obey_file_modes, stdout=subprocess.PIPE, check=True
        )
    finally:
        searched.chmod(0o755)
    shown = json.loads(ended.stdout)
    assert sum(budget["complete"] for budget in shown["budgets"]) == 3


def test_a_shared_storage_that_is_gone_is_said(tmp_path, identity):
    folder, file = tmp_path / "mine", tmp_path / "shared.db"
    with StudyFolder.open(folder, identity, parse_storage(f"sqlite:///{file}")) as study_folder:
        study_folder.study("2 TFLOPs")
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(StudyError, match="which is gone"):
        read_study(folder)
    file.write_bytes(content)
    assert read_study(folder).budgets[0].trials == ()


def test_a_shared_storage_is_read_along_with_a_run_whose_folder_is_elsewhere(
    tmp_path, identity, monkeypatch
):
    url, file = f"sqlite:///{tmp_path / 'shared.db'}", tmp_path / "shared.db"
    with StudyFolder.open(tmp_path / "runs" / "mine", identity, parse_storage(url)) as folder:
        folder.study("2 TFLOPs").optimize(_objective, n_trials=1)
    assert not is_shared_by_runs(file)
    with StudyFolder.open(tmp_path / "others" / "theirs", identity, parse_storage(url)) as folder:
        study = folder.study("2 TFLOPs")
        study.optimize(_objective, n_trials=2)
        assert is_shared_by_runs(file)

        def copied_as_the_run_writes(source, target):
            found = copy(source, target)
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA wal_checkpoint(RESTART)")
            study.optimize(_objective, n_trials=1)
            return found

        copy = shutil.copyfile
        monkeypatch.setattr("shutil.copyfile", copied_as_the_run_writes)
        assert trials_without_folder(url, [tmp_path / "runs" / "mine"]) == {"theirs: 2 TFLOPs": 2}
        assert len(read_study(tmp_path / "runs" / "mine").budgets[0].trials) == 1
    assert not is_shared_by_runs(file)


def _objective(trial):
    return trial.suggest_float("x", 0, 1)


def test_trials_in_a_storage_that_studies_share_are_found_by_name_and_identity(tmp_path, identity):
    folder, url = tmp_path / "mine", f"sqlite:///{tmp_path / 'shared.db'}"
    with StudyFolder.open(folder, identity, parse_storage(url)) as study_folder:
        study = study_folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        values = [trial.value for trial in study.trials]
    for name, fingerprint, trials in (
        ("other: 2 TFLOPs", identity.fingerprint, 3),
        ("mine: 4 TFLOPs", "of another study", 4),
    ):
        study = optuna.create_study(storage=url, study_name=name, direction="maximize")
        study.set_user_attr("prunetune:identity", fingerprint)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    before = contents(tmp_path)
    for given in (None, url):  # the study has noted where its trials are
        low, high = read_study(folder, given).budgets
        assert [trial.objective for trial in low.trials] == values
        assert [trial.budget for trial in low.trials] == ["2 TFLOPs"] * 2
        assert high.trials == ()
    assert contents(tmp_path) == before
    with pytest.raises(StudyError, match="keeps its trials in"):
        read_study(folder, f"sqlite:///{tmp_path / 'another.db'}")


def test_a_study_with_its_own_trials_needs_no_address(searched, tmp_path):
    stored = read_study(searched, f"sqlite:///{tmp_path / 'another.db'}")
    assert len(stored.budgets[0].trials) == 3


def test_studies_are_found_by_their_identity(tmp_path, identity):
    for name in ("b", "a"):
        StudyFolder.open(tmp_path / name, identity).close()
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("")
    assert find_studies(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    for missing in (tmp_path / "nowhere", tmp_path / "file.txt"):
        with pytest.raises(StudyError, match="cannot be read"):
            find_studies(missing)


def _spoil_identity(folder):
    (folder / "identity.json").write_text("{")


def _remove_identity(folder):
    (folder / "identity.json").unlink()


def _truncate_database(folder):
    with (folder / "study.db").open("r+b") as file:
        file.truncate(10_000)


def _empty_database(folder):
    (folder / "study.db").write_bytes(b"")


def _overwrite_database(folder):
    (folder / "study.db").write_bytes(b"prunetune" * 1000)


def _spoil_results(folder):
    (folder / "results.json").write_text(json.dumps([{"budget": 2}]))


def _spoil_schedule(folder):
    (folder / "schedule-2-tflops.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_spoil_identity, "identity.json is not the identity"),
        (_remove_identity, "no identity.json"),
        (_truncate_database, "study.db is not a readable SQLite database"),
        (_empty_database, "study.db is a SQLite file but no Optuna database"),
        (_overwrite_database, "study.db is not a readable SQLite database"),
        (_spoil_results, "results.json does not hold"),
        (_spoil_schedule, "schedule-2-tflops.json"),
    ],
)
def test_what_is_damaged_is_named_and_stays_as_it_is(searched, spoil, message):
    spoil(searched)
    before = contents(searched)
    with pytest.raises(PrunetuneError, match=message):
        read_study(searched)
    assert contents(searched) == before


def test_what_does_not_exist_is_said(tmp_path):
    with pytest.raises(StudyError, match="no such folder"):
        read_study(tmp_path / "nowhere")


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path, identity):
    pytest.importorskip("psycopg", reason="extra: postgres")
    StudyFolder.open(tmp_path / "study", identity).close()
    (tmp_path / "study" / "storage.txt").write_text("postgresql+psycopg://me@127.0.0.1:1/trials\n")
    for given in (None, "postgresql+psycopg://me:secret-word@127.0.0.1:1/trials"):
        with pytest.raises(StudyError, match=r"127\.0\.0\.1") as caught:
            read_study(tmp_path / "study", given)
        assert "secret-word" not in str(caught.value)

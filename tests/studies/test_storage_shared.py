from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from postgresql_server import PASSWORD, PostgresqlServer

from pruners.errors import StudyError
from studies.identity import StudyIdentity
from studies.records import trial_records
from studies.storage import StudyFolder
from studies.storage_address import StorageAddress, parse_storage
from studies.trial_storage import storage_errors

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> StorageAddress:
    if request.param == "sqlite":
        return parse_storage(f"sqlite:///{tmp_path / 'trials.db'}")
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return parse_storage(server.address(server.new_database()), from_environment=True)


def test_studies_share_a_storage_under_their_own_names(
    tmp_path: Path, identity: StudyIdentity, address: StorageAddress
) -> None:
    other = identity.model_copy(update={"seed": 1})
    with (
        StudyFolder.open(tmp_path / "one", identity, address) as one,
        StudyFolder.open(tmp_path / "two", other, address) as two,
    ):
        for number, folder in enumerate((one, two)):
            study = folder.study("2 TFLOPs")
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            study.tell(trial, number)
            (record,) = trial_records(study)
            assert (record.budget, record.objective) == ("2 TFLOPs", number)
        assert not (one.path / "study.db").exists()
    names = optuna.get_all_study_names(address.url.replace("{", "{{"))
    assert sorted(names) == ["one: 2 TFLOPs", "two: 2 TFLOPs"]
    with StudyFolder.open(tmp_path / "one", identity, address) as again:
        assert again.continued
        assert again.study("2 TFLOPs").best_value == 0


def test_studies_that_begin_at_once_make_the_tables_once(
    tmp_path: Path, identity: StudyIdentity, address: StorageAddress
) -> None:
    together = threading.Barrier(4)

    def begin(number: int) -> None:
        with StudyFolder.open(tmp_path / str(number), identity, address) as folder:
            together.wait(60)
            folder.study("2 TFLOPs").enqueue_trial({"x": number})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(begin, range(4)))
    names = optuna.get_all_study_names(address.url.replace("{", "{{"))
    assert sorted(names) == [f"{number}: 2 TFLOPs" for number in range(4)]


def test_a_study_is_continued_from_another_folder_of_its_name(
    tmp_path: Path, identity: StudyIdentity, address: StorageAddress
) -> None:
    with StudyFolder.open(tmp_path / "here" / "study", identity, address) as folder:
        folder.study("2 TFLOPs").enqueue_trial({"x": 0.5})
    with StudyFolder.open(tmp_path / "there" / "study", identity, address) as folder:
        assert len(folder.study("2 TFLOPs").trials) == 1
    other = identity.model_copy(update={"seed": 1})
    with (
        StudyFolder.open(tmp_path / "elsewhere" / "study", other, address) as folder,
        pytest.raises(StudyError, match=r"another study under the name 'study: 2 TFLOPs'"),
    ):
        folder.study("2 TFLOPs")


def test_a_study_whose_making_was_cut_off_knows_its_budget(
    tmp_path: Path,
    identity: StudyIdentity,
    address: StorageAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted = optuna.Study.set_user_attr

    def note_and_die(study: optuna.Study, key: str, value: object) -> None:
        noted(study, key, value)
        raise KeyboardInterrupt

    with StudyFolder.open(tmp_path / "study", identity, address) as folder:
        with monkeypatch.context() as dying:
            dying.setattr(optuna.Study, "set_user_attr", note_and_die)
            with pytest.raises(KeyboardInterrupt):
                folder.study("2 TFLOPs")
        study = folder.study("2 TFLOPs")
        study.tell(study.ask(), 1.0)
        assert [record.budget for record in trial_records(study)] == ["2 TFLOPs"]


DRIVER = """
import os, sys, time
from pathlib import Path
from studies.identity import StudyIdentity
from studies.storage import StudyFolder
from studies.storage_address import parse_storage
address = parse_storage(os.environ["PRUNETUNE_STORAGE"], from_environment=True)
identity = StudyIdentity.model_validate_json(sys.argv[2])
with StudyFolder.open(Path(sys.argv[1]), identity, address) as folder:
    study = folder.study("2 TFLOPs")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    folder.keep_alive()
    print(trial.params["x"], flush=True)
    time.sleep(1000)
"""


def test_one_driver_at_a_time_and_a_killed_one_leaves_the_study_to_others(
    tmp_path: Path, identity: StudyIdentity, address: StorageAddress
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "study"), identity.model_dump_json()],
        cwd=REPOSITORY,
        env={**os.environ, "PRUNETUNE_STORAGE": address.url},
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        x = float(driver.stdout.readline())
        # In another folder, as on another machine: the folder's own lock does not tell.
        with pytest.raises(StudyError, match="another process is running the study 'study'") as at:
            StudyFolder.open(tmp_path / "there" / "study", identity, address)
        assert PASSWORD not in str(at.value)
        driver.send_signal(signal.SIGKILL)
    with StudyFolder.open(tmp_path / "study", identity, address) as folder:
        study = folder.study("2 TFLOPs")
        assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
        assert study.ask().suggest_float("x", 0, 1) == x


def _given_none(address: StorageAddress, tmp_path: Path) -> StorageAddress | None:
    return None


def _given_another(address: StorageAddress, tmp_path: Path) -> StorageAddress | None:
    return parse_storage(f"sqlite:///{tmp_path / 'other.db'}")


@pytest.mark.parametrize("given", [_given_none, _given_another])
def test_a_study_stays_in_its_storage(
    tmp_path: Path,
    identity: StudyIdentity,
    address: StorageAddress,
    given: Callable[[StorageAddress, Path], StorageAddress | None],
) -> None:
    with StudyFolder.open(tmp_path / "study", identity, address) as folder:
        folder.study("2 TFLOPs")
    for attempt in (StudyFolder.open, StudyFolder.check):
        with pytest.raises(StudyError, match="keeps its trials in") as caught:
            attempt(tmp_path / "study", identity, given(address, tmp_path))
        assert PASSWORD not in str(caught.value)
    StudyFolder.open(tmp_path / "study", identity, address).close()


def test_a_study_with_trials_of_its_own_does_not_move(
    tmp_path: Path, identity: StudyIdentity, address: StorageAddress
) -> None:
    with StudyFolder.open(tmp_path / "study", identity) as folder:
        folder.study("2 TFLOPs")
    with pytest.raises(StudyError, match=r"keeps its trials in its own study\.db"):
        StudyFolder.open(tmp_path / "study", identity, address)


def test_no_file_of_the_folder_holds_the_password(
    tmp_path: Path, identity: StudyIdentity, postgresql: PostgresqlServer
) -> None:
    address = parse_storage(postgresql.address(postgresql.new_database()), from_environment=True)
    with StudyFolder.open(tmp_path / "study", identity, address) as folder:
        study = folder.study("2 TFLOPs")
        study.tell(study.ask(), 1.0)
    for path in (tmp_path / "study").iterdir():
        assert PASSWORD.encode() not in path.read_bytes()
        assert b"%7B" not in path.read_bytes()
    stored = postgresql.execute("SELECT 1")
    assert stored == [(1,)]


def test_a_storage_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, identity: StudyIdentity, postgresql: PostgresqlServer
) -> None:
    right = postgresql.address("missing")
    wrong_password = right.replace("s3cret", "wr0ng")
    nobody = right.replace(str(postgresql.port), "1")
    for url in (right, wrong_password, nobody):
        with pytest.raises(StudyError, match="cannot be used") as caught:
            StudyFolder.open(
                tmp_path / "study", identity, parse_storage(url, from_environment=True)
            )
        assert "brace" not in str(caught.value)
    (tmp_path / "text.db").write_text("no database " * 1000)
    with (
        pytest.raises(StudyError, match="cannot be used"),
        StudyFolder.open(
            tmp_path / "study", identity, parse_storage(f"sqlite:///{tmp_path / 'text.db'}")
        ) as folder,
    ):
        folder.study("2 TFLOPs")


def test_a_trial_that_another_process_has_ended_ends_the_run_in_words(
    tmp_path: Path, identity: StudyIdentity, address: StorageAddress
) -> None:
    with StudyFolder.open(tmp_path / "study", identity, address) as folder:
        trial = folder.study("2 TFLOPs").ask()
        url = address.url.replace("{", "{{")
        # As a driver does that takes over when this one's connection was lost.
        other = optuna.load_study(study_name="study: 2 TFLOPs", storage=url)
        other.tell(trial.number, state=TrialState.FAIL)
        with (
            pytest.raises(StudyError, match="another process has ended a trial of this run"),
            storage_errors(folder.trials_in, address),
        ):
            trial.report(0.5, 0)


def test_a_server_that_dies_ends_the_run_in_words_and_keeps_what_was_finished(
    tmp_path: Path, identity: StudyIdentity
) -> None:
    if os.environ.get("PRUNETUNE_TEST_SERVERS") is None:
        pytest.importorskip("psycopg")
    with PostgresqlServer() as server:
        address = parse_storage(server.address(server.new_database()), from_environment=True)
        with StudyFolder.open(tmp_path / "study", identity, address) as folder:
            study = folder.study("2 TFLOPs")
            for number in range(3):
                study.tell(study.ask(), number)
            study.ask()
            server.kill()
            with (
                pytest.raises(StudyError, match="finished trials are kept") as caught,
                storage_errors(folder.trials_in, address),
            ):
                study.tell(study.ask(), 3)
            assert "brace" not in str(caught.value)
            with pytest.raises(StudyError, match="finished trials are kept") as caught:
                folder.study("4 TFLOPs")
            assert "brace" not in str(caught.value)
            with pytest.raises(StudyError, match=r"connection to the storage .* is lost"):
                folder._storage_lock.check()
        server.start()
        with StudyFolder.open(tmp_path / "study", identity, address) as folder:
            study = folder.study("2 TFLOPs")
            complete = study.get_trials(states=(TrialState.COMPLETE,))
            assert [trial.value for trial in complete] == [0, 1, 2]
            assert not study.get_trials(states=(TrialState.RUNNING,))

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from pruners.errors import StudyError
from studies.storage import StudyFolder
from studies.storage_address import parse_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
MERGES = ("none", "nearest-reference", "cluster-average")
REPOSITORY = Path(__file__).parents[2]

# A search in miniature: scores are looked up before they are "measured", which takes a while.
SEARCH = """
import sys, time
from pathlib import Path
import optuna
from studies.identity import StudyIdentity
from studies.storage import StudyFolder
from studies.storage_address import parse_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
folder, identity, trials = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with StudyFolder.open(folder, StudyIdentity.model_validate_json(identity)) as study_folder:
    study = study_folder.study("2 TFLOPs", sampler=optuna.samplers.RandomSampler())
    print("started", flush=True)
    done = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))
    while done < trials:
        trial = study.ask()
        schedule = str(trial.suggest_int("schedule", 0, 1000))
        samples = ["a", "b", "c"]
        known = study_folder.scores.get(schedule, "search", samples)
        for sample in samples:
            if sample not in known:
                time.sleep(0.01)
                study_folder.scores.put(schedule, "search", {sample: int(schedule) / 1000})
                trial.report(int(schedule) / 1000, ord(sample))
        scores = study_folder.scores.get(schedule, "search", samples)
        study.tell(trial, sum(scores.values()) / 3)
        done += 1
        print("finished", flush=True)
"""


def _search(folder, identity, trials):
    return subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(folder), identity.model_dump_json(), str(trials)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finished(folder):
    """Finished trials as any SQLite reader sees them."""
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        return {
            row[0]: row[1]
            for row in connection.execute(
                "SELECT trials.number, value FROM trials JOIN trial_values USING (trial_id)"
                " WHERE state = 'COMPLETE'"
            )
        }


def test_a_study_is_created_and_continued(tmp_path, identity):
    folder = tmp_path / "runs" / "first"
    assert StudyFolder.check(folder, identity) is False
    assert not folder.exists()
    with StudyFolder.open(folder, identity) as study_folder:
        assert not study_folder.continued
        study = study_folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        study_folder.scores.put("schedule", "search", {"gqa-1": 1.0})
        values = [trial.value for trial in study.trials]
    assert StudyFolder.check(folder, identity) is True
    with StudyFolder.open(folder, identity) as study_folder:
        assert study_folder.continued
        assert [trial.value for trial in study_folder.study("2 TFLOPs").trials] == values
        assert study_folder.study("4 TFLOPs").trials == []
        assert study_folder.scores.get("schedule", "search", ["gqa-1", "gqa-2"]) == {"gqa-1": 1.0}
        with pytest.raises(StudyError, match="no budget '3 TFLOPs'"):
            study_folder.study("3 TFLOPs")


def test_folders_may_have_names_that_mean_something_in_a_url(tmp_path, identity):
    path = tmp_path / "a %20 {b} ? study"
    with StudyFolder.open(path, identity) as folder:
        folder.study("2 TFLOPs").optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with closing(sqlite3.connect(path / "study.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (2,)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_database_is_plain_optuna(tmp_path, identity):
    with StudyFolder.open(tmp_path, identity) as study_folder:
        study = study_folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        best = study.best_value
    # As optuna-dashboard opens it; a closed study is one file.
    assert not list(tmp_path.glob("study.db-*"))
    url = f"sqlite:///{tmp_path / 'study.db'}"
    assert optuna.study.get_all_study_names(url) == ["2 TFLOPs"]
    loaded = optuna.load_study(study_name="2 TFLOPs", storage=url)
    assert loaded.best_value == best
    assert loaded.direction == optuna.study.StudyDirection.MAXIMIZE


def test_another_identity_is_refused_by_naming_what_differs(tmp_path, identity):
    StudyFolder.open(tmp_path, identity).close()
    other = identity.model_copy(
        update={
            "seed": 7,
            "shape": identity.shape.model_copy(update={"decoder_layers": 40}),
            "versions": {"optuna": "5.0.0", "torch": "2.13.0"},
        }
    )
    for attempt in (StudyFolder.open, StudyFolder.check):
        with pytest.raises(StudyError) as caught:
            attempt(tmp_path, other)
        message = str(caught.value)
        assert "seed: 0 in the study, 7 now" in message
        assert "shape.decoder_layers: 32 in the study, 40 now" in message
        assert 'versions.torch: absent in the study, "2.13.0" now' in message
        assert "tasks" not in message
    StudyFolder.open(tmp_path, identity).close()  # the refusal left the study as it was


def test_opening_does_not_import_optuna_or_torch(tmp_path, identity):
    code = (
        "import sys; from pathlib import Path; from studies.storage import StudyFolder;"
        "from studies.identity import StudyIdentity;"
        "StudyFolder.open(Path(sys.argv[1]), StudyIdentity.model_validate_json(sys.argv[2]));"
        "print([m for m in ('optuna', 'torch', 'transformers', 'pandas') if m in sys.modules])"
    )
    with StudyFolder.open(tmp_path, identity) as study_folder:
        study_folder.study("2 TFLOPs")
    command = [sys.executable, "-c", code, str(tmp_path), identity.model_dump_json()]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def _foreign_content(folder, identity):
    (folder / "holiday.txt").write_text("mine")


def _foreign_identity(folder, identity):
    (folder / "identity.json").write_text('{"format": "another.tool"}')


def _truncated_identity(folder, identity):
    (folder / "identity.json").write_text(identity.model_dump_json()[:100])


def _not_sqlite(folder, identity):
    (folder / "identity.json").write_text(identity.model_dump_json())
    (folder / "study.db").write_bytes(os.urandom(4096))


def _foreign_sqlite(folder, identity):
    (folder / "identity.json").write_text(identity.model_dump_json())
    with closing(sqlite3.connect(folder / "study.db")) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def _damaged_database(folder, identity):
    with StudyFolder.open(folder, identity) as study_folder:
        study = study_folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with (folder / "study.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


def _database_of_another_study(folder, identity):
    other = identity.model_copy(update={"seed": 1})
    with StudyFolder.open(folder / "other", other) as study_folder:
        study = study_folder.study("2 TFLOPs")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    (folder / "identity.json").write_text(identity.model_dump_json())
    (folder / "other" / "study.db").rename(folder / "study.db")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_foreign_content, "not a study's folder.*holiday.txt"),
        (_foreign_identity, "not the identity of a prunetune study"),
        (_truncated_identity, "not the identity of a prunetune study"),
        (_not_sqlite, "not a readable SQLite database"),
        (_foreign_sqlite, "no Optuna database"),
        (_damaged_database, "not a readable SQLite database"),
        (_database_of_another_study, "holds trials of another study"),
    ],
)
def test_a_folder_that_is_not_this_study_is_refused(tmp_path, identity, spoil, message):
    spoil(tmp_path, identity)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")}
    for attempt in (StudyFolder.check, StudyFolder.open):
        with pytest.raises(StudyError, match=message):
            attempt(tmp_path, identity)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")}
    assert {path: after.get(path) for path in before} == before


def test_a_damaged_cache_of_scores_is_refused_at_once(tmp_path, identity):
    StudyFolder.open(tmp_path, identity).close()
    (tmp_path / "scores.db").write_bytes(os.urandom(4096))
    for _ in range(2):  # the second refusal shows that the first one gave the lock back
        with pytest.raises(StudyError, match=r"scores\.db cannot be used"):
            StudyFolder.open(tmp_path, identity)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, identity):
    (tmp_path / "file").write_text("")
    for attempt in (StudyFolder.check, StudyFolder.open):
        with pytest.raises(StudyError, match="cannot be written"):
            attempt(tmp_path / "file" / "study", identity)


def test_two_processes_do_not_share_a_study(tmp_path, identity):
    folder = tmp_path / "study"
    process = _search(folder, identity, trials=10_000)
    try:
        assert process.stdout.readline() == "started\n"
        with pytest.raises(StudyError, match="another process is running the study"):
            StudyFolder.open(folder, identity)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    StudyFolder.open(folder, identity).close()  # the lock went with the process


def test_stale_trials_fail_and_are_tried_again_first(tmp_path, identity):
    with StudyFolder.open(tmp_path, identity) as study_folder:
        study = study_folder.study("2 TFLOPs")
        point = {"x": 0.25, "merge": "cluster-average"}
        study.enqueue_trial(point, user_attrs={"origin": "visiondrop"})
        killed = study.ask()
        killed.suggest_float("x", 0, 1)
        killed.suggest_categorical("merge", MERGES)
        killed.report(0.5, step=0)
    with StudyFolder.open(tmp_path, identity) as study_folder:
        study = study_folder.study("2 TFLOPs")
        assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
        again = study.ask()
        assert again.suggest_float("x", 0, 1) == 0.25
        assert again.suggest_categorical("merge", MERGES) == "cluster-average"
        assert again.user_attrs["origin"] == "visiondrop"
        study.tell(again, 1.0)
        assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_killed_at_random_moments_a_study_keeps_its_finished_trials(tmp_path, identity):
    folder, moments = tmp_path / "study", random.Random(0)
    kept: dict[int, float] = {}
    for number in range(8):
        process = _search(folder, identity, trials=40)
        # Every other time while it starts, else in the midst of its trials.
        for _ in range(moments.randint(1, 5) if number % 2 else 0):
            process.stdout.readline()
        time.sleep(moments.uniform(0, 0.1 if number % 2 else 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (folder / "study.db").exists():
            finished = _finished(folder)
            assert finished.items() >= kept.items()
            kept = finished
    assert kept
    process = _search(folder, identity, trials=40)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    finished = _finished(folder)
    assert finished.items() >= kept.items()
    assert len(finished) == 40
    study = optuna.load_study(study_name="2 TFLOPs", storage=f"sqlite:///{folder / 'study.db'}")
    states = {trial.state for trial in study.trials}
    assert states <= {TrialState.COMPLETE, TrialState.FAIL}
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        assert trial.value == pytest.approx(trial.params["schedule"] / 1000)


def test_identity_survives_its_file(tmp_path, identity):
    StudyFolder.open(tmp_path, identity).close()
    stored = json.loads((tmp_path / "identity.json").read_text())
    assert stored["format"] == "prunetune.study"
    assert type(identity).model_validate(stored) == identity
    assert identity.differences(type(identity).model_validate(stored)) == []


def test_a_storage_that_cannot_be_used_is_not_noted(tmp_path, identity):
    (tmp_path / "notes.txt").write_text("no database\n" * 100)
    unusable = parse_storage(f"sqlite:///{tmp_path / 'notes.txt'}")
    with (
        StudyFolder.open(tmp_path / "study", identity, unusable) as it,
        pytest.raises(StudyError, match="cannot be used"),
    ):
        it.study("2 TFLOPs")
    usable = parse_storage(f"sqlite:///{tmp_path / 'shared.db'}")
    with StudyFolder.open(tmp_path / "study", identity, usable) as it:
        it.study("2 TFLOPs")
    other = parse_storage(f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(StudyError, match="keeps its trials in"):
        StudyFolder.open(tmp_path / "study", identity, other)


@pytest.mark.parametrize("begin", [StudyFolder.open, StudyFolder.check])
def test_a_shared_file_in_a_missing_folder_is_refused(begin, tmp_path, identity):
    address = parse_storage(f"sqlite:///{tmp_path / 'typo' / 'trials.db'}")
    with pytest.raises(StudyError, match=r"folder that does not exist; make .*typo, or correct"):
        begin(tmp_path / "runs" / "study", identity, address)
    assert list(tmp_path.iterdir()) == []


def test_a_shared_file_may_be_in_the_folder_of_the_studies(tmp_path, monkeypatch, identity):
    monkeypatch.chdir(tmp_path)
    address = parse_storage("sqlite:///runs/trials.db")
    assert not StudyFolder.check(Path("runs/study"), identity, address)
    with StudyFolder.open(Path("runs/study"), identity, address) as folder:
        folder.study("2 TFLOPs")
    assert (tmp_path / "runs" / "trials.db").exists()

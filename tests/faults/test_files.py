"""Files of a study that were cut, emptied, or hold something else; and times that cannot be."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from studies.results import read_results
from tests.faults.programs import STUDY, continues, finished, run

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]

Survived = Callable[[str], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study."""
    folder = tmp_path_factory.mktemp("made")
    ended = run(folder)
    assert ended.status == 0, ended.output
    return folder / STUDY


@pytest.mark.parametrize(
    "name", ["schedule.json", "results.json", "samples.json", "trials.csv", "report.md"]
)
def test_a_truncated_result_is_written_anew(
    name: str, made: Path, runs: Path, survived: Survived
) -> None:
    study = shutil.copytree(made, runs / STUDY)
    content = (study / name).read_bytes()
    (study / name).write_bytes(content[: len(content) // 2])
    continues(runs, finished(runs))
    assert len((study / name).read_bytes()) > len(content) // 2
    survived("truncated file")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("identity.json", "is not the identity of a prunetune study"),
        ("study.db", "is not a readable SQLite database"),
        ("scores.db", "cannot be used as the cache of scores"),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_database_is_refused_until_it_is_put_back(
    name: str, says: str, share: float, made: Path, runs: Path, survived: Survived
) -> None:
    study = shutil.copytree(made, runs / STUDY)
    before = finished(runs)
    for database in ("study.db", "scores.db"):
        with closing(sqlite3.connect(study / database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = (study / name).read_bytes()
    (study / name).write_bytes(content[: int(len(content) * share)])
    ended = run(runs)
    assert ended.status == 2, ended.output
    ended.said(says)
    (study / name).write_bytes(content)
    continues(runs, before)
    survived("truncated file")


def test_scores_that_are_gone_are_measured_again(
    made: Path, runs: Path, survived: Survived
) -> None:
    study = shutil.copytree(made, runs / STUDY)
    (study / "scores.db").unlink()
    continues(runs, finished(runs))
    survived("missing file")


@pytest.mark.parametrize("hours", [-30 * 24, 30 * 24])
def test_a_clock_that_jumps_while_trials_run(
    hours: int, made: Path, runs: Path, survived: Survived
) -> None:
    study = shutil.copytree(made, runs / STUDY)
    before = finished(runs)
    with closing(sqlite3.connect(study / "study.db")) as connection:
        connection.execute(
            "UPDATE trials SET datetime_complete = datetime(datetime_complete, ?) "
            "WHERE number % 2 = 0",
            (f"{hours} hours",),
        )
        connection.execute(
            "UPDATE trials SET datetime_start = datetime(datetime_start, ?) WHERE number % 3 = 0",
            (f"{-hours} hours",),
        )
        connection.commit()
    continues(runs, before)
    assert all(result.seconds >= 0 for result in read_results(study / "results.json"))
    survived("clock jump")

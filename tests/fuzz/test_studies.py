"""Study folders whose files were damaged, down to single values of their databases."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import strategies as st

from search.command_line import run
from studies.identity import read_identity
from studies.pareto import pareto_points
from studies.reading import read_study
from studies.records import trial_records
from studies.report import write_report
from studies.results import read_results
from studies.scores import ScoreCache
from studies.storage import StudyFolder
from tests.fuzz.cases import Cases
from tests.fuzz.documents import HOSTILE, as_json, damaged, damaged_bytes

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]

SQL_VALUES = [
    value
    for value in HOSTILE
    if isinstance(value, str | float | None) or (isinstance(value, int) and abs(value) < 2**63)
    if value != "\ud800"
]
SQL_VALUES += ["[", '"x"', "[1, 2]", '{"a": NaN}', b"\xff\x00", "NaN", "COMPLETE", "RUNNING"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of two budgets."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = "--budget-tflops 2 4 --model analytic --trials 6 --seed 3 --quiet --study small"
    assert run([*arguments.split(), "--out", str(runs)]) == 0
    with closing(sqlite3.connect(runs / "small" / "study.db")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # all in one file
    return runs / "small"


@pytest.fixture(autouse=True)
def _quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(before)


def test_study_identities(cases: Cases, study: Path, tmp_path: Path) -> None:
    document = json.loads((study / "identity.json").read_text())
    identity = read_identity(study / "identity.json")
    file = tmp_path / "identity.json"

    def use(content: bytes) -> None:
        file.write_bytes(content)
        found = read_identity(file)
        assert (not identity.differences(found)) == (identity.fingerprint == found.fingerprint)
        read_study(tmp_path)
        StudyFolder.check(tmp_path, identity)

    contents = damaged([document]).map(as_json) | damaged_bytes([as_json(document)])
    cases.run(contents, use, 5_000)
    assert cases.accepted
    assert cases.refused


def test_study_results(cases: Cases, study: Path, tmp_path: Path) -> None:
    document = json.loads((study / "results.json").read_text())
    file = tmp_path / "results.json"

    def use(content: bytes) -> None:
        file.write_bytes(content)
        results = read_results(file)
        if results:
            write_report(results, tmp_path / "report.md")
            pareto_points(results)

    contents = damaged([document]).map(as_json) | damaged_bytes([as_json(document)])
    cases.run(contents, use, 5_000)
    assert cases.accepted
    assert cases.refused


def read_and_continue(folder: Path, original: Path) -> None:
    """Show a study as ``prunetune studies`` does, and open it as the same command does again."""
    read_study(folder)
    identity = read_identity(original / "identity.json")
    with StudyFolder.open(folder, identity) as opened:
        for budget in identity.budgets:
            trial_records(opened.study(budget))


def test_study_database_bytes(cases: Cases, study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    shutil.copy(study / "identity.json", folder)
    content = (study / "study.db").read_bytes()

    def use(damage: bytes) -> None:
        for file in (*folder.glob("study.db*"), *folder.glob("scores.db*")):
            file.unlink()
        (folder / "study.db").write_bytes(damage)
        read_and_continue(folder, study)

    cases.run(damaged_bytes([content]), use, 1_000, everyday=60)
    assert cases.accepted
    assert cases.refused


def test_study_database_values(cases: Cases, study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(study, folder)

    def use(changes: list[tuple[Any, Any]]) -> None:
        for file in (*folder.glob("study.db*"), *folder.glob("scores.db*")):
            file.unlink()
        shutil.copy(study / "study.db", folder)
        change_values(folder / "study.db", changes)
        read_and_continue(folder, study)

    cases.run(changes_of(study / "study.db"), use, 1_000, everyday=60)
    assert cases.accepted
    assert cases.refused


def test_score_caches(cases: Cases, study: Path, tmp_path: Path) -> None:
    original = tmp_path / "original.db"
    with ScoreCache(original) as cache:
        cache.put("a" * 64, "search", {f"sample {number}": number / 9 for number in range(9)})
    with closing(sqlite3.connect(original)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    file = tmp_path / "scores.db"

    def use(damage: bytes | list[tuple[Any, Any]]) -> None:
        for old in tmp_path.glob("scores.db*"):
            old.unlink()
        if isinstance(damage, bytes):
            file.write_bytes(damage)
        else:
            shutil.copy(original, file)
            change_values(file, damage)
        samples = [f"sample {number}" for number in range(9)]
        with ScoreCache(file) as cache:
            for score in cache.get("a" * 64, "search", samples).values():
                assert isinstance(score, float)
            cache.get_probes("a" * 64, "search", samples)
            cache.put("b" * 64, "search", {"new": 0.5})
            assert cache.get("b" * 64, "search", ["new"]) == {"new": 0.5}

    contents = damaged_bytes([original.read_bytes()])
    cases.run(contents | changes_of(original), use, 3_000, everyday=200)
    assert cases.accepted
    assert cases.refused


def changes_of(database: Path) -> st.SearchStrategy[list[tuple[Any, Any]]]:
    """One or two columns of a database, each with a value that is written to one of its rows."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            if connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0]
        ]
        columns = [
            (table, column[1])
            for table in tables
            for column in connection.execute(f"PRAGMA table_info({table})")
        ]
    places = st.tuples(st.sampled_from(columns), st.integers(0, 50))
    return st.lists(st.tuples(places, st.sampled_from(SQL_VALUES)), min_size=1, max_size=2)


def change_values(database: Path, changes: list[tuple[Any, Any]]) -> None:
    """Write values past the schema's constraints, as another program could."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        for ((table, column), row), value in changes:
            count = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            key = connection.execute(
                f"SELECT {column} FROM {table} LIMIT 1 OFFSET {row % max(count, 1)}"
            ).fetchone()
            if key is not None:
                with contextlib.suppress(sqlite3.IntegrityError):  # SQLite itself refuses some
                    connection.execute(
                        f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {column} IS ?",
                        (value, *key),
                    )
        connection.commit()

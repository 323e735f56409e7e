"""Scores and probes of single samples, kept so that nothing is measured twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from pruners.errors import StudyError, shortened, shown

# Hashes and sample identifiers are stored once and referred to by number: rows stay small.
_TABLES = """
CREATE TABLE IF NOT EXISTS schedules (number INTEGER PRIMARY KEY, content_hash TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS samples (
    number INTEGER PRIMARY KEY, split TEXT, identifier TEXT, UNIQUE (split, identifier)
);
CREATE TABLE IF NOT EXISTS scores (
    schedule INTEGER, sample INTEGER, score REAL NOT NULL, PRIMARY KEY (schedule, sample)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS probes (
    schedule INTEGER, sample INTEGER,
    answer_probability REAL NOT NULL, hidden_agreement REAL NOT NULL,
    PRIMARY KEY (schedule, sample)
) WITHOUT ROWID;
"""
SELECT_SCORES = """
SELECT samples.identifier, scores.score FROM scores
JOIN schedules ON schedules.number = scores.schedule
JOIN samples ON samples.number = scores.sample
WHERE schedules.content_hash = ? AND samples.split = ?
"""
"""Gives samples and their scores, of a schedule's content hash and a split."""

_SELECT_PROBES = """
SELECT samples.identifier, scores.score, probes.answer_probability, probes.hidden_agreement
FROM probes
JOIN scores ON scores.schedule = probes.schedule AND scores.sample = probes.sample
JOIN schedules ON schedules.number = probes.schedule
JOIN samples ON samples.number = probes.sample
WHERE schedules.content_hash = ? AND samples.split = ?
"""
_REPLACE = """
INSERT OR REPLACE INTO scores
SELECT schedules.number, samples.number, ? FROM schedules, samples
WHERE schedules.content_hash = ? AND samples.split = ? AND samples.identifier = ?
"""
_REPLACE_PROBE = """
INSERT OR REPLACE INTO probes
SELECT schedules.number, samples.number, ?, ? FROM schedules, samples
WHERE schedules.content_hash = ? AND samples.split = ? AND samples.identifier = ?
"""

DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""What a cache that cannot be used raises; the latter where SQLite quotes a damaged schema."""


class SampleProbe(NamedTuple):
    """What a probe measured on one sample.

    Attributes:
        score: The score.
        answer_probability: Probability that the pruned model gives to the dense model's answer.
        hidden_agreement: Cosine between the last hidden states, pruned and dense.
    """

    score: float
    answer_probability: float
    hidden_agreement: float


class ScoreCache:
    """Scores and probes by measured schedule, split and sample, in one SQLite file.

    Every `put` is one transaction: after ``kill -9`` it is there as a whole or not at all.

    Args:
        path: The file; created when missing.

    Raises:
        StudyError: The file cannot be written, or is not such a cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with ExitStack() as opened:
                self._connection = opened.enter_context(closing(sqlite3.connect(path, timeout=30)))
                _prepare(self._connection)
                opened.pop_all()  # it stays open
        except DAMAGE as error:
            raise self._unusable(error) from error

    @property
    def is_empty(self) -> bool:
        """Whether no score is kept."""
        try:
            (kept,) = self._connection.execute("SELECT EXISTS (SELECT 1 FROM scores)").fetchone()
        except DAMAGE as error:
            raise self._unusable(error) from error
        return not kept

    def get(self, content_hash: str, split: str, samples: Sequence[str]) -> dict[str, float]:
        """Look up scores.

        Args:
            content_hash: Hash of the schedule that was measured.
            split: Name of the split.
            samples: Identifiers of the samples wanted.

        Returns:
            The known scores by sample identifier; samples not yet scored are absent.

        Raises:
            StudyError: The file cannot be read.
        """
        known: dict[str, float] = dict(self._rows(SELECT_SCORES, content_hash, split))
        return {sample: known[sample] for sample in samples if sample in known}

    def put(self, content_hash: str, split: str, scores: Mapping[str, float]) -> None:
        """Keep scores.

        Args:
            content_hash: Hash of the schedule that was measured.
            split: Name of the split.
            scores: Score by sample identifier; a sample already kept is replaced.

        Raises:
            StudyError: The file cannot be written.
        """
        self._write(content_hash, split, scores, {})

    def get_probes(
        self, content_hash: str, split: str, samples: Sequence[str]
    ) -> dict[str, SampleProbe]:
        """Look up probes, as `get` does scores.

        Args:
            content_hash: Hash of the schedule that was measured.
            split: Name of the split.
            samples: Identifiers of the samples wanted.

        Returns:
            The known probes by sample identifier; samples not yet probed are absent.

        Raises:
            StudyError: The file cannot be read.
        """
        rows = self._rows(_SELECT_PROBES, content_hash, split)
        known = {name: SampleProbe(*values) for name, *values in rows}
        return {sample: known[sample] for sample in samples if sample in known}

    def put_probes(self, content_hash: str, split: str, probes: Mapping[str, SampleProbe]) -> None:
        """Keep probes, and their scores with them.

        Args:
            content_hash: Hash of the schedule that was measured.
            split: Name of the split.
            probes: Probe by sample identifier; a sample already kept is replaced.

        Raises:
            StudyError: The file cannot be written.
        """
        scores = {sample: probe.score for sample, probe in probes.items()}
        self._write(content_hash, split, scores, probes)

    def _rows(self, query: str, content_hash: str, split: str) -> list[Any]:
        try:
            rows: list[Any] = self._connection.execute(query, (content_hash, split)).fetchall()
        except DAMAGE as error:
            raise self._unusable(error) from error
        for name, *numbers in rows:  # SQLite lets any column hold anything
            if not all(isinstance(number, float) for number in numbers):
                raise self._unusable(sqlite3.DataError(f"sample {shown(name)} has no number"))
        return rows

    def _write(
        self,
        content_hash: str,
        split: str,
        scores: Mapping[str, float],
        probes: Mapping[str, SampleProbe],
    ) -> None:
        """Keep scores and probes in one transaction."""
        rows = [(float(score), content_hash, split, sample) for sample, score in scores.items()]
        probe_rows = [
            (
                float(probe.answer_probability),
                float(probe.hidden_agreement),
                *(content_hash, split, sample),
            )
            for sample, probe in probes.items()
        ]
        try:
            with self._connection as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO schedules (content_hash) VALUES (?)", (content_hash,)
                )
                connection.executemany(
                    "INSERT OR IGNORE INTO samples (split, identifier) VALUES (?, ?)",
                    [(split, sample) for sample in scores],
                )
                connection.executemany(_REPLACE, rows)
                connection.executemany(_REPLACE_PROBE, probe_rows)
        except DAMAGE as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unusable(self, error: Exception) -> StudyError:
        return StudyError(
            f"{self.path} cannot be used as the cache of scores ({shortened(error)}); free space "
            "on the disk, or remove the file (its scores are then measured again)"
        )


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where they are missing, and see whether all is as it should be."""
    # A write-ahead log makes a commit one append, and survives a killed process.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.executescript(_TABLES)
    connection.execute("SELECT schedule, sample, score FROM scores LIMIT 1")
    connection.execute("SELECT answer_probability, hidden_agreement FROM probes LIMIT 1")
    # A damaged index loses scores without an error; looking takes 0.1 s per million.
    (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if state != "ok":
        raise sqlite3.DatabaseError(state)

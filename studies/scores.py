"""Scores of single samples, kept so that nothing is measured twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pruners.errors import StudyError

# Hashes and sample identifiers are stored once and referred to by number: rows stay small.
_TABLES = """
CREATE TABLE IF NOT EXISTS schedules (number INTEGER PRIMARY KEY, content_hash TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS samples (
    number INTEGER PRIMARY KEY, split TEXT, identifier TEXT, UNIQUE (split, identifier)
);
CREATE TABLE IF NOT EXISTS scores (
    schedule INTEGER, sample INTEGER, score REAL NOT NULL, PRIMARY KEY (schedule, sample)
) WITHOUT ROWID;
"""
_SELECT = """
SELECT samples.identifier, scores.score FROM scores
JOIN schedules ON schedules.number = scores.schedule
JOIN samples ON samples.number = scores.sample
WHERE schedules.content_hash = ? AND samples.split = ?
"""
_REPLACE = """
INSERT OR REPLACE INTO scores
SELECT schedules.number, samples.number, ? FROM schedules, samples
WHERE schedules.content_hash = ? AND samples.split = ? AND samples.identifier = ?
"""


class ScoreCache:
    """Scores by measured schedule, split and sample, in one SQLite file.

    Every `put` is one transaction: after ``kill -9`` it is there as a whole or not at all.

    Args:
        path: The file; created when missing.

    Raises:
        StudyError: The file cannot be written, or is not such a cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(path, timeout=30)
            # A write-ahead log makes a commit one append, and survives a killed process.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)
            self._connection.execute("SELECT schedule, sample, score FROM scores LIMIT 1")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

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
        try:
            rows = self._connection.execute(_SELECT, (content_hash, split)).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        known: dict[str, float] = dict(rows)
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
        rows = [(float(score), content_hash, split, sample) for sample, score in scores.items()]
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
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _unusable(self, error: sqlite3.Error) -> StudyError:
        return StudyError(
            f"{self.path} cannot be used as the cache of scores ({error}); free space on the disk, "
            "or remove the file (its scores are then measured again)"
        )

"""Checking a study's database before anything expensive starts; reads SQLite without Optuna."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from pruners.errors import StudyError

IDENTITY_ATTRIBUTE = "prunetune:identity"
"""User attribute of every Optuna study that holds the fingerprint of the study's identity."""

_OPTUNA_TABLES = frozenset(
    {"studies", "study_user_attributes", "trials", "trial_params", "version_info"}
)
_STUDIES_WITH_TRIALS = """
SELECT studies.study_name, study_user_attributes.value_json FROM studies
LEFT JOIN study_user_attributes
    ON study_user_attributes.study_id = studies.study_id AND study_user_attributes.key = ?
WHERE EXISTS (SELECT 1 FROM trials WHERE trials.study_id = studies.study_id)
"""


def check_database(path: Path, identity_fingerprint: str, uri: str | None = None) -> None:
    """Refuse a file that is not this study's Optuna database.

    Args:
        path: The database.
        identity_fingerprint: Fingerprint of the identity that its trials must belong to.
        uri: How SQLite shall open it; None for reading and recovering.

    Raises:
        StudyError: The file is not SQLite, is damaged, was not written by Optuna, or holds trials
            of another study.
    """
    try:
        # mode=rw: a killed process leaves a write-ahead log that reading must be able to recover.
        uri = uri or f"{path.resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            damage = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
            if damage != ["ok"]:
                raise sqlite3.DatabaseError(damage[0])
            tables = {
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            missing = _OPTUNA_TABLES - tables
            if missing:
                raise StudyError(
                    f"{path} is a SQLite file but no Optuna database (tables missing: "
                    f"{', '.join(sorted(missing))}); move it away, or choose another study folder"
                )
            owners = connection.execute(_STUDIES_WITH_TRIALS, (IDENTITY_ATTRIBUTE,)).fetchall()
    # Bytes that are no text where text should be end in OSErrors too.
    except (sqlite3.Error, OSError, ValueError) as error:
        raise StudyError(
            f"{path} is not a readable SQLite database ({error}); restore it from a copy, "
            "or choose another study folder"
        ) from error
    for name, value in owners:
        if value != json.dumps(identity_fingerprint):
            raise StudyError(
                f"{path} holds trials of another study ({name!r}); put back the database that "
                "belongs to this folder, or choose another study folder"
            )

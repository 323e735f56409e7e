"""Scores of single samples as a study has stored them, read without changing anything."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pruners.errors import StudyError
from studies.scores import DAMAGE, SELECT_SCORES
from studies.snapshots import is_running, read_only
from studies.storage import SCORES_FILE

SAMPLES_FILE = "samples.json"
IMAGES_FILE = "images.json"

_COUNT = """
SELECT samples.split, COUNT(*) FROM scores
JOIN samples ON samples.number = scores.sample GROUP BY samples.split
"""
_SPLITS: TypeAdapter[dict[str, dict[str, list[str]]]] = TypeAdapter(dict[str, dict[str, list[str]]])


@dataclass(frozen=True)
class Samples:
    """The samples of a split.

    Attributes:
        identifiers: Identifier of each, in the order stored: task by task.
        tasks: Task of each.
        images: Image of each, its identifier where the study does not say.
    """

    identifiers: tuple[str, ...]
    tasks: tuple[str, ...]
    images: tuple[str, ...]


def read_samples(folder: Path, split: str) -> Samples:
    """Read which samples a split holds.

    Args:
        folder: The study's folder.
        split: Name of the split.

    Returns:
        The samples.

    Raises:
        StudyError: The study has not got so far as to say, or a file is damaged.
    """
    by_task = _read_groups(folder / SAMPLES_FILE, split)
    images: dict[str, str] = {}
    if (folder / IMAGES_FILE).exists():
        for image, names in _read_groups(folder / IMAGES_FILE, split).items():
            images |= dict.fromkeys(names, image)
    pairs = [(name, task) for task, names in by_task.items() for name in names]
    return Samples(
        identifiers=tuple(name for name, _ in pairs),
        tasks=tuple(task for _, task in pairs),
        images=tuple(images.get(name, name) for name, _ in pairs),
    )


def count_scores(folder: Path) -> dict[str, int]:
    """Count what has been measured, the dense and the published schedules included.

    Args:
        folder: The study's folder.

    Returns:
        Scored samples by split, a sample once for every schedule; empty before the first.

    Raises:
        StudyError: The file is damaged.
    """
    return {str(split): int(count) for split, count in _query(folder, _COUNT)}


def read_scores(folder: Path, measured_hash: str, split: str) -> dict[str, float]:
    """Read the scores of one schedule.

    Args:
        folder: The study's folder.
        measured_hash: Content hash of the schedule as the measured model runs it.
        split: Name of the split.

    Returns:
        The score of each sample that was measured.

    Raises:
        StudyError: The file is damaged.
    """
    return {
        str(name): float(score)
        for name, score in _query(folder, SELECT_SCORES, measured_hash, split)
    }


def _query(folder: Path, statement: str, *values: str) -> Sequence[Any]:
    file = folder / SCORES_FILE
    if not file.exists():
        return []
    try:
        with (
            read_only(file, in_use=is_running(folder)) as uri,
            closing(sqlite3.connect(uri, uri=True)) as connection,
        ):
            return connection.execute(statement, values).fetchall()
    except DAMAGE as error:
        raise StudyError(f"{file} is not a readable cache of scores ({error})") from error


def _read_groups(file: Path, split: str) -> dict[str, list[str]]:
    """Read a split's samples by task or by image."""
    try:
        splits = _SPLITS.validate_python(json.loads(file.read_text(encoding="utf-8")))
        return splits[split]
    except FileNotFoundError as error:
        raise StudyError(f"{file.parent} has no {file.name} yet: its run has not begun") from error
    except (OSError, ValueError, ValidationError, KeyError) as error:
        raise StudyError(f"{file} does not say which samples the {split} split holds") from error

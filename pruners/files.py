"""Schedules as JSON files."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pruners.atomic import atomic_path
from pruners.errors import ScheduleError, shortened, shown
from pruners.json_files import read_json
from pruners.schedule import FORMAT, VERSION, Schedule
from pruners.scorers import QuestionReader

_MOST_PROBLEMS = 5  # that a message lists

_LOCAL_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")
"""A hub name, or a relative path: not the root, no home folder, drive or address."""


class ScheduleWarning(UserWarning):
    """A schedule file holds something that this version does not know."""


def save_schedule(schedule: Schedule, path: str | os.PathLike[str]) -> None:
    """Write a schedule as sorted, indented JSON; the file is never half-written.

    Args:
        schedule: The schedule.
        path: The file to write; its folder must exist.

    Raises:
        ScheduleError: The file cannot be written, or a scorer names a text tower that
            `load_schedule` would refuse.
    """
    target = Path(path)
    _check_checkpoints(schedule, "this schedule cannot be saved: ")
    text = json.dumps(schedule.model_dump(mode="json"), sort_keys=True, indent=2) + "\n"
    try:
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScheduleError(
            f"cannot write the schedule to {target}: {error.strerror or error}; "
            "name a file in a folder that exists and can be written"
        ) from error


def load_schedule(path: str | os.PathLike[str]) -> Schedule:
    """Read a schedule file.

    Args:
        path: A file that `save_schedule` or a search wrote.

    Returns:
        The schedule.

    Raises:
        ScheduleError: The file cannot be read, is no schedule, comes from a newer format, has a
            key twice, or a wrong value; the message names the field, what was expected and what was
            found. A text tower that is a folder outside the current one is refused too: files
            travel.

    Warns:
        ScheduleWarning: The file has fields that this version does not know; they are ignored.
    """
    source = Path(path)
    try:
        values = read_json(source, partial(_distinct, source))
    except OSError as error:
        raise ScheduleError(
            f"cannot read the schedule {source}: {error.strerror or error}; check the path"
        ) from error
    except ValueError as error:
        raise ScheduleError(f"{source} is not JSON ({error}); expected a schedule file") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise ScheduleError(
            f"{source} is no schedule: its 'format' should be {FORMAT!r}, found {shown(found)}"
        )
    version = values.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ScheduleError(
            f"{source} has schedule version {shown(version)}, this program reads version "
            f"{VERSION}; install the prunetune release that wrote it"
        )
    schedule = _validated(values, source)
    _check_checkpoints(schedule, f"{source}: ")
    return schedule


def json_schema() -> dict[str, Any]:
    """Describe the file format.

    Returns:
        The JSON Schema of schedule files, as published in ``docs/schedule.schema.json``.
    """
    return Schedule.model_json_schema(mode="serialization")


def _distinct(source: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ScheduleError(
            f"{source} has the key {shown(twice)} more than once in one object; keep the one that "
            "is meant"
        )
    return values


def _validated(values: dict[str, Any], source: Path) -> Schedule:
    try:
        return Schedule.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    wrong = [problem for problem in problems if problem["type"] != "extra_forbidden"]
    if wrong:
        described = [_describe(problem) for problem in wrong[:_MOST_PROBLEMS]]
        if len(wrong) > _MOST_PROBLEMS:
            described.append(f"and {len(wrong) - _MOST_PROBLEMS} more")
        raise ScheduleError(f"{source}: " + "; ".join(described))
    # Outer ones first: a key "kind" that means nothing must not be taken for that of a part.
    for problem in sorted(unknown, key=lambda problem: len(problem["loc"])):
        _remove(values, problem["loc"])
    names = ", ".join(_spelled(problem["loc"]) for problem in unknown[:_MOST_PROBLEMS])
    warnings.warn(
        f"{source} has fields that this version does not know and ignores: {names}; "
        "they may come from a newer release",
        ScheduleWarning,
        stacklevel=3,
    )
    # Rules that span fields are only checked once the unknown ones are gone.
    return _validated(values, source)


def _describe(problem: ErrorDetails) -> str:
    field = _spelled(problem["loc"]) or "schedule"
    if problem["type"] in ("missing", "value_error"):
        return f"{field}: {shortened(problem['msg'])}"
    return f"{field}: {shortened(problem['msg'])}, found {shown(problem['input'])}"


def _spelled(location: tuple[int | str, ...]) -> str:
    return ".".join(str(key) if isinstance(key, int) else shown(key)[1:-1] for key in location)


def _remove(values: Any, location: tuple[int | str, ...]) -> None:
    *parents, field = location
    for key in parents:
        # After a scorer, selector or merge rule comes its kind, which is no key.
        if isinstance(values, dict) and key == values.get("kind"):
            continue
        values = values[key]
    del values[field]


def _check_checkpoints(schedule: Schedule, where: str) -> None:
    """Refuse text towers that a file from elsewhere must not point to."""
    for number, stage in enumerate(schedule.stages):
        if not isinstance(stage.scorer, QuestionReader):
            continue
        name = stage.scorer.text_tower
        if _LOCAL_NAME.fullmatch(name) is None or ".." in name.split("/"):
            raise ScheduleError(
                f"{where}stages.{number}.scorer.text_tower is {shown(name)}; expected a hub name "
                "or a folder below the current one. Give any other folder to apply_schedule, as "
                "text_tower="
            )

"""Schedules as JSON files."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pruners.atomic import atomic_path
from pruners.errors import ScheduleError
from pruners.schedule import FORMAT, VERSION, Schedule


class ScheduleWarning(UserWarning):
    """A schedule file holds something that this version does not know."""


def save_schedule(schedule: Schedule, path: str | os.PathLike[str]) -> None:
    """Write a schedule as sorted, indented JSON; the file is never half-written.

    Args:
        schedule: The schedule.
        path: The file to write; its folder must exist.

    Raises:
        ScheduleError: The file cannot be written.
    """
    target = Path(path)
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
        ScheduleError: The file cannot be read, is no schedule, comes from a newer format, or has a
            wrong value; the message names the field, what was expected and what was found.

    Warns:
        ScheduleWarning: The file has fields that this version does not know; they are ignored.
    """
    source = Path(path)
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScheduleError(
            f"cannot read the schedule {source}: {error.strerror or error}; check the path"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ScheduleError(f"{source} is not JSON ({error}); expected a schedule file") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise ScheduleError(
            f"{source} is no schedule: its 'format' should be {FORMAT!r}, found {found!r}"
        )
    version = values.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ScheduleError(
            f"{source} has schedule version {version!r}, this program reads version {VERSION}; "
            "install the prunetune release that wrote it"
        )
    return _validated(values, source)


def json_schema() -> dict[str, Any]:
    """Describe the file format.

    Returns:
        The JSON Schema of schedule files, as published in ``docs/schedule.schema.json``.
    """
    return Schedule.model_json_schema(mode="serialization")


def _validated(values: dict[str, Any], source: Path) -> Schedule:
    try:
        return Schedule.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    wrong = [problem for problem in problems if problem["type"] != "extra_forbidden"]
    if wrong:
        raise ScheduleError(f"{source}: " + "; ".join(_describe(problem) for problem in wrong))
    for problem in unknown:
        _remove(values, problem["loc"])
    names = ", ".join(".".join(map(str, problem["loc"])) for problem in unknown)
    warnings.warn(
        f"{source} has fields that this version does not know and ignores: {names}; "
        "they may come from a newer release",
        ScheduleWarning,
        stacklevel=3,
    )
    # Rules that span fields are only checked once the unknown ones are gone.
    return _validated(values, source)


def _describe(problem: ErrorDetails) -> str:
    field = ".".join(map(str, problem["loc"])) or "schedule"
    if problem["type"] in ("missing", "value_error"):
        return f"{field}: {problem['msg']}"
    return f"{field}: {problem['msg']}, found {problem['input']!r}"


def _remove(values: Any, location: tuple[int | str, ...]) -> None:
    *parents, field = location
    for key in parents:
        if isinstance(key, int) or key in values:
            values = values[key]
        # Otherwise the location names the kind of a scorer or merge rule, which is no key.
    del values[field]

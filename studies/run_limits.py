"""How far a run searches, kept beside the study so that whoever watches can tell what is left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pruners.errors import StudyError
from studies.files import write_text

LIMITS_FILE = "run.json"


class RunLimits(BaseModel):
    """Where the search of the newest run ends at the latest; not part of a study's identity.

    Attributes:
        started: When the run began.
        trials: Trials per budget, those of earlier runs counted.
        timeout: Seconds of search per budget; None for no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    started: AwareDatetime
    trials: int = Field(ge=1)
    timeout: float | None = Field(ge=0)


def write_limits(folder: Path, trials: int, timeout: float | None) -> None:
    """Write ``run.json`` as a run begins.

    Args:
        folder: The study's folder.
        trials: Trials per budget.
        timeout: Seconds of search per budget; None for no limit.

    Raises:
        StudyError: The file cannot be written.
    """
    limits = RunLimits(
        started=datetime.now(UTC).replace(microsecond=0), trials=trials, timeout=timeout
    )
    write_text(folder / LIMITS_FILE, limits.model_dump_json(indent=1) + "\n")


def read_limits(folder: Path) -> RunLimits | None:
    """Read the limits of a study's newest run.

    Args:
        folder: The study's folder.

    Returns:
        The limits; None where no run has written them.

    Raises:
        StudyError: The file is damaged.
    """
    file = folder / LIMITS_FILE
    try:
        return RunLimits.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise StudyError(
            f"{file} does not hold the limits of a run; remove it, the next run writes it anew"
        ) from error

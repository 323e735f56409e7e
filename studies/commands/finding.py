"""From what users type to the folder of a study."""

from __future__ import annotations

from pathlib import Path

from pruners.errors import StudyError, shortened
from pruners.paths import is_folder
from studies.reading import find_studies
from studies.storage import IDENTITY_FILE

_MOST_NAMES = 8


def study_folder(study: str, out: Path) -> Path:
    """Find a study's folder.

    Args:
        study: Its name, or a path to its folder.
        out: The folder that holds the studies.

    Returns:
        The folder.

    Raises:
        StudyError: There is no such study; the message names those that there are.
    """
    for folder in (out / study, Path(study)):
        if is_folder(folder) and (folder / IDENTITY_FILE).exists():
            return folder
    study = shortened(study)
    if not is_folder(out):
        raise StudyError(
            f"there is no study {study!r}, and no folder {out}; name the one with --out"
        )
    names = [folder.name for folder in find_studies(out)]
    if not names:
        raise StudyError(f"there is no study {study!r}: {out} holds none; name another with --out")
    shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    raise StudyError(f"there is no study {study!r} in {out}; there are {shown}")


def file_to_write(path: Path) -> Path:
    """Refuse a path that names no file.

    Args:
        path: What the user gave.

    Returns:
        `path`.

    Raises:
        StudyError: It is empty, or a folder.
    """
    if not path.name or is_folder(path):
        raise StudyError(f"--to is {shortened(str(path))!r}, which is a folder; name a file")
    return path

"""Removing a study, as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from pruners.atomic import TEMPORARY_PREFIX
from pruners.errors import StudyError
from studies.storage import IDENTITY_FILE, LOCK_FILE


def delete_study(folder: Path) -> None:
    """Remove a study's folder and everything in it.

    It first gets a name that is no study's, so that a killed process leaves no half of a study.

    Args:
        folder: The study's folder.

    Raises:
        StudyError: It is no study's folder or a link to one, a process runs the study, or files
            cannot be removed.
    """
    if not (folder / IDENTITY_FILE).exists():
        raise StudyError(f"{folder} is not a study's folder: it has no {IDENTITY_FILE}")
    if folder.is_symlink():
        raise StudyError(f"{folder} is a link; remove the folder it leads to, {folder.resolve()}")
    removed = folder.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{folder.name}")
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            folder.rename(removed)
        shutil.rmtree(removed)
    except Timeout as error:
        raise StudyError(
            f"a process is running the study in {folder}; end it first (Ctrl-C), then delete"
        ) from error
    except OSError as error:
        raise StudyError(f"{folder} cannot be removed ({error.strerror or error})") from error

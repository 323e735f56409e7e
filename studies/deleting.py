"""Removing a study, as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from pruners.atomic import TEMPORARY_PREFIX
from pruners.errors import StudyError
from studies.identity import read_identity
from studies.storage import IDENTITY_FILE, LOCK_FILE
from studies.trial_access import find_optuna_study, open_for_changes, shared_address


def delete_study(folder: Path, storage: str | None = None) -> None:
    """Remove a study's folder and everything in it, and its trials from a shared storage.

    The folder first gets a name that is no study's, so that a killed process leaves no half of one.

    Args:
        folder: The study's folder.
        storage: As for `studies.trial_access.shared_address`.

    Raises:
        StudyError: It is no study's folder or a link to one, a process runs the study, or something
            cannot be removed.
        SettingsError: The address of the storage cannot be used.
    """
    if not (folder / IDENTITY_FILE).exists():
        raise StudyError(f"{folder} is not a study's folder: it has no {IDENTITY_FILE}")
    if folder.is_symlink():
        raise StudyError(f"{folder} is a link; remove the folder it leads to, {folder.resolve()}")
    removed = folder.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{folder.name}")
    try:
        with FileLock(folder / LOCK_FILE, timeout=0.2):
            _delete_shared_trials(folder, storage)
            folder.rename(removed)
        shutil.rmtree(removed)
    except Timeout as error:
        raise StudyError(
            f"a process is running the study in {folder}; end it first (Ctrl-C), then delete"
        ) from error
    except OSError as error:
        raise StudyError(f"{folder} cannot be removed ({error.strerror or error})") from error


def _delete_shared_trials(folder: Path, storage: str | None) -> None:
    address = shared_address(folder, storage)
    if address is None or not address.is_there:
        return
    import optuna

    identity = read_identity(folder / IDENTITY_FILE)
    with open_for_changes(folder, storage) as opened:
        for budget in identity.budgets:
            study = find_optuna_study(opened, folder, identity, budget)
            if study is not None:
                optuna.delete_study(study_name=study.study_name, storage=opened)

"""Where a study keeps its trials, and opening that beside the run that may be using it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from pruners.errors import PrunetuneError, StudyError
from studies.database import IDENTITY_ATTRIBUTE, check_database
from studies.identity import StudyIdentity
from studies.optuna_storage import (
    CONNECT_TIMEOUT,
    close_storage,
    open_storage,
    shared_study_name,
    sqlite_url,
)
from studies.snapshots import is_running, is_shared_by_runs, read_only
from studies.storage import DATABASE_FILE, STORAGE_FILE
from studies.storage_address import VARIABLE, StorageAddress, parse_storage
from studies.trial_storage import storage_errors

if TYPE_CHECKING:
    import optuna

_PATIENCE = 60  # seconds to wait while a run writes a SQLite file
_SERVER: Mapping[str, object] = {
    "pool_pre_ping": True,
    "connect_args": {"connect_timeout": CONNECT_TIMEOUT},
}


def shared_address(folder: Path, storage: str | None) -> StorageAddress | None:
    """Tell which shared storage holds a study's trials.

    Args:
        folder: The study's folder.
        storage: The storage's address with what is needed to use it, such as a password; None where
            the one that the study has noted will do.

    Returns:
        Its address; None for a study with a ``study.db`` of its own, whatever is given.

    Raises:
        StudyError: The study's trials are in another storage than the one given.
        SettingsError: The address cannot be used.
    """
    file = folder / STORAGE_FILE
    try:
        noted = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{file} cannot be read ({error})") from error
    # A password is noted as asterisks; libpq looks for it where it always does.
    address = parse_storage(storage or noted.replace(":***@", "@"), from_environment=True)
    if not address.is_same_database(noted):
        raise StudyError(
            f"{folder} keeps its trials in {noted}, not in {address}; give that one with --storage "
            f"or in {VARIABLE}"
        )
    return address


def is_kept_in(storage: str, folder: Path) -> bool:
    """Tell whether a study keeps its trials in a shared storage.

    Args:
        storage: The storage's address.
        folder: The study's folder.

    Returns:
        Whether it does; not where they are in another storage, or that cannot be told.
    """
    try:
        return shared_address(folder, storage) is not None
    except PrunetuneError:
        return False


def find_optuna_study(
    storage: optuna.storages.BaseStorage, path: Path, identity: StudyIdentity, budget: str
) -> optuna.Study | None:
    """Find the Optuna study of a budget.

    Args:
        storage: An Optuna storage, that of this study alone or one that studies share.
        path: The study's folder.
        identity: What it is a study of.
        budget: One of its budgets.

    Returns:
        The Optuna study; None where no trial of it has begun.
    """
    import optuna

    # In a storage that studies share, the folder's name is part of the Optuna study's.
    for name in (shared_study_name(path.resolve().name, budget), budget):
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            continue
        if study.user_attrs.get(IDENTITY_ATTRIBUTE) == identity.fingerprint:
            return study
    return None


def trials_without_folder(storage: str, kept: Sequence[Path]) -> dict[str, int]:
    """Count the trials in a shared storage that belong to none of some studies.

    Args:
        storage: The storage's address, with what is needed to use it.
        kept: The folders of the studies that are kept in it (`is_kept_in`).

    Returns:
        Trials by Optuna study, which is called ``FOLDER: BUDGET``, in the order of these names.
        Studies of other programs are left out.

    Raises:
        StudyError: The storage cannot be read. The message shows no password.
        SettingsError: The address cannot be used.
    """
    import optuna

    address = parse_storage(storage, from_environment=True)
    if not address.is_there:
        return {}
    with _opened_shared(address) as opened:
        found = optuna.get_all_study_summaries(opened, include_best_trial=False)
    known = {folder.resolve().name for folder in kept}
    return {
        study.study_name: study.n_trials
        for study in sorted(found, key=lambda study: study.study_name)
        if IDENTITY_ATTRIBUTE in study.user_attrs
        and study.study_name.rpartition(": ")[0] not in known
    }


@contextmanager
def open_trials(
    folder: Path, identity: StudyIdentity, storage: str | None
) -> Iterator[optuna.storages.RDBStorage | None]:
    """Open what holds a study's trials, for reading.

    Args:
        folder: The study's folder.
        identity: What it is a study of.
        storage: As for `shared_address`.

    Yields:
        The Optuna storage, closed at the end; None where there is none yet.

    Raises:
        StudyError: It cannot be opened, or its file is damaged or gone. The message shows no
            password.
        SettingsError: The address cannot be used.
    """
    address = shared_address(folder, storage)
    if address is not None:
        if not address.is_there:
            raise StudyError(
                f"{folder} keeps its trials in {address}, which is gone; bring the file back"
            )
        with _opened_shared(address) as opened:
            yield opened
        return
    database = folder / DATABASE_FILE
    if not database.exists():
        yield None
        return
    with read_only(database, in_use=is_running(folder)) as uri:
        check_database(database, identity.fingerprint, uri)
        with _opened(_sqlite_url(uri), str(database), None) as opened:
            yield opened


@contextmanager
def open_for_changes(folder: Path, storage: str | None) -> Iterator[optuna.storages.RDBStorage]:
    """Open what holds a study's trials, for reading and writing.

    Args:
        folder: The study's folder, whose first trial has begun.
        storage: As for `shared_address`.

    Yields:
        The Optuna storage, closed at the end.

    Raises:
        StudyError: It cannot be opened or written. The message shows no password.
        SettingsError: The address cannot be used.
    """
    address = shared_address(folder, storage)
    file = folder / DATABASE_FILE
    url = sqlite_url(file) if address is None else address.url
    on_server = address is not None and address.is_postgresql
    engine = _SERVER if on_server else {"connect_args": {"timeout": _PATIENCE}}
    with storage_errors(str(file) if address is None else f"the storage {address}", address):
        opened = open_storage(url, engine, skip_table_creation=True)
        try:
            yield opened
        finally:
            close_storage(opened)


@contextmanager
def _opened_shared(address: StorageAddress) -> Iterator[optuna.storages.RDBStorage]:
    """Open a shared storage for reading."""
    if address.is_postgresql:
        with _opened(address.url, f"the storage {address}", address) as opened:
            yield opened
    else:
        with (
            read_only(address.file, in_use=is_shared_by_runs(address.file)) as uri,
            _opened(_sqlite_url(uri), str(address.file), address) as opened,
        ):
            yield opened


@contextmanager
def _opened(
    url: str, name: str, address: StorageAddress | None
) -> Iterator[optuna.storages.RDBStorage]:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    storage = None
    engine = _SERVER if address is not None and address.is_postgresql else None
    try:
        try:
            storage = open_storage(url, engine, skip_table_creation=True)
        except RuntimeError as error:  # another version's tables
            raise StudyError(f"{name} cannot be read ({error})") from error
        yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = str(error.__cause__ or error)
        first = (cause if address is None else address.masked(cause)).partition("\n")[0]
        raise StudyError(f"{name} cannot be read ({first})") from error
    finally:
        if storage is not None:
            close_storage(storage)


def _sqlite_url(uri: str) -> str:
    """SQLAlchemy's address of a SQLite URI; it unquotes what it is given once more."""
    file, _, query = uri.partition("?")
    return sqlite_url(file, {**dict(parse_qsl(query)), "uri": "true"})

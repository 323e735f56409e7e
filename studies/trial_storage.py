"""Optuna's relational storage as studies use it: on the study's own file, or shared by studies."""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pruners.errors import StudyError
from studies.database import IDENTITY_ATTRIBUTE
from studies.files import atomic_path
from studies.optuna_storage import (
    CONNECT_TIMEOUT,
    close_storage,
    open_storage,
    shared_study_name,
    sqlite_url,
)
from studies.records import BUDGET_ATTRIBUTE
from studies.storage_address import StorageAddress

if TYPE_CHECKING:
    import optuna
    from sqlalchemy.engine import Connection

HEARTBEAT = 60
"""Seconds between the signs of life of a running trial."""

GRACE = 900
"""Seconds without one after which Optuna's tools take a trial for dead: blocks that this process
measures itself may take minutes."""

_BUSY = 60  # seconds to wait for another writer of a SQLite file
_SCHEMA_KEY = 7_045_229_661_153_240_021  # advisory lock under which tables are made


class TrialStorage:
    """Keeps the trials of a study's budgets.

    For one thread. Use `own_storage` or `shared_storage`.

    Args:
        rdb: Optuna's storage.
        where: What messages call it.
        names: Optuna study of each budget.
        identity: Fingerprint of the study's identity.
    """

    def __init__(
        self,
        rdb: optuna.storages.RDBStorage,
        where: str,
        names: dict[str, str],
        identity: str,
    ) -> None:
        from sqlalchemy import event

        self._rdb = rdb
        self._where = where
        self._names = names
        self._identity = identity
        self._studies: list[optuna.Study] = []
        self._beaten = float("-inf")
        event.listen(rdb.engine, "connect", self._note_connection)

    def study(
        self,
        budget: str,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
    ) -> optuna.Study:
        """Create or continue a budget's study; no other process may be running it.

        Args:
            budget: The budget.
            sampler: Sampler; Optuna's default when None.
            pruner: Pruner; Optuna's default when None.

        Returns:
            The study. What a killed process left running has failed and is tried again first.

        Raises:
            StudyError: There is a study of that name with another identity.
        """
        import optuna

        study = optuna.create_study(
            study_name=self._names[budget],
            storage=self._rdb,
            sampler=sampler,
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
        owner = study.user_attrs.get(IDENTITY_ATTRIBUTE)
        if owner is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(BUDGET_ATTRIBUTE, budget)
            study.set_user_attr(IDENTITY_ATTRIBUTE, self._identity)  # last: now all is there
        elif owner != self._identity:
            raise StudyError(
                f"{self._where} holds another study under the name {study.study_name!r}; choose "
                "another name with --study, or the storage that belongs to this folder"
            )
        _retry_running(study, self._rdb)
        self._studies.append(study)
        return study

    def keep_alive(self) -> bool:
        """Give a sign of life for the trials that are running, if the last one is old.

        Returns:
            Whether it was old, or connections had to be made anew.
        """
        from optuna.trial import TrialState

        if time.monotonic() - self._beaten < HEARTBEAT:
            return False
        self._beaten = time.monotonic()
        for study in self._studies:
            # Optuna's own heartbeat is part of `Study.optimize`, which asks and tells by itself.
            number = self._rdb.get_study_id_from_name(study.study_name)
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self._rdb.record_heartbeat(
                    self._rdb.get_trial_id_from_study_id_trial_number(number, trial.number)
                )
        return True

    def _note_connection(self, *_: object) -> None:
        """Look at everything soon: a new connection may mean that the server was restarted."""
        self._beaten = float("-inf")

    def close(self) -> None:
        """Close all connections."""
        close_storage(self._rdb)


def own_storage(database: Path, budgets: tuple[str, ...], identity: str) -> TrialStorage:
    """Open a study's own SQLite file, whose schema is there as a whole or not at all.

    Args:
        database: The file; created when missing.
        budgets: The study's budgets, which name its Optuna studies.
        identity: Fingerprint of the study's identity.

    Returns:
        The storage.
    """
    if not database.exists():
        with atomic_path(database) as temporary:
            close_storage(_rdb(sqlite_url(temporary)))
    names = {budget: budget for budget in budgets}
    return TrialStorage(_sqlite(database), str(database), names, identity)


def shared_storage(
    address: StorageAddress, study: str, budgets: tuple[str, ...], identity: str
) -> TrialStorage:
    """Open a storage that several studies share; its tables are made when missing.

    Args:
        address: Where it is.
        study: Name of the study, part of its Optuna studies' names.
        budgets: The study's budgets.
        identity: Fingerprint of the study's identity.

    Returns:
        The storage.

    Raises:
        StudyError: It cannot be reached, or is no storage of Optuna's.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    names = {budget: shared_study_name(study, budget) for budget in budgets}
    try:
        rdb = _postgresql(address) if address.is_postgresql else _shared_sqlite(address.file)
    except (SQLAlchemyError, OptunaError, RuntimeError, OSError) as error:
        raise StudyError(
            f"the storage {address} cannot be used ({address.masked(str(error))}); "
            "give another with --storage"
        ) from error
    return TrialStorage(rdb, f"the storage {address}", names, identity)


@contextmanager
def storage_errors(where: str, address: StorageAddress | None) -> Iterator[None]:
    """Say in plain words when a storage fails while it is used.

    Args:
        where: What messages call it.
        address: Its address, to be masked; None for a study's own file.

    Yields:
        Nothing.

    Raises:
        StudyError: The storage fails, or another process drives the study too.
    """
    from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except UpdateFinishedTrialError as error:
        raise StudyError(
            f"another process has ended a trial of this run in {where}: it may have taken over the "
            "study when a connection was lost; wait for it to end, then the same command continues"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = str(cause) if address is None else address.masked(str(cause))
        raise StudyError(
            f"{where} failed ({reason.partition(chr(10))[0]}); finished trials are kept, and when "
            "this is mended the same command continues"
        ) from error


def _rdb(url: str, **engine: Any) -> optuna.storages.RDBStorage:
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return open_storage(
            url,
            engine,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )


def _sqlite(database: Path) -> optuna.storages.RDBStorage:
    from sqlalchemy import event

    rdb = _rdb(sqlite_url(database), connect_args={"timeout": _BUSY})
    close_storage(rdb)  # connections opened so far lack the settings below
    event.listen(rdb.engine, "connect", _write_ahead)
    event.listen(rdb.engine, "begin", _begin_to_write)
    return rdb


def _shared_sqlite(database: Path) -> optuna.storages.RDBStorage:
    # Two that make tables at once would fail: "if not exists" is no lock.
    with FileLock(database.with_name(f"{database.name}.lock"), timeout=_BUSY):
        return _sqlite(database)


def _postgresql(address: StorageAddress) -> optuna.storages.RDBStorage:
    from sqlalchemy import create_engine, text

    # As above, wherever the other is.
    engine = create_engine(address.url, connect_args={"connect_timeout": CONNECT_TIMEOUT})
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _SCHEMA_KEY})
            return _rdb(
                address.url,
                pool_pre_ping=True,  # idle connections are cut by servers and firewalls
                connect_args={"connect_timeout": CONNECT_TIMEOUT, "application_name": "prunetune"},
            )
    finally:
        engine.dispose()


def _retry_running(study: optuna.Study, rdb: optuna.storages.RDBStorage) -> None:
    """Fail and enqueue again what a killed process left running; this process is the only one.

    Optuna's own way waits until heartbeats are old. Enqueued first, failed second: killed in
    between, a trial is tried twice rather than never.
    """
    from optuna.trial import TrialState

    retry = rdb.get_heartbeat_stale_trial_callback()
    assert retry is not None  # every storage is opened with it
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        retry(study, trial)
        study.tell(trial.number, state=TrialState.FAIL)


def _write_ahead(connection: sqlite3.Connection, _: object) -> None:
    """Commit by appending to a log: quick enough for a report per sample, and a dashboard that
    reads along never makes a writer wait."""
    connection.isolation_level = None  # sqlite3 begins no transactions by itself
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_to_write(connection: Connection) -> None:
    """Take the write lock at once: Optuna reads before it writes, and SQLite refuses to write what
    another process, such as a dashboard, has changed in between, without waiting."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")

"""Letting one driver at a time work on a study in a storage that several studies share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from pruners.errors import StudyError
from studies.optuna_storage import CONNECT_TIMEOUT
from studies.storage_address import StorageAddress

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_SESSION = {
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "0",
}
"""What the server is told of the connection: to let go of a driver whose machine is gone after a
minute and a half (by default two hours, in which nobody could continue), and of no other one."""


class StorageLock(Protocol):
    """What says that this process is a study's driver."""

    def check(self) -> None:
        """Make sure that it still does.

        Raises:
            StudyError: The lock is lost, so that another driver may have begun.
        """

    def release(self) -> None:
        """Let others drive the study."""


def check_folder(address: StorageAddress | None, study: Path) -> None:
    """Refuse a SQLite file in a folder that is not there: what locks the file would make it.

    A mistyped folder, or that of a disk that is not mounted, would begin another storage.

    Args:
        address: The storage; None for no shared one.
        study: The study's folder, which the run makes with its parents.

    Raises:
        StudyError: There is no such folder.
    """
    if address is None or address.is_postgresql:
        return
    folder = address.file.parent
    if not folder.is_dir() and folder not in (study.absolute(), *study.absolute().parents):
        raise StudyError(
            f"the storage {address} is in a folder that does not exist; make {folder}, or correct "
            "--storage"
        )


def lock_study(address: StorageAddress, study: str) -> StorageLock:
    """Make this process the driver of a study, until the lock is released or the process ends.

    Args:
        address: The storage.
        study: Name of the study.

    Returns:
        The lock.

    Raises:
        StudyError: Another process is the driver, or the storage cannot be used.
    """
    kind = PostgresqlLock if address.is_postgresql else SqliteLock
    return kind(address, study)


class SqliteLock:
    """A locked file beside a SQLite file.

    Args:
        address: The SQLite file's.
        study: Name of the study.

    Raises:
        StudyError: Another process holds it, or the file cannot be written.
    """

    def __init__(self, address: StorageAddress, study: str) -> None:
        file = address.file
        digest = hashlib.sha256(study.encode()).hexdigest()[:12]
        lock = file.with_name(f"{file.name}.{digest}.lock")
        try:
            self._lock = FileLock(lock, timeout=0.2)  # who looks at it holds it for an instant
            self._lock.acquire()
        except Timeout as error:
            raise _driven(study, address) from error
        except OSError as error:
            raise StudyError(
                f"the storage {address} cannot be written ({error.strerror or error}); "
                "choose another with --storage"
            ) from error

    def check(self) -> None:
        """Do nothing: such a lock ends with the process only."""

    def release(self) -> None:
        """Let others drive the study."""
        self._lock.release()


def lock_files(database: Path) -> Iterator[Path]:
    """List the files that `SqliteLock` has locked beside a SQLite file, by now or earlier.

    Args:
        database: The SQLite file.

    Returns:
        A file per study.
    """
    return database.parent.glob(f"{escape(database.name)}.*.lock")


class PostgresqlLock:
    """An advisory lock, held by a connection of its own; it ends with the connection.

    Args:
        address: The server's.
        study: Name of the study.

    Raises:
        StudyError: Another process holds it, or the server cannot be reached.
    """

    def __init__(self, address: StorageAddress, study: str) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import SQLAlchemyError

        self._address = address
        self._engine = create_engine(
            address.url,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "application_name": "prunetune driver",
            },
        )
        try:
            self._connection: Connection = self._engine.connect()
            # Older servers lack some of them.
            known = text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name=:name")
            for name, value in _SESSION.items():
                self._connection.execute(known, {"name": name, "value": value})
            held = self._connection.execute(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": _key(study)}
            ).scalar()
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise StudyError(
                f"the storage {address} cannot be used ({address.masked(str(error))}); "
                "start the server, or correct --storage"
            ) from error
        if not held:
            self.release()
            raise _driven(study, address)

    def check(self) -> None:
        """Make sure that the connection is there; it also keeps firewalls from closing it."""
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            raise StudyError(
                f"the connection to the storage {self._address} is lost "
                f"({self._address.masked(str(error))}); finished trials are kept, and the same "
                "command continues"
            ) from error

    def release(self) -> None:
        """Let others drive the study."""
        self._connection.close()
        self._engine.dispose()


def _driven(study: str, address: StorageAddress) -> StudyError:
    return StudyError(
        f"another process is running the study {study!r} in the storage {address}; wait for it to "
        "end, or choose another name with --study"
    )


def _key(study: str) -> int:
    """Number that stands for a study among a server's advisory locks, 64 bits, signed."""
    digest = hashlib.sha256(f"prunetune study {study}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)

"""Looking at a study's SQLite files without changing anything on disk, also while a run writes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruners.errors import StudyError
from studies.storage import LOCK_FILE
from studies.storage_lock import lock_files


def is_running(folder: Path) -> bool:
    """Whether a process of this machine is running a study.

    Args:
        folder: The study's folder.

    Returns:
        Whether its lock is held.
    """
    return _is_held(folder / LOCK_FILE)


def is_shared_by_runs(database: Path) -> bool:
    """Whether a process of this machine runs a study whose trials are in a shared SQLite file.

    Args:
        database: The file. The study's folder may be anywhere.

    Returns:
        Whether one of its studies' locks is held.
    """
    return any(map(_is_held, lock_files(database)))


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        return False  # no run has begun, or it is not ours to read
    try:
        # A shared lock, given back at once: `filelock` would create the file or change its time.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def read_only(database: Path, *, in_use: bool) -> Iterator[str]:
    """An address under which SQLite reads a study's database as it is now.

    SQLite itself leaves files beside a database that it only reads, when that has a write-ahead log
    but nobody else has it open. So a database at rest is read as immutable, one that a run has open
    is read along with the run, and what a killed process left is read from a copy.

    Args:
        database: The file.
        in_use: Whether a run may have it open.

    Yields:
        A URI for `sqlite3.connect(..., uri=True)`.

    Raises:
        StudyError: The file cannot be read.
    """
    log = database.with_name(f"{database.name}-wal")
    if in_use:
        # As any connection of the run: the last one to close tidies up, be it this one.
        yield _uri(database, "mode=rw")
    elif not log.exists() or log.stat().st_size == 0:
        yield _uri(database, "mode=ro&immutable=1")
    else:
        with tempfile.TemporaryDirectory(prefix="prunetune-") as folder:
            copy = Path(folder) / database.name
            try:
                shutil.copyfile(database, copy)
                shutil.copyfile(log, copy.with_name(log.name))
            except OSError as error:
                raise StudyError(
                    f"{database} cannot be read ({error.strerror or error})"
                ) from error
            yield _uri(copy, "mode=rw")


def _uri(database: Path, query: str) -> str:
    return f"{database.resolve().as_uri()}?{query}"

"""The folder of a study: created once, continued by the same command, refused to any other."""

from __future__ import annotations

import os
import sqlite3
import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pruners.atomic import TEMPORARY_PREFIX
from pruners.errors import StudyError
from studies.database import IDENTITY_ATTRIBUTE, check_database
from studies.files import atomic_path, write_text
from studies.identity import StudyIdentity, read_identity
from studies.scores import ScoreCache

if TYPE_CHECKING:
    import optuna

IDENTITY_FILE = "identity.json"
DATABASE_FILE = "study.db"
SCORES_FILE = "scores.db"
LOCK_FILE = ".lock"


class StudyFolder:
    """A study's folder, held by this process until closed.

    Use `StudyFolder.open`, as a context manager. It holds ``identity.json``, Optuna's ``study.db``
    with one Optuna study per budget, ``scores.db``, and the results.

    Attributes:
        path: The folder.
        identity: What the study is a study of.
        continued: Whether an earlier run had already created it.
        scores: Scores of single samples, measured by this run and earlier ones.
    """

    def __init__(
        self,
        path: Path,
        identity: StudyIdentity,
        *,
        continued: bool,
        scores: ScoreCache,
        lock: FileLock,
    ) -> None:
        self.path = path
        self.identity = identity
        self.continued = continued
        self.scores = scores
        self._lock = lock
        self._storage: optuna.storages.RDBStorage | None = None

    @classmethod
    def open(cls, path: Path, identity: StudyIdentity) -> StudyFolder:
        """Create a study's folder, or continue the study in it.

        Reads only small files: no model, and Optuna not before `study` is called.

        Args:
            path: The folder; created, with its parents, when missing.
            identity: What this run would search.

        Returns:
            The folder, locked against other processes. The lock ends with the process, however
            it ends.

        Raises:
            StudyError: The folder cannot be written, is in use by another process, holds files that
                are no study's, holds a damaged or foreign database, or holds a study with another
                identity (the message names the fields that differ).
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK_FILE, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise StudyError(
                f"another process is running the study in {path}; wait for it to end, "
                "or choose another study"
            ) from error
        except OSError as error:
            raise StudyError(
                f"the study folder {path} cannot be written ({error.strerror or error}); "
                "choose another with --out"
            ) from error
        try:
            continued = _check_content(path, identity)
            if not continued:
                write_text(path / IDENTITY_FILE, identity.model_dump_json(indent=2) + "\n")
            scores = ScoreCache(path / SCORES_FILE)
        except BaseException:
            lock.release()
            raise
        return cls(path, identity, continued=continued, scores=scores, lock=lock)

    @staticmethod
    def check(path: Path, identity: StudyIdentity) -> bool:
        """Say whether `open` would continue a study, and change nothing on disk.

        Args:
            path: The folder; it need not exist.
            identity: What a run would search.

        Returns:
            True when a study would be continued, False when one would be created.

        Raises:
            StudyError: As `open`, except that a running study is not noticed.
        """
        existing = path
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise StudyError(
                f"the study folder {path} cannot be written "
                f"({existing} is not a folder that may be written to); choose another with --out"
            )
        return path.exists() and _check_content(path, identity)

    def study(
        self,
        budget: str,
        *,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
    ) -> optuna.Study:
        """Create or continue the Optuna study of one budget, maximising its objective.

        Trials that a killed process left running become failed, and their parameters are put at
        the head of the queue again, as Optuna's heartbeat does for its own workers.

        Args:
            budget: One of the identity's budgets; the Optuna study's name.
            sampler: Sampler; Optuna's default when None.
            pruner: Pruner; Optuna's default when None.

        Returns:
            The study. Its trials are stored in ``study.db`` as they come.

        Raises:
            StudyError: `budget` is not one of the identity's.
        """
        import optuna

        if budget not in self.identity.budgets:
            raise StudyError(
                f"the study in {self.path} has no budget {budget!r}; "
                f"it has {', '.join(map(repr, self.identity.budgets))}"
            )
        study = optuna.create_study(
            study_name=budget,
            storage=self._open_storage(),
            sampler=sampler,
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
        study.set_user_attr(IDENTITY_ATTRIBUTE, self.identity.fingerprint)
        _retry_stale_trials(study)
        return study

    def close(self) -> None:
        """Close the files and let other processes have the folder."""
        self.scores.close()
        if self._storage is not None:
            _dispose(self._storage)
            self._storage = None
        self._lock.release()

    def __enter__(self) -> StudyFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open_storage(self) -> optuna.storages.RDBStorage:
        """Optuna's storage on ``study.db``, whose schema is there as a whole or not at all."""
        from optuna.storages import RDBStorage
        from sqlalchemy import event

        if self._storage is None:
            database = self.path / DATABASE_FILE
            if not database.exists():
                with atomic_path(database) as temporary:
                    _dispose(RDBStorage(f"sqlite:///{temporary}"))
            storage = RDBStorage(
                f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            _dispose(storage)  # connections opened so far lack the settings below
            event.listen(storage.engine, "connect", _write_ahead)
            self._storage = storage
        return self._storage


def _check_content(path: Path, identity: StudyIdentity) -> bool:
    """Whether the folder holds this study already; refuses every other content."""
    present = {
        entry.name
        for entry in path.iterdir()
        if entry.name != LOCK_FILE and not entry.name.startswith(TEMPORARY_PREFIX)
    }
    if not present:
        return False
    if IDENTITY_FILE not in present:
        raise StudyError(
            f"{path} is not a study's folder: it has no {IDENTITY_FILE} but holds "
            f"{', '.join(sorted(present)[:3])}; choose an empty or a new folder"
        )
    stored = read_identity(path / IDENTITY_FILE)
    differing = stored.differences(identity)
    if differing:
        raise StudyError(
            f"{path} holds another study, which cannot be continued: {'; '.join(differing)}. "
            "Choose another study, or give the stored values"
        )
    if DATABASE_FILE in present:
        check_database(path / DATABASE_FILE, stored.fingerprint)
    return True


def _retry_stale_trials(study: optuna.Study) -> None:
    """Fail and enqueue again what a killed process left running; the folder's lock is held.

    Enqueued first, failed second: killed in between, a trial is tried twice rather than never.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retry = RetryHeartbeatStaleTrialCallback()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        retry(study, trial)
        study.tell(trial.number, state=TrialState.FAIL)


def _write_ahead(connection: sqlite3.Connection, _: object) -> None:
    """Commit by appending to a log: quick enough for a report per sample, and a dashboard that
    reads along never makes a writer wait."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _dispose(storage: optuna.storages.RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()

"""The folder of a study: created once, continued by the same command, refused to any other."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pruners.atomic import TEMPORARY_PREFIX
from pruners.errors import StudyError, shortened
from studies.damage import naming_damage
from studies.database import check_database
from studies.files import write_text
from studies.identity import StudyIdentity, in_few_words, read_identity
from studies.records import trial_records
from studies.scores import ScoreCache
from studies.storage_address import VARIABLE, StorageAddress
from studies.storage_lock import StorageLock, check_folder, lock_study

if TYPE_CHECKING:
    import optuna

    from studies.trial_storage import TrialStorage

IDENTITY_FILE = "identity.json"
DATABASE_FILE = "study.db"
STORAGE_FILE = "storage.txt"
"""Says in which shared storage the trials are, without credentials."""

SCORES_FILE = "scores.db"
LOCK_FILE = ".lock"


class StudyFolder:
    """A study's folder, held by this process until closed.

    Use `StudyFolder.open`, as a context manager. It holds ``identity.json``, Optuna's ``study.db``
    with one Optuna study per budget, ``scores.db``, and the results. The Optuna studies may be in a
    storage that several studies share instead; ``storage.txt`` then says in which.

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
        opened: ExitStack,
        address: StorageAddress | None = None,
        storage_lock: StorageLock | None = None,
    ) -> None:
        self.path = path
        self.identity = identity
        self.continued = continued
        self.scores = scores
        self._opened = opened
        self._address = address
        self._storage_lock = storage_lock
        self._storage: TrialStorage | None = None

    @classmethod
    def open(
        cls, path: Path, identity: StudyIdentity, address: StorageAddress | None = None
    ) -> StudyFolder:
        """Create a study's folder, or continue the study in it.

        Reads only small files: no model, and Optuna not before `study` is called.

        Args:
            path: The folder; created, with its parents, when missing.
            identity: What this run would search.
            address: Shared storage for its trials; None for the folder's own.

        Returns:
            The folder, locked against other processes. The lock ends with the process, however
            it ends.

        Raises:
            StudyError: The folder cannot be written, is in use by another process, holds files that
                are no study's, holds a damaged or foreign database, or holds a study with another
                identity (the message names the fields that differ); or the shared storage cannot be
                used, or is not the one that the study began with.
        """
        check_folder(address, path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK_FILE, timeout=0.2)  # `is_running` holds it for an instant
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
        with ExitStack() as opened:
            opened.callback(lock.release)
            continued = _check_content(path, identity, address)
            storage_lock = None if address is None else lock_study(address, _shared_name(path))
            if storage_lock is not None:
                opened.callback(storage_lock.release)
            if not continued:
                write_text(path / IDENTITY_FILE, identity.model_dump_json(indent=2) + "\n")
            scores = opened.enter_context(ScoreCache(path / SCORES_FILE))
            return cls(
                path,
                identity,
                continued=continued,
                scores=scores,
                opened=opened.pop_all(),
                address=address,
                storage_lock=storage_lock,
            )

    @staticmethod
    def check(path: Path, identity: StudyIdentity, address: StorageAddress | None = None) -> bool:
        """Say whether `open` would continue a study, and change nothing on disk.

        Args:
            path: The folder; it need not exist.
            identity: What a run would search.
            address: Shared storage for its trials; it is not connected to.

        Returns:
            True when a study would be continued, False when one would be created.

        Raises:
            StudyError: As `open`, except that a running study is not noticed.
        """
        check_folder(address, path)
        existing = path
        while not _exists(existing) and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise StudyError(
                f"the study folder {path} cannot be written "
                f"({existing} is not a folder that may be written to); choose another with --out"
            )
        return _exists(path) and _check_content(path, identity, address)

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
            StudyError: `budget` is not one of the identity's, its trials cannot be read, or the
                storage cannot be reached.
        """
        from studies.trial_storage import storage_errors

        if budget not in self.identity.budgets:
            raise StudyError(
                f"the study in {self.path} has no budget {budget!r}; "
                f"it has {', '.join(map(repr, self.identity.budgets))}"
            )
        with storage_errors(self.trials_in, self._address), naming_damage(self.trials_in):
            study = self._open_storage().study(budget, sampler, pruner)
            trial_records(study)  # what is damaged is found here, not in the middle of a search
        return study

    def keep_alive(self) -> None:
        """Show others that this process runs the study; to be called often, it does little.

        Raises:
            StudyError: Another process may have taken over, as a connection was lost.
        """
        if self._storage is not None and self._storage.keep_alive() and self._storage_lock:
            self._storage_lock.check()

    @property
    def storage_url(self) -> str | None:
        """Address of the shared storage, with its password if it has one; None without one."""
        return None if self._address is None else self._address.url

    @property
    def trials_in(self) -> str:
        """What messages call the storage of its trials."""
        if self._address is None:
            return str(self.path / DATABASE_FILE)
        return f"the storage {self._address}"

    def close(self) -> None:
        """Close the files and let other processes have the folder."""
        self._storage = None
        self._opened.close()

    def __enter__(self) -> StudyFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_storage(self) -> TrialStorage:
        from studies.trial_storage import own_storage, shared_storage

        if self._storage is None:
            budgets, identity = self.identity.budgets, self.identity.fingerprint
            if self._address is None:
                self._storage = own_storage(self.path / DATABASE_FILE, budgets, identity)
            else:
                name = _shared_name(self.path)
                self._storage = shared_storage(self._address, name, budgets, identity)
                # Noted now that it is known to work: until then another one may be given.
                write_text(self.path / STORAGE_FILE, f"{self._address}\n")
            self._opened.callback(self._storage.close)
        return self._storage


def _shared_name(path: Path) -> str:
    """Name of a study among those of a shared storage."""
    return path.resolve().name


def _exists(path: Path) -> bool:
    """Whether there is such a file; refuses names that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise StudyError(
            f"the study folder {shortened(path)} cannot be written ({shortened(error)}); choose "
            "another with --out"
        ) from error


def _check_content(path: Path, identity: StudyIdentity, address: StorageAddress | None) -> bool:
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
            f"{path} holds another study, which cannot be continued: {in_few_words(differing)}. "
            "Give the study's values, name another study with --study, or remove this one with "
            f"prunetune studies delete {path}"
        )
    _check_storage(path, address)
    if DATABASE_FILE in present:
        check_database(path / DATABASE_FILE, stored.fingerprint)
    return True


def _check_storage(path: Path, address: StorageAddress | None) -> None:
    """Refuse to continue a study in another storage than it began in."""
    if (path / STORAGE_FILE).exists():
        stored = (path / STORAGE_FILE).read_text(encoding="utf-8").strip()
        if address is None:
            raise StudyError(
                f"{path} keeps its trials in {stored}; give that with --storage or in {VARIABLE}"
            )
        if not address.is_same_database(stored):
            raise StudyError(
                f"{path} keeps its trials in {stored}, not in {address}; give that one, or choose "
                "another study"
            )
    elif address is not None and (path / DATABASE_FILE).exists():
        raise StudyError(
            f"{path} keeps its trials in its own {DATABASE_FILE}; leave --storage and "
            f"{VARIABLE} out, or choose another study"
        )

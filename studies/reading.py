"""A study as it is stored, read without changing it, also while a run goes on or after it died."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from pruners.atomic import TEMPORARY_PREFIX
from pruners.errors import StudyError
from pruners.files import load_schedule
from pruners.schedule import Schedule
from studies.damage import naming_damage
from studies.database import IDENTITY_ATTRIBUTE, check_database
from studies.file_names import schedule_file
from studies.identity import StudyIdentity, read_identity
from studies.records import TrialRecord, trial_records
from studies.results import BudgetResult, read_results
from studies.snapshots import read_only
from studies.storage import DATABASE_FILE, IDENTITY_FILE

if TYPE_CHECKING:
    import optuna

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class StoredBudget:
    """What is stored of one budget.

    Attributes:
        budget: The budget, with its unit.
        trials: Its trials by number, those that are under way among them.
        result: What was found and reported; None until then.
        schedule: The schedule that was exported, the best so far until one is reported; None where
            there is none yet.
        schedule_path: The file of that schedule; None where there is none yet.
    """

    budget: str
    trials: tuple[TrialRecord, ...]
    result: BudgetResult | None
    schedule: Schedule | None
    schedule_path: Path | None


@dataclass(frozen=True)
class StoredStudy:
    """What is stored of a study, at one moment.

    Attributes:
        name: Name of its folder.
        path: Its folder.
        identity: What it is a study of.
        budgets: What is stored of each of the identity's budgets, in their order.
    """

    name: str
    path: Path
    identity: StudyIdentity
    budgets: tuple[StoredBudget, ...]


def find_studies(root: Path) -> list[Path]:
    """Find the studies in a folder.

    Args:
        root: The folder that holds them.

    Returns:
        The folders of the studies, by name.

    Raises:
        StudyError: There is no such folder, or it cannot be read.
    """
    try:
        return sorted(
            path
            for path in root.iterdir()
            if (path / IDENTITY_FILE).exists() and not path.name.startswith(TEMPORARY_PREFIX)
        )
    except OSError as error:
        raise StudyError(f"{root} cannot be read ({error.strerror or error})") from error


def read_study(path: Path, storage: str | None = None) -> StoredStudy:
    """Read what is stored of a study; nothing on disk changes.

    Args:
        path: Its folder.
        storage: Address of the Optuna storage that holds its trials; None for its ``study.db``.

    Returns:
        The study. Of one that has only begun, budgets have no trials, results or schedules yet.

    Raises:
        StudyError: There is no study in the folder, or one of its files is damaged.
        ScheduleError: The file of an exported schedule is damaged.
    """
    if not path.is_dir():
        raise StudyError(f"there is no study {path}: no such folder")
    if not (path / IDENTITY_FILE).exists():
        raise StudyError(f"{path} is not a study's folder: it has no {IDENTITY_FILE}")
    identity = read_identity(path / IDENTITY_FILE)
    trials = _read_trials(path, identity, storage)
    results = {result.budget: result for result in _read_results(path)}
    return StoredStudy(
        name=path.resolve().name,
        path=path,
        identity=identity,
        budgets=tuple(
            _stored_budget(path, identity, budget, trials[budget], results.get(budget))
            for budget in identity.budgets
        ),
    )


def _stored_budget(
    path: Path,
    identity: StudyIdentity,
    budget: str,
    trials: tuple[TrialRecord, ...],
    result: BudgetResult | None,
) -> StoredBudget:
    file = path / schedule_file(budget, identity.budgets)
    exported = file.exists()
    return StoredBudget(
        budget=budget,
        trials=trials,
        result=result,
        schedule=load_schedule(file) if exported else None,
        schedule_path=file if exported else None,
    )


def _read_results(path: Path) -> list[BudgetResult]:
    file = path / RESULTS_FILE
    return read_results(file) if file.exists() else []


def _read_trials(
    path: Path, identity: StudyIdentity, storage: str | None
) -> Mapping[str, tuple[TrialRecord, ...]]:
    """Read the trials of every budget."""
    with _open_storage(path, identity, storage) as opened:
        if opened is None:
            return dict.fromkeys(identity.budgets, ())
        with naming_damage(str(path / DATABASE_FILE) if storage is None else "the storage"):
            found = {
                budget: find_optuna_study(opened, path, identity, budget)
                for budget in identity.budgets
            }
            return {
                budget: tuple(replace(record, budget=budget) for record in trial_records(study))
                if study is not None
                else ()
                for budget, study in found.items()
            }


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
    for name in (f"{path.resolve().name}: {budget}", budget):
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            continue
        if study.user_attrs.get(IDENTITY_ATTRIBUTE) == identity.fingerprint:
            return study
    return None


@contextmanager
def _open_storage(
    path: Path, identity: StudyIdentity, storage: str | None
) -> Iterator[optuna.storages.RDBStorage | None]:
    """Open the Optuna storage of a study for reading; None where it has none yet."""
    if storage is not None:
        with _opened(storage, "the storage") as opened:
            yield opened
        return
    database = path / DATABASE_FILE
    if not database.exists():
        yield None
        return
    with read_only(database) as uri:
        check_database(database, identity.fingerprint, uri)
        with _opened(_sqlite_url(uri), str(database)) as opened:
            yield opened


@contextmanager
def _opened(url: str, name: str) -> Iterator[optuna.storages.RDBStorage]:
    """An Optuna storage that exists, closed at the end; errors do not show its address."""
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        template = url.replace("{", "{{").replace("}", "}}")  # Optuna fills in versions
        storage = optuna.storages.RDBStorage(template, skip_table_creation=True)
    except (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError) as error:
        raise _unreadable(name, url, error) from error
    try:
        yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _unreadable(name, url, error) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _sqlite_url(uri: str) -> str:
    """SQLAlchemy's address of a SQLite URI; it unquotes what it is given once more."""
    from sqlalchemy import URL

    file, _, query = uri.partition("?")
    return URL.create(
        "sqlite", database=file, query={**dict(parse_qsl(query)), "uri": "true"}
    ).render_as_string()


def _unreadable(name: str, url: str, error: Exception) -> StudyError:
    # What comes after the first line repeats statements, and may repeat the address.
    reason = str(error).partition("\n")[0].replace(url, "...")
    return StudyError(f"{name} cannot be read ({reason})")

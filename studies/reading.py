"""A study as it is stored, read without changing it, also while a run goes on or after it died."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pruners.atomic import TEMPORARY_PREFIX
from pruners.errors import StudyError
from pruners.files import load_schedule
from pruners.paths import is_folder
from pruners.schedule import Schedule
from studies.damage import naming_damage
from studies.file_names import schedule_file
from studies.identity import StudyIdentity, read_identity
from studies.records import TrialRecord, trial_records
from studies.results import BudgetResult, read_results
from studies.storage import IDENTITY_FILE
from studies.trial_access import find_optuna_study, open_trials

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
        storage: Address of the storage that it shares with others, where the one that it has noted
            does not do, for lack of a password; of no account where it has its own ``study.db``.

    Returns:
        The study. Of one that has only begun, budgets have no trials, results or schedules yet.

    Raises:
        StudyError: There is no study in the folder, or one of its files is damaged.
        ScheduleError: The file of an exported schedule is damaged.
        SettingsError: The address of the storage cannot be used.
    """
    if not is_folder(path):
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
    with open_trials(path, identity, storage) as opened:
        if opened is None:
            return dict.fromkeys(identity.budgets, ())
        with naming_damage(f"the storage of {path}"):
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

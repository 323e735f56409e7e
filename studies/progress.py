"""How far a study has come: what `prunetune studies` lists, and shows of a run under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from studies.reading import StoredBudget, StoredStudy, read_study
from studies.records import TrialRecord
from studies.results import SEARCHED
from studies.run_limits import RunLimits, read_limits
from studies.snapshots import is_running
from studies.stored_scores import count_scores

State = Literal["new", "running", "stopped", "finished"]
"""`new` has no trials; `stopped` is not running and has budgets without a reported schedule."""


@dataclass(frozen=True)
class BudgetProgress:
    """How far the search at one budget has come.

    Attributes:
        budget: The budget, with its unit.
        complete: Trials that have ended well; all others failed, are under way or wait.
        failed: Trials that failed, or that a killed process left.
        under_way: Trials under way.
        best: Relative accuracy, on the search split, of the best trial within the budget, among
            those scored on the most samples; None without one.
        best_trial: Number of that trial.
        best_samples: Samples that it was scored on.
        reported: Relative accuracy of the exported schedule on the report split; None until then.
        interval_95: Its 95 % interval.
        seconds: Time that complete trials took, added up.
        schedule: File of the exported schedule; None where there is none yet.
    """

    budget: str
    complete: int
    failed: int
    under_way: int
    best: float | None
    best_trial: int | None
    best_samples: int
    reported: float | None
    interval_95: tuple[float, float] | None
    seconds: float
    schedule: str | None


@dataclass(frozen=True)
class StudyProgress:
    """How far a study has come.

    Attributes:
        name: Name of its folder.
        path: Its folder.
        state: Whether it is new, running, stopped before its end, or finished.
        model: The measured model.
        target: Name of the shape that schedules are priced for.
        budgets: Each budget.
        samples: Scored samples by split, those of the schedules it is compared with included.
        trials_limit: Trials per budget at which the newest run ends; None where that is not known.
        seconds_left: Time after which the search of a running study ends at the latest, from its
            time limit and from its trials and what they take; None where that is not known, and
            when what is left is confirming and reporting.
    """

    name: str
    path: str
    state: State
    model: str
    target: str
    budgets: tuple[BudgetProgress, ...]
    samples: dict[str, int]
    trials_limit: int | None
    seconds_left: float | None


def read_progress(path: Path, storage: str | None = None) -> StudyProgress:
    """Read how far a study has come; nothing on disk changes.

    Args:
        path: Its folder.
        storage: Address of the Optuna storage that holds its trials; None for its ``study.db``.

    Returns:
        Its progress.

    Raises:
        PrunetuneError: As `studies.reading.read_study`, or the scores cannot be read.
    """
    running = is_running(path)  # looked at first: what ends meanwhile is shown as running, once
    study = read_study(path, storage)
    return progress(study, running, count_scores(path), read_limits(path), datetime.now(UTC))


def progress(
    study: StoredStudy,
    running: bool,
    samples: dict[str, int],
    limits: RunLimits | None,
    now: datetime,
) -> StudyProgress:
    """Sum up how far a study has come.

    Args:
        study: The study.
        running: Whether a process runs it.
        samples: Scored samples by split.
        limits: Limits of the newest run, if known.
        now: The time.

    Returns:
        Its progress.
    """
    budgets = tuple(map(_budget_progress, study.budgets))
    return StudyProgress(
        name=study.name,
        path=str(study.path),
        state=_state(study, running),
        model=study.identity.model,
        target=study.identity.shape.name,
        budgets=budgets,
        samples=samples,
        trials_limit=None if limits is None else limits.trials,
        seconds_left=_seconds_left(budgets, limits, now) if running and limits else None,
    )


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Find the best trial within the budget, among those that were scored on the most samples.

    Args:
        trials: Trials of one budget.

    Returns:
        The trial, the first of equal ones; None when none was scored.
    """
    return max(
        (trial for trial in trials if trial.may_be_best),
        key=lambda trial: (trial.samples, trial.accuracy, -trial.number),
        default=None,
    )


def _budget_progress(stored: StoredBudget) -> BudgetProgress:
    best = best_trial(stored.trials)
    states = [trial.state for trial in stored.trials]
    evidence = None if stored.result is None else stored.result.schedule(SEARCHED).evidence
    return BudgetProgress(
        budget=stored.budget,
        complete=states.count("complete"),
        failed=states.count("fail"),
        under_way=states.count("running"),
        best=None if best is None else best.accuracy,
        best_trial=None if best is None else best.number,
        best_samples=0 if best is None else best.samples,
        reported=None if evidence is None else evidence.relative_accuracy,
        interval_95=None if evidence is None else evidence.interval_95,
        seconds=sum(trial.seconds or 0.0 for trial in stored.trials if trial.state == "complete"),
        schedule=None if stored.schedule_path is None else str(stored.schedule_path),
    )


def _state(study: StoredStudy, running: bool) -> State:
    if running:
        return "running"
    if all(budget.result is not None for budget in study.budgets):
        return "finished"
    return "stopped" if any(budget.trials for budget in study.budgets) else "new"


def _seconds_left(
    budgets: Sequence[BudgetProgress], limits: RunLimits, now: datetime
) -> float | None:
    """The smaller of what the time limit leaves and what the missing trials take."""
    left = []
    if limits.timeout is not None:
        end = limits.started + timedelta(seconds=limits.timeout * len(budgets))
        left.append((end - now).total_seconds())
    complete = sum(budget.complete for budget in budgets)
    if complete:
        missing = limits.trials * len(budgets) - complete
        at_once = max(1, sum(budget.under_way for budget in budgets))
        left.append(missing * sum(budget.seconds for budget in budgets) / complete / at_once)
    least = min(left, default=0.0)
    return least if least > 0 else None

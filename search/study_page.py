"""The study's page and its gallery, written when a run ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pruners.errors import PrunetuneError
from pruners.schedule import Schedule
from search.baselines import published_at
from search.evaluators import Evaluator
from search.interruption import SearchInterruptedError
from search.kept_tokens import record_gallery
from search.workers.assignments import Question
from space.coding import SearchSpace
from studies.kept_tokens import GALLERY_FILE, Gallery, write_gallery
from studies.reading import StoredBudget, StoredStudy, read_study
from studies.report_page import write_report_page
from studies.results import DENSE, SEARCHED

PAGE_FILE = "report.html"
_INTERRUPTED = "The run was interrupted before kept tokens were recorded."


def write_study_page(
    folder: Path,
    evaluator: Evaluator,
    spaces: Sequence[SearchSpace],
    *,
    storage: str | None = None,
    interrupted: bool = False,
    ask: Callable[[Question], Gallery] | None = None,
) -> Path:
    """Write ``report.html``, and ``gallery.json`` where the measured model has images.

    What keeps the gallery from being made is said on the page, and is no error: by now the study's
    results are written.

    Args:
        folder: The study's folder.
        evaluator: What measured its schedules.
        spaces: The search space of each budget.
        storage: Address of the Optuna storage that holds its trials; None for its ``study.db``.
        interrupted: Whether the user waits for the run to end, so that no gallery is made.
        ask: Has the gallery recorded where a model is loaded; None for this process.

    Returns:
        The page.

    Raises:
        StudyError: The study cannot be read, or a file cannot be written.
    """
    study = read_study(folder, storage)
    gallery, reason = None, _INTERRUPTED
    if not interrupted:
        gallery, reason = _gallery(study, evaluator, spaces, ask)
    path = folder / GALLERY_FILE
    path.unlink(missing_ok=True)  # one of an earlier run shows other schedules
    if gallery is not None:
        write_gallery(gallery, path)
    return write_report_page(study, folder / PAGE_FILE, gallery, no_gallery=reason)


def shown_schedules(
    study: StoredStudy, spaces: Sequence[SearchSpace]
) -> Mapping[str, Mapping[str, Schedule]]:
    """Choose what the gallery compares: what was searched, and the best published schedule.

    Args:
        study: The study.
        spaces: The search space of each of its budgets.

    Returns:
        Schedules by budget and name, of the budgets that have a schedule.
    """
    chosen: dict[str, dict[str, Schedule]] = {}
    for stored, space in zip(study.budgets, spaces, strict=True):
        if stored.schedule is not None:
            chosen[stored.budget] = {SEARCHED: stored.schedule, **_best_published(stored, space)}
    return chosen


def _gallery(
    study: StoredStudy,
    evaluator: Evaluator,
    spaces: Sequence[SearchSpace],
    ask: Callable[[Question], Gallery] | None,
) -> tuple[Gallery | None, str]:
    """Record the gallery, or say why there is none."""
    schedules = shown_schedules(study, spaces)
    if not schedules:
        return None, "There is no schedule whose kept tokens could be shown."
    try:
        question = Question(partial(record_gallery, schedules=schedules), "kept tokens")
        return (question.measure(evaluator) if ask is None else ask(question)), ""
    except SearchInterruptedError:
        return None, _INTERRUPTED
    except PrunetuneError as error:
        return None, f"Kept tokens cannot be shown: {error}."
    except (RuntimeError, ValueError, OSError) as error:  # memory, devices, a model's own refusal
        return None, f"Kept tokens cannot be shown ({type(error).__name__}: {error})."


def _best_published(stored: StoredBudget, space: SearchSpace) -> Mapping[str, Schedule]:
    if stored.result is None:
        return {}
    published = [
        schedule for schedule in stored.result.schedules if schedule.name not in (SEARCHED, DENSE)
    ]
    if not published:
        return {}
    best = max(published, key=lambda schedule: schedule.evidence.relative_accuracy)
    return published_at(space.budget, space.shape, [best.name])

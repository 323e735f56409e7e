"""The result of a search as files: the schedule, tables, figures."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING

from pruners.errors import ScheduleError, StudyError
from pruners.files import load_schedule
from pruners.schedule import Evidence, Provenance, Schedule, SplitEvidence
from pruners.shape import Shape
from search.evaluators import Evaluator
from search.measured_form import as_measured
from search.tasks.evaluator import TaskEvaluator
from search.workers.assignments import Question
from studies.file_names import benchmarks_file, scores_file
from studies.files import write_text
from studies.identity import SPLITS
from studies.pareto import pareto_points, write_pareto
from studies.records import trial_records, write_trials
from studies.report import write_report
from studies.results import BudgetResult, read_results, write_results
from studies.sample_scores import write_sample_scores
from studies.stored_scores import IMAGES_FILE, SAMPLES_FILE

if TYPE_CHECKING:
    import optuna

    from search.measuring import Measurements
    from search.selection import Scores

_DISTRIBUTIONS = ("prunetune", "torch", "transformers", "optuna", "numpy")
"""Distributions whose versions decide results."""


def versions() -> dict[str, str]:
    """List the versions of the libraries that decide results.

    Returns:
        Versions by distribution, ``"not installed"`` where the repository runs uninstalled.
    """
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def given_text_tower(evaluator: Evaluator) -> str | None:
    """Return the text tower that the user gave in place of the schedules' own, if any.

    Args:
        evaluator: What measures.

    Returns:
        Its folder or hub name.
    """
    return evaluator.text_tower if isinstance(evaluator, TaskEvaluator) else None


def measurement_note(evaluator: Evaluator, target: Shape) -> str:
    """Say what the measured accuracy means for the target.

    Args:
        evaluator: What measured.
        target: What the schedule is priced for.

    Returns:
        A few sentences, for the schedule's evidence and the terminal.
    """
    tower = given_text_tower(evaluator)
    towers = (
        f" Questions were compared with images by the text tower {tower}; give it to "
        "apply_schedule as text_tower."
        if tower
        else ""
    )
    if evaluator.shape == target:
        return f"Accuracy and cost are those of the same model, {target.name}.{towers}"
    return (
        f"Accuracy was measured on a proxy ({evaluator.measured_on}), on which the schedule's "
        f"layers were scaled from {target.decoder_layers} to {evaluator.shape.decoder_layers}; "
        f"only the cost is that of {target.name}, whose own accuracy was not measured. Schedules "
        "carry over between models only in part (docs/search-quality.md): measure it there."
        f"{towers}"
    )


def with_evidence(
    schedule: Schedule,
    evaluator: Evaluator,
    splits: Mapping[str, SplitEvidence],
    provenance: Provenance,
    *,
    warning: str = "",
) -> Schedule:
    """Complete a searched schedule for export.

    Args:
        schedule: The schedule, priced on its target.
        evaluator: What measured it.
        splits: What was measured, by split.
        provenance: Where it comes from.
        warning: What a reader must know beside the usual note.

    Returns:
        The schedule with evidence and provenance.
    """
    assert schedule.shape is not None  # every decoded schedule has its target
    note = " ".join(filter(None, [measurement_note(evaluator, schedule.shape), warning]))
    return schedule.model_copy(
        update={
            "evidence": Evidence(measured_on=evaluator.measured_on, note=note, splits=dict(splits)),
            "provenance": provenance,
        }
    )


def is_confirmed(path: Path) -> bool:
    """Whether a file holds a schedule that was reported on.

    Args:
        path: A schedule's file, which need not exist.

    Returns:
        True when the schedule in it has evidence of the report split.
    """
    try:
        evidence = load_schedule(path).evidence
    except ScheduleError:
        return False
    return evidence is not None and "report" in evidence.splits


def now() -> str:
    """Tell the time as provenance does: ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_samples(evaluator: Evaluator, folder: Path) -> None:
    """Write which samples a study's splits hold, by task and by image.

    Args:
        evaluator: What measures.
        folder: The study's folder.

    Raises:
        StudyError: The file cannot be written.
    """
    by_task: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    by_image: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        for sample in evaluator.samples(split):
            by_task[split].setdefault(sample.task, []).append(sample.identifier)
            by_image[split].setdefault(sample.image, []).append(sample.identifier)
    _write_json(by_task, folder / SAMPLES_FILE)
    _write_json(by_image, folder / IMAGES_FILE)


def _write_json(content: object, path: Path) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_reported(
    measurements: Measurements,
    schedules: Mapping[str, Schedule],
    scores: Scores,
    schedule_path: Path,
) -> None:
    """Write what was measured on the report split: every score, and what papers report of tasks.

    Args:
        measurements: What measured. Of other evaluators than `TaskEvaluator` there are scores only.
        schedules: Schedules by name, whose answers are known by now.
        scores: Their scores.
        schedule_path: File of the budget's schedule, which these files stand beside.

    Raises:
        StudyError: A file cannot be written.
    """
    identifiers = [sample.identifier for sample in measurements.samples("report")]
    table = scores_file(schedule_path)
    write_sample_scores(identifiers, scores.tasks, scores.images, scores.by_schedule, table)
    evaluator = measurements.evaluator
    if not isinstance(evaluator, TaskEvaluator):
        return
    figures = {
        name: measurements.ask(
            Question(
                methodcaller("paper_metrics", as_measured(schedule, evaluator.shape), "report"),
                "what papers report of the tasks",
            )
        )
        for name, schedule in schedules.items()
    }
    content = {"split": "report", "metrics": evaluator.metrics, "schedules": figures}
    _write_json(content, benchmarks_file(schedule_path))


def write_study(
    folder: Path, studies: Sequence[optuna.Study], results: Sequence[BudgetResult]
) -> None:
    """Write a study's tables and figures, replacing those of an earlier run.

    Args:
        folder: The study's folder.
        studies: The Optuna study of each budget.
        results: The results of this run. Of budgets that it has not got to, those that an earlier
            one has written are kept.

    Raises:
        StudyError: A file cannot be written.
    """
    records = [record for study in studies for record in trial_records(study)]
    write_trials(records, folder / "trials.csv")
    if not results:
        return
    results = [*results, *_earlier(folder / "results.json", {each.budget for each in results})]
    write_results(results, folder / "results.json")
    write_report(results, folder / "report.md")
    write_pareto(pareto_points(results), folder / "pareto.csv")
    from studies.plots.job_figures import write_job_figures  # imported late: it costs a second

    write_job_figures(results, records, folder)


def _earlier(path: Path, known: Collection[str]) -> list[BudgetResult]:
    """Read the results of the other budgets, if an earlier run has written any."""
    try:
        return [result for result in read_results(path) if result.budget not in known]
    except StudyError:
        return []

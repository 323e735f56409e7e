"""What `prunetune studies export` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import typer

from pruners.errors import RuntimeExportError, StudyError
from pruners.files import save_schedule
from pruners.schedule import Schedule
from space.budgets import budget_label
from studies.files import write_text
from studies.paper_tables import table_text
from studies.reading import StoredBudget, StoredStudy
from studies.runtime_exports import RuntimeSettings, export_to

ExportFormat = Literal[
    "csv", "json", "parquet", "schedule", "latex", "markdown", "bibtex",
    "vllm", "sglang", "openvino-genai", "tensorrt-edge-llm",
]  # fmt: skip

_BY_SUFFIX: Mapping[str, ExportFormat] = {
    ".json": "json",
    ".parquet": "parquet",
    ".tex": "latex",
    ".md": "markdown",
    ".bib": "bibtex",
}


def format_of(to: Path | None) -> ExportFormat:
    """Return the format that a file's name asks for, CSV where it asks for none of the others."""
    return "csv" if to is None else _BY_SUFFIX.get(to.suffix.lower(), "csv")


def export_study(
    study: StoredStudy, form: ExportFormat, budget: str | None, to: Path | None
) -> None:
    """Write a study's trials, its schedule, or its results as papers print them.

    Args:
        study: The study.
        form: Format of the trials, ``"schedule"``, the name of a runtime for the schedule as its
            settings, or format of the table of results; ``"bibtex"`` are the methods in the table.
        budget: One of its budgets; None for all, or for the schedule of the only one.
        to: The file to write or replace; None for standard output.

    Raises:
        StudyError: There is no such budget, no schedule or no result yet, or the file cannot be
            written.
        RuntimeExportError: The runtime cannot do what the schedule says.
    """
    chosen = study.budgets if budget is None else (_one_budget(study, budget),)
    match form:
        case "csv" | "json" | "parquet":
            _export_trials(chosen, form, to)
        case "latex" | "markdown" | "bibtex":
            results = [stored.result for stored in chosen if stored.result is not None]
            _write(table_text(results, form), to)
        case "schedule":
            _export_schedule(_one_budget(study, budget), study, to)
        case _:
            schedule = _schedule(_one_budget(study, budget), study)
            _write(_settings_of(schedule, form).model_dump_json(indent=1) + "\n", to)


def _settings_of(schedule: Schedule, runtime: str) -> RuntimeSettings:
    try:
        return export_to(runtime, schedule)
    except RuntimeExportError as error:
        raise RuntimeExportError(
            f"{error}. Of schedules that searches find, no runtime but this package's can say any "
            "so far (docs/exports.md); --format schedule is for that one"
        ) from error


def _one_budget(study: StoredStudy, budget: str | None) -> StoredBudget:
    if budget is None and len(study.budgets) == 1:
        return study.budgets[0]
    for stored in study.budgets:
        if budget is not None and budget_label(budget) == budget_label(stored.budget):
            return stored
    names = " and ".join(repr(budget_label(stored.budget)) for stored in study.budgets)
    given = "" if budget is None else f", not {budget!r}"
    raise StudyError(f"{study.name} is of {names}{given}; say which with --budget")


def _schedule(stored: StoredBudget, study: StoredStudy) -> Schedule:
    if stored.schedule is None:
        raise StudyError(
            f"{study.name} has no schedule at {budget_label(stored.budget)} yet; let its run go on"
        )
    return stored.schedule


def _export_schedule(stored: StoredBudget, study: StoredStudy, to: Path | None) -> None:
    schedule = _schedule(stored, study)
    if to is not None:
        save_schedule(schedule, to)
    elif stored.schedule_path is not None:
        typer.echo(stored.schedule_path.read_text(encoding="utf-8"), nl=False)


def _write(text: str, to: Path | None) -> None:
    if to is not None:
        write_text(to, text)
    else:
        typer.echo(text, nl=False)


def _export_trials(
    budgets: Sequence[StoredBudget], form: Literal["csv", "json", "parquet"], to: Path | None
) -> None:
    from studies.trial_tables import trials_text, write_table

    records = [record for stored in budgets for record in stored.trials]
    if to is not None:
        write_table(records, form, to)
    elif form == "parquet":
        raise StudyError("parquet is not for reading on a terminal; name a file with --to")
    else:
        typer.echo(trials_text(records, form), nl=False)

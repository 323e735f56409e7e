"""The command line of `prunetune studies`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import to_json

from pruners.errors import PrunetuneError, StudyError
from pruners.paths import is_folder
from space.budgets import budget_label
from studies.commands import tables
from studies.commands.drawing import Width, draw_figures, write_page
from studies.commands.entry import USER_ERROR
from studies.commands.exporting import ExportFormat, export_study, format_of
from studies.commands.finding import file_to_write, study_folder
from studies.commands.options import (
    RUNS,
    BudgetOption,
    IntervalOption,
    JsonOption,
    OutOption,
    StorageOption,
    StudyArgument,
    given_url,
)
from studies.commands.watching import watch as watch_study
from studies.progress import read_progress
from studies.reading import StoredStudy, find_studies, read_study
from studies.report import print_report
from studies.terminal import console
from studies.trial_access import is_kept_in, trials_without_folder
from studies.wording import counted

_HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}

application = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings=_HELP,
    help="See, publish and remove studies.",
)


@application.command("list")
def list_studies(
    out: OutOption = RUNS, storage: StorageOption = None, as_json: JsonOption = False
) -> None:
    """List the studies in a folder.

    Given a storage, also say which others have trials there.
    """
    address = given_url(storage)
    found, damaged = [], []
    folders: list[Path] = []
    if is_folder(out):
        folders = find_studies(out)
    else:
        damaged.append(f"there is no folder {out}; name the one that holds the studies with --out")
    # One address cannot lead to all: studies of other storages are where they noted to be.
    kept = [folder for folder in folders if address is not None and is_kept_in(address, folder)]
    for folder in folders:
        try:
            found.append(read_progress(folder, address if folder in kept else None))
        except PrunetuneError as error:
            damaged.append(str(error))
    others: dict[str, int] = {}
    if address is not None:
        try:
            others = trials_without_folder(address, kept)
        except PrunetuneError as error:
            damaged.append(str(error))
    if as_json:
        _print_json(found)
    elif found:
        console().print(tables.studies_table(found))
    elif not damaged:
        typer.echo(f"{out} holds no studies yet.")
    if others:
        names = ", ".join(f"{name} ({counted(trials, 'trial')})" for name, trials in others.items())
        typer.echo(f"Also in the storage, of studies without a folder in {out}: {names}", err=True)
    for message in damaged:
        typer.echo(f"error: {message}", err=True)
    if damaged:
        raise typer.Exit(USER_ERROR)


@application.command()
def status(
    study: StudyArgument,
    out: OutOption = RUNS,
    storage: StorageOption = None,
    as_json: JsonOption = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends, as watch does.")
    ] = False,
    interval: IntervalOption = 1.0,
) -> None:
    """Say how far a study has come.

    Trials, the best of them, samples measured, and how long its search goes on at most.
    """
    folder, address = study_folder(study, out), given_url(storage)
    if follow:
        if as_json:
            raise StudyError("--follow and --json do not go together; ask for one of them")
        watch_study(folder, address, console(), interval)
    elif as_json:
        _print_json(read_progress(folder, address))
    else:
        console().print(tables.progress_panel(read_progress(folder, address)))


@application.command()
def watch(
    study: StudyArgument,
    out: OutOption = RUNS,
    storage: StorageOption = None,
    interval: IntervalOption = 1.0,
) -> None:
    """Watch a running study until it ends.

    Ctrl-C ends the watching, not the study.
    """
    watch_study(study_folder(study, out), given_url(storage), console(), interval)


@application.command()
def show(
    study: StudyArgument,
    out: OutOption = RUNS,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a study found, and of what.

    Its identity, the table of its results, and the stages of its schedules.
    """
    stored = read_study(study_folder(study, out), given_url(storage))
    if as_json:
        _print_json(_as_json(stored))
        return
    shown = console()
    shown.print(tables.identity_table(stored))
    print_report([each.result for each in stored.budgets if each.result is not None], shown)
    for budget in stored.budgets:
        if budget.schedule is not None:
            typer.echo(f"\n{budget_label(budget.budget)}: {budget.schedule_path}")
            shown.print(tables.schedule_table(budget.schedule))
            if budget.schedule.evidence is not None:
                typer.echo(budget.schedule.evidence.note)
        else:
            trials = counted(len(budget.trials), "trial")
            typer.echo(f"\n{budget_label(budget.budget)}: no schedule yet, {trials}")


@application.command()
def export(
    study: StudyArgument,
    form: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format",
            help="Trials as csv, json or parquet; results as latex or markdown, and as bibtex the "
            "methods in them; the schedule; or another runtime's settings for it, which of "
            "schedules that searches find so far none has. By default what the name of the file "
            "ends in, else csv.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="File to write or replace; by default standard output.")
    ] = None,
    budget: BudgetOption = None,
    out: OutOption = RUNS,
    storage: StorageOption = None,
) -> None:
    """Export a study's trials, its schedule, or its results as papers print them."""
    stored = read_study(study_folder(study, out), given_url(storage))
    file = None if to is None else file_to_write(to)
    export_study(stored, form or format_of(file), budget, file)


@application.command()
def plot(
    study: StudyArgument,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder for the figures; by default figures, in the study's."),
    ] = None,
    formats: Annotated[
        str, typer.Option(help="Any of pdf, png, svg and pgf, separated by commas.")
    ] = "pdf,png",
    width: Annotated[
        Width, typer.Option(help="Width of the paper's column, or of its page.")
    ] = "column",
    out: OutOption = RUNS,
    storage: StorageOption = None,
) -> None:
    """Draw a study's figures, for a paper."""
    folder = study_folder(study, out)
    stored = read_study(folder, given_url(storage))
    for path in draw_figures(stored, to or folder / "figures", formats, width):
        typer.echo(path)


@application.command()
def report(
    study: StudyArgument,
    to: Annotated[
        Path | None,
        typer.Option(help="File to write; by default report.html, in the study's folder."),
    ] = None,
    out: OutOption = RUNS,
    storage: StorageOption = None,
) -> None:
    """Write a study as one page, report.html."""
    folder = study_folder(study, out)
    stored = read_study(folder, given_url(storage))
    typer.echo(write_page(stored, folder / "report.html" if to is None else file_to_write(to)))


@application.command()
def compare(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help="Two studies or more, names or paths.")
    ],
    out: OutOption = RUNS,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what studies found.

    Differences are paired where the studies measured the same model on the same samples.
    """
    # Imported late: statistics take a second to load.
    from studies.study_comparison import compare_studies

    address = given_url(storage)
    folders = [study_folder(study, out) for study in studies]
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise StudyError(f"compare needs two different studies or more; given {', '.join(studies)}")
    comparison = compare_studies([read_study(folder, address) for folder in folders])
    if as_json:
        _print_json(comparison)
    elif not comparison.budgets:
        raise StudyError(f"{', '.join(studies)} have no budget in common")
    else:
        console().print(tables.comparison_panel(comparison))


@application.command()
def delete(
    study: StudyArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    out: OutOption = RUNS,
    storage: StorageOption = None,
) -> None:
    """Remove a study with everything in its folder."""
    from studies.deleting import delete_study

    folder = study_folder(study, out)
    if not yes:
        if not sys.stdin.isatty():
            raise StudyError(f"nobody can be asked whether to remove {folder}; say so with --yes")
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        if not typer.confirm(f"Remove {folder} with {len(files)} files ({size:.1f} MB)?"):
            typer.echo("Nothing was removed.")
            raise typer.Exit(1)
    delete_study(folder, given_url(storage))
    typer.echo(f"Removed {folder}.")


def _as_json(study: StoredStudy) -> dict[str, Any]:
    """What `show` prints as JSON: all but the trials, which `export` gives."""
    return {
        "name": study.name,
        "path": study.path,
        "identity": study.identity,
        "budgets": [
            {
                "budget": stored.budget,
                "trials": len(stored.trials),
                "result": stored.result,
                "schedule": stored.schedule,
                "schedule_path": stored.schedule_path,
            }
            for stored in study.budgets
        ],
    }


def _print_json(content: object) -> None:
    typer.echo(to_json(content, indent=1))

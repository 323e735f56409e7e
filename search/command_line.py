"""The command line: reads arguments, refuses what is wrong, and starts the job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from search.arguments import in_tflops, named_folders, repeat_options, split_list
from search.running import run_settings
from search.settings import SearchSettings, checked_settings
from search.strategies import describe_strategies
from search.tasks.settings import TaskSettings
from search.worker_options import (
    RayAddressOption,
    StorageOption,
    WorkerGpusOption,
    WorkersOption,
    WorkerTimeoutOption,
)
from space.shapes import PRESETS
from studies.commands.entry import COMMANDS, exit_status, run_command
from studies.storage_address import given_storage

DEFAULT_TIMEOUT = 240.0
"""Seconds of search per budget; with confirming and reporting, 5 minutes on two free cores."""

_REPEATED = frozenset({"--budget-tflops", "--budget", "--tasks", "--task-data"})
_DEFAULTS = SearchSettings()
_TASK_DEFAULTS = TaskSettings()
_TASKS_PANEL = "Benchmarks of a model"

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command(context_settings={"help_option_names": ["-h", "--help"]})
def search(
    context: typer.Context,
    budget_tflops: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TFLOPS...",
            help="Budgets in TFLOPs of one prefill, all operations counted; several give a front.",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUDGET...",
            help="Budgets as a share of the dense FLOPs (22%), mean visual tokens ('64 tokens') "
            "or size of the key-value cache (100MB).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model whose accuracy is measured: 'embedded' (ships with this program), a hub "
            "name or a folder, these with --tasks. 'analytic' is a synthetic problem, to try "
            "things out.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="What schedules are written and priced for: "
            f"{', '.join(PRESETS)}, 'embedded', a hub name or a folder. By default the measured "
            "model; the first of these where that one ships with this program.",
        ),
    ] = None,
    stages: Annotated[int, typer.Option(help="Most decoder stages of a schedule, 0 to 4.")] = 3,
    space: Annotated[
        str,
        typer.Option(
            help="What is searched: mission (where, how much, similarity weight and contextual "
            "share), or full (also scorers, selector, merge rule and position handling)."
        ),
    ] = "mission",
    strategy: Annotated[
        str, typer.Option(help=f"How schedules are chosen: {describe_strategies()}.")
    ] = _DEFAULTS.strategy,
    trials: Annotated[
        int, typer.Option(help="Trials per budget; a continued study counts those it has.")
    ] = _DEFAULTS.trials,
    timeout: Annotated[
        float, typer.Option(help="Seconds per budget after which no new trial starts.")
    ] = DEFAULT_TIMEOUT,
    least_gain: Annotated[
        float,
        typer.Option(
            help="End the search when more trials are expected to gain less than so many points "
            "(strategy adaptive): of the probability of the dense model's answers, or of relative "
            "accuracy where the model gives none; 0 for no such end."
        ),
    ] = _DEFAULTS.least_gain,
    seed: Annotated[
        int, typer.Option(help="Seed of the search and of the order of the samples.")
    ] = _DEFAULTS.seed,
    study: Annotated[
        str | None,
        typer.Option(
            help="Name of the study's folder; by default of target, budgets, space and seed."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("runs"),
    workers: WorkersOption = None,
    worker_timeout: WorkerTimeoutOption = None,
    ray_address: RayAddressOption = None,
    worker_gpus: WorkerGpusOption = None,
    storage: StorageOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Explain the run and its time; write no study.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASKS...",
            rich_help_panel=_TASKS_PANEL,
            help="Tasks of lmms-eval that --model is measured on, for example gqa,pope.",
        ),
    ] = None,
    task_data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=FOLDER...",
            rich_help_panel=_TASKS_PANEL,
            help="Folders of parquet files with a task's rows, instead of the hub's data sets.",
        ),
    ] = None,
    search_samples: Annotated[
        int,
        typer.Option(rich_help_panel=_TASKS_PANEL, help="Samples per task that trials see."),
    ] = _TASK_DEFAULTS.search_samples,
    confirm_samples: Annotated[
        int,
        typer.Option(
            rich_help_panel=_TASKS_PANEL, help="Others per task, to choose among the best trials."
        ),
    ] = _TASK_DEFAULTS.confirm_samples,
    report_samples: Annotated[
        int,
        typer.Option(
            rich_help_panel=_TASKS_PANEL, help="Others per task, to report the chosen one on."
        ),
    ] = _TASK_DEFAULTS.report_samples,
    sharp: Annotated[
        bool,
        typer.Option(
            "--sharp",
            rich_help_panel=_TASKS_PANEL,
            help="Let trials see samples that depend on visual detail: right for the dense model, "
            "but not from a small image. The confirm and report splits stay plain.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_TASKS_PANEL,
            help="Device of the model, as torch names it; by default an accelerator, else the CPU.",
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            rich_help_panel=_TASKS_PANEL,
            help="float32, float16, bfloat16, or auto: the weights' own (on the CPU float32).",
        ),
    ] = _TASK_DEFAULTS.dtype,
    batch_size: Annotated[
        int,
        typer.Option(
            rich_help_panel=_TASKS_PANEL, help="Samples per batch; halved when memory runs out."
        ),
    ] = _TASK_DEFAULTS.batch_size,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_TASKS_PANEL, help="Most tokens of an answer, where a task allows more."
        ),
    ] = None,
    text_tower: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_TASKS_PANEL,
            help="Folder or hub name of the CLIP checkpoint that compares images with questions.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_TASKS_PANEL, help="Folder that keeps prepared samples and answers."
        ),
    ] = None,
    cache_gigabytes: Annotated[
        float, typer.Option(rich_help_panel=_TASKS_PANEL, help="Size that this folder may reach.")
    ] = _TASK_DEFAULTS.cache_gigabytes,
) -> None:
    """Search a visual-token pruning schedule that meets a compute budget.

    Example: prunetune --budget-tflops 2

    The same command continues an interrupted study.

    What to do with studies: prunetune studies --help (list, status, watch, show, export, plot,
    report, compare, delete) and prunetune dashboard --help.
    """
    settings = checked_settings(
        budgets=(*in_tflops(budget_tflops or ()), *(budget or ())),
        model=model,
        target=target,
        stages=stages,
        space=space,
        search={
            "strategy": strategy,
            "trials": trials,
            "timeout": timeout,
            "seed": seed,
            "least_gain": least_gain,
        },
        tasks={
            "names": split_list(tasks or ()),
            "data": named_folders(task_data or ()),
            "search_samples": search_samples,
            "confirm_samples": confirm_samples,
            "report_samples": report_samples,
            "sharp": sharp,
            "device": device,
            "dtype": dtype,
            "batch_size": batch_size,
            "max_new_tokens": max_new_tokens,
            "text_tower": text_tower,
            "cache": cache,
            "cache_gigabytes": cache_gigabytes,
        },
        workers={
            "number": workers,
            "patience": worker_timeout,
            "ray_address": ray_address,
            "gpus": worker_gpus,
        },
        storage=given_storage(storage),
        study=study,
        out=out,
        dry_run=dry_run,
        quiet=quiet,
    )
    context.exit(run_settings(settings, context.obj))


def run(arguments: Sequence[str]) -> int:
    """Run the program.

    Args:
        arguments: Command-line arguments without the program's name.

    Returns:
        Exit status: 0 when done, 2 for a user's mistake, 128 + signal when interrupted.
    """
    if arguments and arguments[0] in COMMANDS:
        return run_command(arguments)
    expanded = repeat_options(arguments, _REPEATED)
    return exit_status(application, expanded, "prunetune", f"prunetune {shlex.join(arguments)}")

"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of the study, or the path of its folder.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder that holds the studies.")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="PRUNETUNE_STORAGE",
        show_envvar=True,
        metavar="URL",
        help="Optuna storage that holds the trials; by default the study's own study.db.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
BudgetOption = Annotated[
    str | None, typer.Option(help="One of the study's budgets, as the tables name it.")
]
IntervalOption = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")]
RUNS = Path("runs")

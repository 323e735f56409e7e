"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.storage_address import VARIABLE, given_storage

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of the study, or the path of its folder.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder that holds the studies.")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Storage that the study shares with others, where the address that it has noted does "
        f"not do; with a password in {VARIABLE} instead.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
BudgetOption = Annotated[
    str | None, typer.Option(help="One of the study's budgets, as the tables name it.")
]
IntervalOption = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")]
RUNS = Path("runs")


def given_url(text: str | None) -> str | None:
    """Read the address of a shared storage, from the option or the environment.

    Args:
        text: What `StorageOption` was given.

    Returns:
        The address, with its password if it has one; None where there is none.

    Raises:
        SettingsError: It cannot be used; the message does not show it.
    """
    address = given_storage(text)
    return None if address is None else address.url

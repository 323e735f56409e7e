"""Options about who measures, and where trials are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from search.workers.supervision import DEFAULT_PATIENCE
from studies.storage_address import VARIABLE

_PANEL = "Several workers"

WorkersOption = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="Processes that measure, each with a model of its own, one per GPU where there "
        "are any; by default the program measures itself.",
    ),
]

WorkerTimeoutOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="Seconds after which a worker that does not answer is replaced; by default "
        f"{DEFAULT_PATIENCE:g}.",
    ),
]

RayAddressOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_PANEL,
        metavar="ADDRESS",
        help="Ray cluster that the workers run on, each an actor with its own GPU where there "
        "are any: auto (the one this machine is part of), local (a new one), or HOST:PORT.",
    ),
]

WorkerGpusOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="GPUs of each worker on the Ray cluster, also a share of one; by default 1 where "
        "the cluster has any.",
    ),
]

StorageOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_PANEL,
        metavar="URL",
        help="Storage for the trials of several studies, postgresql+psycopg://user@host/"
        "database or sqlite:////folder/trials.db, instead of the study's own study.db. "
        f"By default what {VARIABLE} says. A password only in PGPASSWORD, in ~/.pgpass, or with "
        "the whole URL in that variable.",
    ),
]

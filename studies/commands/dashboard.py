"""The command line of `prunetune dashboard`."""

from __future__ import annotations

from typing import Annotated

import typer

from studies.commands.finding import study_folder
from studies.commands.options import (
    RUNS,
    OutOption,
    StorageOption,
    StudyArgument,
    given_url,
)
from studies.dashboard.serving import serve

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command(context_settings={"help_option_names": ["-h", "--help"]})
def dashboard(
    study: StudyArgument,
    out: OutOption = RUNS,
    storage: StorageOption = None,
    host: Annotated[
        str, typer.Option(help="Interface to listen on; by default only this machine's own.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")
    ] = 8080,
) -> None:
    """Show a study in optuna-dashboard, also while it runs; Ctrl-C ends it.

    Notes and figures are written to the study as the dashboard starts.
    """
    if host not in _LOOPBACK:
        typer.echo(
            f"warning: whoever reaches {host} can change and delete what the dashboard shows",
            err=True,
        )
    serve(study_folder(study, out), given_url(storage), host, port, _say_ready)


def _say_ready(address: str) -> None:
    typer.echo(f"{address} (Ctrl-C ends it)")

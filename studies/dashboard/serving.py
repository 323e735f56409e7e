"""The dashboard's server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from pruners.errors import StudyError
from studies.reading import read_study
from studies.trial_access import open_for_changes


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerOnIPv6(_Server):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""


def serve(
    folder: Path, storage: str | None, host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Show a study in optuna-dashboard until the user presses Ctrl-C.

    Args:
        folder: The study's folder.
        storage: Address of the Optuna storage that holds its trials; None for its ``study.db``.
        host: Name or address of the interface to listen on.
        port: The port; 0 for any that is free.
        ready: Called with the dashboard's address when it can be opened.

    Raises:
        StudyError: optuna-dashboard is not installed, the study has no trials or cannot be
            written, or the port cannot be had.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise StudyError(
            "optuna-dashboard is not installed; pip install 'prunetune[dashboard]'"
        ) from error
    from studies.dashboard.attaching import attach

    study = read_study(folder, storage)
    if not any(stored.trials for stored in study.budgets):
        raise StudyError(f"{folder} has no trials to show yet; let its run go on")
    kind, shown = (_ServerOnIPv6, f"[{host}]") if ":" in host else (_Server, host)
    with open_for_changes(folder, storage) as opened:
        application = optuna_dashboard.wsgi(opened, artifact_store=attach(study, opened))
        try:
            server = make_server(host, port, application, kind, _Silent)
        except (OSError, OverflowError) as error:
            raise StudyError(
                f"{host}:{port} cannot be listened on ({error}); "
                "choose another with --host or --port"
            ) from error
        with server:
            ready(f"http://{shown}:{server.server_port}/dashboard")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return

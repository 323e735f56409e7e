"""Opening Optuna's relational storage, for the run that writes it and for whoever reads along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

CONNECT_TIMEOUT = 10
"""Seconds after which a server that does not answer is given up."""


def sqlite_url(database: Path | str, query: Mapping[str, str] | None = None) -> str:
    """Write SQLAlchemy's URL of a SQLite file.

    Args:
        database: The file, or SQLite's own address of it; SQLAlchemy unquotes what it reads, so it
            is quoted here.
        query: Options of the URL; none by default.

    Returns:
        The URL.
    """
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(database), query=query or {}).render_as_string()


def shared_study_name(folder: str, budget: str) -> str:
    """Name a budget's Optuna study in a storage that studies share.

    Args:
        folder: Name of the study's folder.
        budget: The budget.

    Returns:
        The name.
    """
    return f"{folder}: {budget}"


def open_storage(
    url: str, engine: Mapping[str, object] | None = None, **options: Any
) -> optuna.storages.RDBStorage:
    """Open a storage.

    Args:
        url: SQLAlchemy's URL.
        engine: Options of SQLAlchemy's engine; none by default.
        options: Further options of Optuna's storage.

    Returns:
        The storage; to be closed with `close_storage`.
    """
    from optuna.storages import RDBStorage

    template = url.replace("{", "{{").replace("}", "}}")  # Optuna fills in versions
    return RDBStorage(template, engine_kwargs=dict(engine or {}), **options)


def close_storage(storage: optuna.storages.RDBStorage) -> None:
    """Close all connections of a storage."""
    storage.remove_session()
    storage.engine.dispose()

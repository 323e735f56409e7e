"""Where programs print."""

from __future__ import annotations

from rich.console import Console

_FILE_COLUMNS = 120


def console() -> Console:
    """Return a console as wide as its terminal; without one, wide enough for the tables."""
    found = Console()
    # Without a terminal rich assumes 80 columns.
    return found if found.is_terminal else Console(width=_FILE_COLUMNS)

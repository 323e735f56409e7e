"""Counting the faults that were survived."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Notes how many faults of a kind were survived, for the summary."""

    def note(kind: str, count: int = 1) -> None:
        for _ in range(count):
            record_property("fault", kind)

    return note


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The folder that holds the studies."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder

"""Disks that are full or read-only."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from capabilities import obey_file_modes

from tests.faults.programs import STUDY, continues, finished, run

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    "most", [500, 50_000, 160_000, 200_000, 400_000], ids=lambda most: f"{most} bytes"
)
def test_a_full_disk(most: int, runs: Path, survived: Callable[[str], None]) -> None:
    """No file may grow above a size, as if the disk were full: the identity's, a database's, ..."""

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    ended = run(runs, prepare=fill)
    assert ended.status == 2, ended.output
    ended.said("error: ")
    before = finished(runs)
    continues(runs, before)
    survived("full disk")


@pytest.mark.parametrize("when", ["before", "after a run"])
def test_a_folder_that_may_only_be_read(
    when: str, runs: Path, survived: Callable[[str], None]
) -> None:
    if when == "after a run":
        assert run(runs).status == 0
    before = finished(runs)
    folder = runs / STUDY if before else runs
    files = [folder, *folder.rglob("*")]
    modes = {file: file.stat().st_mode for file in files}
    for file in files:
        file.chmod(0o555 if file.is_dir() else 0o444)

    try:
        ended = run(runs, prepare=obey_file_modes)
    finally:
        for file, mode in modes.items():
            file.chmod(mode)
    assert ended.status == 2, ended.output
    ended.said("cannot be written")
    continues(runs, before)
    survived("read-only folder")

"""The program as it is run here, and on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search.command_line import run

REPOSITORY = Path(__file__).parents[3]


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["studies", *arguments]) == 0
    return capsys.readouterr().out


def on_a_terminal(folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the program with a terminal; returns it and the terminal's other end."""
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "search" / "run.py"), *arguments],
        cwd=folder,
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        # A shell that runs in the background hides SIGINT from what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(its)
    return process, mine


def read_until(terminal: int, text: bytes) -> bytes:
    """Read a terminal until a text appears, or to its end where none is given."""
    found = b""
    while not text or text not in found:
        try:
            more = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the program has ended
            break
        if not more:
            break
        found += more
    return found

"""Studies that another process is running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from search.command_line import run
from studies.commands import watching
from studies.progress import StudyProgress, read_progress
from tests.studies.commands.program import REPOSITORY, on_a_terminal, read_until, says


def test_a_running_study_is_shown_and_not_deleted(running, runs: Path, capsys) -> None:
    shown = json.loads(says(capsys, "status", "live", "--json"))
    assert shown["state"] == "running"
    assert (shown["budgets"][0]["complete"], shown["budgets"][0]["under_way"]) == (1, 1)
    assert run(["studies", "delete", "live", "--yes"]) == 2
    assert "a process is running the study" in capsys.readouterr().err
    assert (runs / "live" / "study.db").exists()


def test_following_ends_with_the_run(running, runs: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "search" / "run.py"), "studies", "status", "live"]
    follower = subprocess.Popen(
        [*command, "--follow", "--interval", "0.1"],
        cwd=runs.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout.readline().startswith("running; 2 TFLOPs: 1 trial")
    running.stdin.close()
    output, errors = follower.communicate(timeout=300)
    assert (follower.returncode, errors) == (0, "")
    assert output.splitlines()[-1].startswith("stopped;")


def test_ctrl_c_ends_watching_wherever_it_arrives(running, runs: Path, monkeypatch, capsys) -> None:
    class InterruptedInADestructor:
        """Python swallows what is raised where an object is thrown away."""

        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def read(*arguments: object) -> StudyProgress:
        InterruptedInADestructor()
        return read_progress(*arguments)

    monkeypatch.setattr(watching, "read_progress", read)
    before = signal.getsignal(signal.SIGINT)
    says(capsys, "watch", "live", "--interval", "inf")
    assert signal.getsignal(signal.SIGINT) is before
    assert running.poll() is None


def test_ctrl_c_ends_watching_but_not_the_study(running, runs: Path) -> None:
    watcher, terminal = on_a_terminal(runs.parent, "studies", "watch", "live")
    assert b"running" in read_until(terminal, b"Samples measured")
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(timeout=300) == 0
    rest = read_until(terminal, b"")
    os.close(terminal)
    assert b"Traceback" not in rest
    assert b"\x1b[?25h" in rest  # the cursor is shown again
    assert running.poll() is None

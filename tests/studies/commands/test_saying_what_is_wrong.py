"""What is wrong is said, and the help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running_study import contents

from search.command_line import run
from tests.studies.commands.program import REPOSITORY

WRONG = {
    "no such study": (["status", "three"], "no study 'three' in runs; there are one, two"),
    "no such folder": (["show", "one", "--out", "nowhere"], "no folder nowhere"),
    "no folder to list": (["list", "--out", "nowhere"], "no folder nowhere"),
    "which budget": (["export", "two", "--format", "schedule"], "'2 TFLOPs' and '4 TFLOPs'"),
    "no such budget": (
        ["export", "two", "--budget", "3"],
        "two is of '2 TFLOPs' and '4 TFLOPs', not '3'; say which with --budget",
    ),
    "parquet on a terminal": (["export", "one", "--format", "parquet"], "--to"),
    "no such format": (["export", "one", "--format", "xml"], "xml"),
    "no such figure format": (["plot", "one", "--formats", "gif"], "gif"),
    "a name that no folder can have": (["status", "x" * 5000], "no study 'xxx"),
    "a folder for a file": (["export", "one", "--to", "runs"], "name a file"),
    "nothing for a file": (["report", "one", "--to", ""], "name a file"),
    "no figure formats": (["plot", "one", "--formats", ","], "--formats is empty"),
    "nowhere to write": (["export", "one", "--to", "nowhere/a.csv"], "cannot be written"),
    "one study compared": (["compare", "one"], "two different studies"),
    "the same compared": (["compare", "one", "runs/one"], "two different studies"),
    "two kinds of status": (["status", "one", "--follow", "--json"], "--follow and --json"),
    "nobody to ask": (["delete", "one"], "--yes"),
    "no command": (["frobnicate"], "frobnicate"),
    "a password for all to see": (
        ["list", "--storage", "postgresql+psycopg://me:secret-word@127.0.0.1/trials"],
        "--storage holds a password",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_with_status_2(
    arguments: list[str], message: str, runs: Path, capsys
) -> None:
    before = contents(runs)
    assert run(["studies", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert "secret-word" not in output.out + output.err
    assert contents(runs) == before


def test_a_damaged_study_is_named_beside_the_others(runs: Path, capsys) -> None:
    (runs / "two" / "study.db").write_bytes(b"prunetune" * 1000)
    assert run(["studies", "list"]) == 2
    output = capsys.readouterr()
    assert "one" in output.out
    assert "two/study.db is not a readable SQLite database" in output.err
    assert run(["studies", "delete", "two", "--yes"]) == 0  # the way to be rid of it
    assert not (runs / "two").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["export", "one"]])
def test_output_that_cannot_be_written_is_said(
    runs: Path, arguments: list[str], unbuffered: str
) -> None:
    command = [sys.executable, str(REPOSITORY / "search" / "run.py"), "studies", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=runs.parent, stdout=full, stderr=subprocess.PIPE, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == b"error: the output cannot be written (No space left on device)\n"
    # Nobody reads it: `prunetune studies list | true`.
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, cwd=runs.parent, stdout=writing, stderr=subprocess.PIPE, env=environment
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_help_names_the_commands(capsys) -> None:
    assert run(["--help"]) == 0
    output = capsys.readouterr().out
    assert "prunetune studies" in output
    assert "prunetune dashboard" in output
    assert run(["studies", "--help"]) == 0
    output = capsys.readouterr().out
    for command in (
        *("list", "status", "watch", "show", "export", "plot", "report", "compare", "delete"),
    ):
        assert re.search(rf"^  {command} ", output, re.MULTILINE)

"""Studies are deleted, with their trials, and no others."""

from __future__ import annotations

import os
from pathlib import Path

from running_study import contents

from search.command_line import run
from tests.studies.commands.program import on_a_terminal, read_until, says


def test_a_study_is_deleted_and_no_other(runs: Path, capsys) -> None:
    before = contents(runs / "two")
    assert "Removed" in says(capsys, "delete", "one", "--yes")
    assert [path.name for path in runs.iterdir()] == ["two"]
    assert contents(runs / "two") == before


def test_deleting_asks_on_a_terminal(runs: Path) -> None:
    for answer, left in ((b"n\n", ["one", "two"]), (b"y\n", ["two"])):
        process, terminal = on_a_terminal(runs.parent, "studies", "delete", "one")
        assert b"Remove runs/one with" in read_until(terminal, b"[y/N]")
        os.write(terminal, answer)
        assert process.wait(timeout=300) == (0 if answer == b"y\n" else 1)
        os.close(terminal)
        assert sorted(path.name for path in runs.iterdir()) == left


def test_a_link_to_a_study_is_not_followed_in_deleting(runs: Path, capsys) -> None:
    (runs / "link").symlink_to(runs / "one")
    assert run(["studies", "delete", "link", "--yes"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert (runs / "one" / "results.json").exists()

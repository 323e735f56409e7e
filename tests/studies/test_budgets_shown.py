"""What people read of a budget in bytes, and by which name files go on knowing it."""

from __future__ import annotations

import csv
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from search.command_line import run

NAME, LABEL = "60000000 bytes", "60 MB"
SECOND = "64 MiB"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of two such budgets; ``said.txt`` beside it is what it printed."""
    out = tmp_path_factory.mktemp("runs")
    command = ["--model", "analytic", "--trials", "4", "--stages", "1", "--study", "kv"]
    with redirect_stdout(StringIO()) as said:
        assert run([*command, "--budget", "60MB", "--budget", SECOND, "--out", str(out)]) == 0
    (out / "said.txt").write_text(said.getvalue())
    return out / "kv"


def test_bytes_are_shown_as_people_give_them(searched: Path, capsys) -> None:
    files = (searched.parent / "said.txt", searched / "report.md", searched / "report.html")
    texts = {file.name: file.read_text() for file in files}
    for command in ("status", "show", "export --format latex"):
        assert run(["studies", *command.split(), str(searched)]) == 0
        texts[command] = capsys.readouterr().out
    assert run(["studies", "list", "--out", str(searched.parent)]) == 0
    texts["list"] = capsys.readouterr().out
    for place, text in texts.items():
        assert LABEL in text, place
        assert SECOND in text, place
        assert NAME not in text, place


def test_files_go_on_calling_it_by_its_name(searched: Path, capsys) -> None:
    identity = json.loads((searched / "identity.json").read_text())
    assert identity["budgets"] == [NAME, "67108864 bytes"]
    assert (searched / "schedule-60000000-bytes.json").exists()
    with (searched / "trials.csv").open() as file:
        assert {row["budget"] for row in csv.DictReader(file)} == {NAME, "67108864 bytes"}
    for given in (NAME, LABEL, "60MB"):
        assert run(["studies", "export", str(searched), "--format", "json", "--budget", given]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert {row["budget"] for row in rows} == {NAME}

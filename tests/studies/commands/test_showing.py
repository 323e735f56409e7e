"""What is listed and shown of studies."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import optuna
import pytest
from rich.console import Console
from running_study import contents

from pruners import load_schedule
from search.command_line import run
from studies.commands import tables
from studies.progress import read_progress
from studies.reading import find_studies, read_study
from studies.storage import StudyFolder
from studies.study_comparison import compare_studies
from tests.studies.commands.program import says


def test_looking_at_studies_changes_nothing(runs: Path, capsys) -> None:
    before = contents(runs)
    for arguments in (
        ["list"],
        ["status", "one"],
        ["watch", "two"],
        ["show", "two"],
        ["export", "one"],
        ["compare", "one", "two"],
        ["plot", "one", "--to", "elsewhere", "--formats", "svg"],
        ["report", "one", "--to", "page.html"],
    ):
        assert says(capsys, *arguments)
        assert contents(runs) == before, arguments


def test_what_is_listed_is_what_optuna_and_the_results_say(runs: Path, capsys) -> None:
    one, two = json.loads(says(capsys, "list", "--json"))
    assert (one["name"], one["state"], two["name"]) == ("one", "finished", "two")
    assert [budget["budget"] for budget in two["budgets"]] == ["2 TFLOPs", "4 TFLOPs"]
    results = json.loads((runs / "two" / "results.json").read_text())
    for shown, result in zip(two["budgets"], results, strict=True):
        url = f"sqlite:///{runs / 'two' / 'study.db'}"
        study = optuna.load_study(study_name=shown["budget"], storage=url)
        assert shown["complete"] == len(study.trials) == 4
        (searched,) = [each for each in result["schedules"] if each["name"] == "searched"]
        assert shown["reported"] == searched["evidence"]["relative_accuracy"]
        most = max(len(trial.intermediate_values) for trial in study.trials)
        longest = [trial for trial in study.trials if len(trial.intermediate_values) == most]
        best = max(np.mean(trial.user_attrs["accuracies"]) for trial in longest)
        assert shown["best"] == pytest.approx(best)
    table = says(capsys, "list")
    for word in ("one", "two", "finished", "analytic", "4 TFLOPs"):
        assert word in table


def test_tables_fit_a_terminal_and_lose_no_digit_in_a_narrow_one(runs: Path) -> None:
    studies = [read_progress(folder) for folder in find_studies(runs)]
    both = [read_study(folder) for folder in find_studies(runs)]
    shown = Console(file=io.StringIO(), width=80)
    shown.print(tables.studies_table(studies))
    lines = shown.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines if "TFLOPs" in line] == ["one", "two", "4"]
    assert len([line for line in lines if line.strip()]) == 2 + 3  # no row takes a second line
    for drawn in (
        tables.studies_table(studies),
        tables.progress_panel(studies[1]),
        tables.comparison_panel(compare_studies(both)),
        tables.schedule_table(both[0].budgets[0].schedule),
        tables.identity_table(both[0]),
    ):
        narrow = Console(file=io.StringIO(), width=30)
        narrow.print(drawn)
        assert "…" not in narrow.file.getvalue()


def test_show_has_the_identity_the_results_and_the_stages(runs: Path, capsys) -> None:
    shown = json.loads(says(capsys, "show", "two", "--json"))
    assert shown["identity"] == json.loads((runs / "two" / "identity.json").read_text())
    results = json.loads((runs / "two" / "results.json").read_text())
    assert [budget["result"] for budget in shown["budgets"]] == results
    text = says(capsys, "show", "two")
    schedule = load_schedule(runs / "two" / "schedule-4-tflops.json")
    for stage, count in zip(schedule.stages, schedule.counts(576), strict=True):
        row = rf"^\s+{stage.layer}\s+{count.alive}\s+{count.dominant}\s+{count.contextual}\s"
        assert re.search(row + f"+{stage.scorer.kind}", text, re.MULTILINE)
    for word in ("searched", "VisionDrop", "DeSAP", "500 report", "llava-1.5-7b"):
        assert word in text


def test_figures_and_page_are_written_into_the_study(runs: Path, capsys) -> None:
    written = says(capsys, "plot", "two", "--formats", "png", "--width", "page").split()
    assert "runs/two/figures/pareto.png" in written
    assert all(Path(path).exists() for path in written)
    (runs / "two" / "report.html").unlink(missing_ok=True)
    assert says(capsys, "report", "two").strip() == "runs/two/report.html"
    assert "VisionDrop" in (runs / "two" / "report.html").read_text()


def test_names_are_shown_as_they_are(runs: Path, capsys) -> None:
    name = "one [bold] 100%  \u00fc [z"
    (runs / "one").rename(runs / name)
    for arguments in (["list"], ["status", name], ["show", name]):
        assert name in says(capsys, *arguments)
    assert f"{name} minus this" in says(capsys, "compare", name, "two")


def test_a_study_that_has_only_begun_is_shown_as_that(runs: Path, identity, capsys) -> None:
    StudyFolder.open(runs / "begun", identity).close()
    (progress,) = [
        study for study in json.loads(says(capsys, "list", "--json")) if study["name"] == "begun"
    ]
    assert progress["state"] == "new"
    assert "no schedule yet, 0 trials" in says(capsys, "show", "begun")
    for arguments, message in (
        (["export", "begun", "--format", "schedule", "--budget", "2 TFLOPs"], "no schedule"),
        (["plot", "begun"], "no trials to draw"),
    ):
        assert run(["studies", *arguments]) == 2
        assert message in capsys.readouterr().err
    compared = json.loads(says(capsys, "compare", "one", "begun", "--json"))
    (_, row) = compared["budgets"][0]["studies"]
    assert "reported nothing yet" in row["why_not"]

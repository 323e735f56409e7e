"""Which studies a command continues, and which it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pruners import load_schedule
from search.analytic import AnalyticEvaluator
from search.command_line import run
from space import full_vocabulary
from space.parameters import Parameter
from tests.search.job.command import ANALYTIC


def test_the_same_command_continues_and_measures_nothing_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*ANALYTIC, "--budget", "30%", "--trials"]
    assert run([*command, "8"]) == 0
    path = Path("runs/llava-1.5-7b-30-percent-seed-0/schedule.json")
    first = json.loads(path.read_text())

    measured = []
    score = AnalyticEvaluator.score

    def counted(self: AnalyticEvaluator, *args: object) -> object:
        measured.append(args)
        return score(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(AnalyticEvaluator, "score", counted)
    assert run([*command, "8"]) == 0
    assert measured == []
    again = json.loads(path.read_text())
    for schedule in (first, again):
        del schedule["provenance"]["created"]
    assert again == first

    assert run([*command, "9"]) == 0  # more trials are no other study
    assert load_schedule(path).provenance.trials == 9  # type: ignore[union-attr]
    assert "Continuing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (["--stages", "2"], "--stages: 3 in the study, 2 now"),
        (["--space", "full"], '--space: "mission" in the study, "full" now'),
        (["--seed", "5"], "--seed: 0 in the study, 5 now"),
        (["--strategy", "random"], '--strategy: "adaptive" in the study, "random" now'),
        (
            ["--target", "llava-1.5-13b"],
            '--target: "llava-1.5-7b" in the study, "llava-1.5-13b" now',
        ),
        (["--model", "embedded"], '--model: "analytic" in the study, "embedded" now'),
        (["--budget", "40%"], '--budget: ["30%"] in the study, ["30%", "40%"] now'),
        (
            ["--stages", "2", "--space", "full", "--seed", "5"],
            '--seed: 0 in the study, 5 now; --stages: 3 in the study, 2 now; --space: "mission" in '
            'the study, "full" now',
        ),
    ],
)
def test_another_identity_is_refused_by_naming_what_differs(
    changed: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ANALYTIC, "--budget", "30%", "--study", "mine"]
    assert run([*command, "--trials", "2"]) == 0
    before = {path: path.read_bytes() for path in Path("runs/mine").iterdir()}
    capsys.readouterr()
    assert run([*command, *changed]) == 2
    output = capsys.readouterr()
    # What differs only because of that, fingerprints and ranges, say, is left out.
    assert f"which cannot be continued: {field}. Give" in output.err
    assert output.out == ""
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("part", "changed", "field"),
    [
        ("_POSITIONS", ("original", "compact"), "space.dimensions.positions: ["),
        ("_DECODER_SCORERS", ("visual-self-attention",), "space.dimensions.scorer_1: ["),
        (
            "SHARES",
            (Parameter("contextual", 0.0, 0.5), Parameter("similarity_weight", 0.0, 0.75)),
            "space.dimensions.similarity_weight: [0.0, 1.0] in the study, [0.0, 0.75] now",
        ),
    ],
)
def test_a_space_of_other_options_is_refused(
    part: str,
    changed: tuple[object, ...],
    field: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another version of the program may have them; Optuna cannot continue with those."""
    command = [*ANALYTIC, "--budget", "30%", "--space", "full", "--trials", "1"]
    assert run(command) == 0
    capsys.readouterr()
    monkeypatch.setattr(full_vocabulary, part, changed)
    assert run(command) == 2
    assert field in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\x00" + b"\xff" * 500])
def test_a_damaged_database_is_refused(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*ANALYTIC, "--budget", "30%", "--study", "mine", "--trials", "2"]
    assert run(command) == 0
    for log in Path("runs/mine").glob("study.db-*"):
        log.unlink()
    Path("runs/mine/study.db").write_bytes(content)
    assert run(command) == 2
    assert "study.db" in capsys.readouterr().err
    assert Path("runs/mine/study.db").read_bytes() == content

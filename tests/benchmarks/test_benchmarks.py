"""The benchmark scripts, as their docstrings say to run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pruners import Schedule
from search.analytic import AnalyticEvaluator
from search.measured_form import as_measured
from studies.statistics import relative_accuracy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_main_job_is_measured_once_and_reported_as_it_is(tmp_path):
    arguments = ["--model", "analytic", "--seeds", 2, "--trials", 12, "--budget", "22%"]
    arguments += ["--samples", 100, "--study", tmp_path / "work", "--out"]
    first = _run("main_job.py", *arguments, tmp_path / "first.json")
    assert first.returncode == 0, first.stderr
    assert "2/2 cells" in first.stdout
    again = _run("main_job.py", *arguments, tmp_path / "again.json")
    assert "cells" not in again.stdout  # nothing is left to measure
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "first.json").read_bytes()

    (budget,) = json.loads((tmp_path / "first.json").read_text())["budgets"]
    methods = {method["name"]: method for method in budget["methods"]}
    assert list(methods) == ["searched", "random search", "visiondrop", "desap"]
    for searched, random in zip(
        methods["searched"]["evaluations"], methods["random search"]["evaluations"], strict=True
    ):
        assert searched <= random < searched + 100  # by less than one trial

    # Measured again without any cache.
    evaluator = AnalyticEvaluator()
    samples = evaluator.samples("report")
    tasks, everything = [sample.task for sample in samples], range(len(samples))
    dense = evaluator.score(Schedule(), "report", everything)
    for seed in range(2):
        (cell,) = (tmp_path / "work").glob(f"cell-*-seed-{seed}.json")
        schedule = Schedule.model_validate(json.loads(cell.read_text())["searched"]["schedule"])
        scores = evaluator.score(as_measured(schedule, evaluator.shape), "report", everything)
        expected = relative_accuracy(scores, dense, tasks)
        assert methods["searched"]["per_seed"][seed] == expected
    assert np.isclose(
        methods["searched"]["relative_accuracy"], np.mean(methods["searched"]["per_seed"])
    )

    other = _run("main_job.py", *arguments, tmp_path / "other.json", "--stages", 2)
    assert other.returncode == 2
    assert "--stages: 3 in the study, 2 now" in " ".join(other.stdout.split())


def test_killed_studies_lose_nothing(tmp_path):
    arguments = ["--model", "analytic", "--kills", 2, "--trials", 8, "--out", tmp_path / "out.json"]
    result = _run("kill_resume.py", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    outcome = json.loads((tmp_path / "out.json").read_text())
    assert outcome["lost"] == outcome["invalid"] == 0
    assert outcome["studies"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_embedded_study_loses_nothing(tmp_path):
    # Few kills for its time; the script's default is twenty.
    result = _run("kill_resume.py", "--kills", 2, "--out", tmp_path / "out.json")
    assert result.returncode == 0, result.stdout + result.stderr
    outcome = json.loads((tmp_path / "out.json").read_text())
    assert outcome["kills"] + outcome["ended_before_kill"] == 2
    assert outcome["as_uninterrupted"] == outcome["studies"]

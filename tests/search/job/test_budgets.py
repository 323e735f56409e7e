"""Budgets searched together, and those that end without a schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruners import load_schedule
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.command_line import run
from search.measured_form import as_measured
from studies.results import read_results
from tests.search.job.command import ANALYTIC, FRONT


@pytest.mark.usefixtures("_share")
def test_budgets_may_be_searched_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*FRONT, "4"]) == 0
    shown = capsys.readouterr().out
    assert "Search at 2 budgets: 8/8" in shown
    results = read_results(Path("runs/front/results.json"))
    assert [result.budget for result in results] == ["2 TFLOPs", "4 TFLOPs"]
    for result, number in zip(results, (2, 4), strict=True):
        assert (result.trials, result.evaluations) == (4, 4 * 100)
        schedule = load_schedule(Path(f"runs/front/schedule-{number}-tflops.json"))
        assert schedule.evidence is not None
        # The search saw 100 samples of the winner; what is shown of it is on all.
        samples = {name: split.samples for name, split in schedule.evidence.splits.items()}
        assert samples == {"search": 500, "confirm": 300, "report": 500}
        evaluator = AnalyticEvaluator()
        scores = evaluator.score(as_measured(schedule, ANALYTIC_SHAPE), "search", range(500))
        assert schedule.evidence.splits["search"].accuracy == pytest.approx(scores.mean())


@pytest.mark.parametrize("strategy", ["g-search", "tpe-penalty"])
def test_a_strategy_that_needs_more_trials_for_a_schedule_within_the_budget_says_so(
    strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ANALYTIC, "--budget-tflops", "2", "--study", "few", "--strategy", strategy]
    assert run([*command, "--trials", "2"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "(all trials are done); give it more of them with --trials" in message
    assert run([*command, "--trials", "40"]) == 0
    assert load_schedule("runs/few/schedule.json").cost.tflops <= 2


@pytest.mark.parametrize("budgets", [("20%", "90%"), ("90%", "20%")])
def test_a_budget_without_a_schedule_costs_the_others_nothing(
    budgets: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # The first trials of g-search are dense and half of it, which meet 90% only.
    given = [word for budget in budgets for word in ("--budget", budget)]
    command = [*ANALYTIC, *given, "--study", "two", "--strategy", "g-search", "--trials"]
    assert run([*command, "3"]) == 2
    said = capsys.readouterr()
    assert "finished at 20% (all trials are done)" in " ".join(said.err.split())
    assert "90%" not in said.err
    folder = Path("runs/two")
    (result,) = read_results(folder / "results.json")
    assert result.budget == "90%"
    assert load_schedule(folder / "schedule-90-percent.json").evidence is not None
    assert not (folder / "schedule-20-percent.json").exists()
    assert {"report.md", "report.html", "trials.csv"} <= {path.name for path in folder.iterdir()}
    assert "schedule-90-percent.json" in said.out
